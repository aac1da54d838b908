"""Synapses that follow a traced neuron: run once forward, weight gradient from the trace (equations/ottt.md).

    y = W*s + b ;  g_W = weight_grad(input = a, g_y) ;  g_b = sum g_y ;  g_s = input_grad(W, g_y)

The products themselves are torch's on every backend; what is ours is which operand each gradient takes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .autograd import ends_at_neurons, first_order

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _cast(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.to(like.dtype)


class TracedLinear(torch.autograd.Function):
    """F.linear(s, W, b) with g_W = g_y^T a. The saved trace is an output for `first_order`: W's gradient changes with
    the neurons below, which the trace does not tell."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, trace: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        trace = trace.detach()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(trace, weight)
        ctx.input_dtype = s.dtype
        return F.linear(s, weight, bias), trace

    @staticmethod
    @first_order
    def backward(ctx: Any, g_y: Tensor | None, _: None) -> Any:
        if g_y is None:
            return None, None, None, None
        trace, weight = ctx.saved_tensors
        g_s = g_weight = g_bias = None
        if ctx.needs_input_grad[0] and not ends_at_neurons():
            g_s = (g_y @ _cast(weight, g_y)).to(ctx.input_dtype)
        flat = g_y.reshape(-1, g_y.shape[-1])
        if ctx.needs_input_grad[2]:
            g_weight = (flat.t() @ _cast(trace, g_y).reshape(-1, trace.shape[-1])).to(weight.dtype)
        if ctx.needs_input_grad[3]:
            g_bias = flat.sum(0, dtype=weight.dtype)
        return g_s, None, g_weight, g_bias


class TracedConv(torch.autograd.Function):
    """Convolution of s over 1, 2 or 3 dimensions with its weight gradient taken from the trace; outputs as
    TracedLinear's."""

    @staticmethod
    def forward(
        ctx: Any,
        s: Tensor,
        trace: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> Any:
        trace = trace.detach()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(trace, weight)
        ctx.input_dtype = s.dtype
        ctx.geometry = (stride, padding, dilation, groups)
        return CONV[weight.dim() - 2](s, weight, bias, stride, padding, dilation, groups), trace

    @staticmethod
    @first_order
    def backward(ctx: Any, g_y: Tensor | None, _: None) -> Any:
        if g_y is None:
            return (None,) * 8
        trace, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        wants = ctx.needs_input_grad

        def backward(g: Tensor, mask: list[bool]) -> Any:
            # the input gradient reads only W, the weight gradient only the input: so the input is the trace
            return torch.ops.aten.convolution_backward(
                g,
                _cast(trace, g),
                _cast(weight, g),
                [weight.shape[0]] if wants[3] else None,
                stride,
                padding,
                dilation,
                False,
                [0] * len(stride),
                groups,
                mask,
            )

        g_s, g_weight, g_bias = backward(g_y, [wants[0] and not ends_at_neurons(), wants[2], wants[3]])
        g_s = g_s if g_s is None else g_s.to(ctx.input_dtype)
        g_weight = g_weight if g_weight is None else g_weight.to(weight.dtype)
        g_bias = g_bias if g_bias is None else g_bias.to(weight.dtype)
        return g_s, None, g_weight, g_bias, None, None, None, None


class TwoPass(torch.autograd.Function):
    """y on the spikes, whose gradient also goes to the same product on the trace."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, of_trace: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, g_y: Tensor) -> Any:
        return g_y, g_y


def two_pass(y: Tensor, of_trace: Tensor) -> Tensor:
    """Any product: y of spikes and detached weights, of_trace of trace and weights, which take their gradient there."""
    return TwoPass.apply(y, of_trace)


def linear(s: Tensor, trace: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear(s, weight, bias) whose weight gradient is taken with `trace` ([*, in], as s) in place of s."""
    return TracedLinear.apply(s, trace, weight, bias)[0]


def _tuple(value: Any, dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value) * (dims if len(value) == 1 else 1)


def conv(
    s: Tensor,
    trace: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """F.conv1d, conv2d or conv3d (by the weight's shape) whose weight gradient is taken with `trace`."""
    dims = weight.dim() - 2
    stride, dilation = _tuple(stride, dims), _tuple(dilation, dims)
    if isinstance(padding, str):
        if padding not in ("valid", "same") or (padding == "same" and set(stride) != {1}):
            raise ValueError(
                f"padding is {padding!r} with stride {stride}; allowed: numbers, 'valid', and 'same' with stride 1"
            )
        s, trace, padding = _named_padding(s, trace, padding, weight.shape[2:], dilation)
    unbatched = s.dim() == dims + 1
    if unbatched:
        s, trace = s.unsqueeze(0), trace.unsqueeze(0)
    y, _ = TracedConv.apply(s, trace, weight, bias, stride, _tuple(padding, dims), dilation, groups)
    return y.squeeze(0) if unbatched else y


def _named_padding(
    s: Tensor, trace: Tensor, padding: str, kernel: torch.Size, dilation: list[int]
) -> tuple[Tensor, Tensor, list[int]]:
    """'valid' and 'same' as numbers; an odd total of 'same' is padded at the end first, as torch does."""
    if padding == "valid":
        return s, trace, [0] * len(dilation)
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(p % 2 for p in total):
        ends = [side for p in reversed(total) for side in (0, p % 2)]
        s, trace = F.pad(s, ends), F.pad(trace, ends)
    return s, trace, [p // 2 for p in total]
