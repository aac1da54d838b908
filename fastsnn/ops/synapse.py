"""Synapses that follow a traced neuron: run once forward, weight gradient from the trace (equations/ottt.md).

    y = W*s + b ;  g_W = weight_grad(input = a, g_y) ;  g_b = sum g_y ;  g_s = input_grad(W, g_y)

The products themselves are torch's on every backend; what is ours is which operand each gradient takes, and that one
product may take those of several steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from .common.autograd import ends_at_neurons, first_order

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MOST_STEPS = 3  # of one product

# (g_y, trace, weight, which): gradients of input, weight and bias, or None for those that `which` leaves out
Gradients = Callable[[Tensor, Tensor, Tensor, "list[bool]"], "tuple[Tensor | None, ...]"]


class Steps:
    """Of a synapse whose steps have a backward each: copies of the output gradients and traces of the last ones, and
    the sums of the gradients of weight and bias before them."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gradients: Gradients) -> None:
        self._learned, self._gradients = (weight, bias), gradients
        self._operands: tuple[Tensor, ...] = ()
        self._form: Any = None
        self._rows = 0
        self._sums: list[Tensor | None] = [None, None]

    def take(self, *given: Tensor) -> bool:
        """Whether the gradients of a step, of g_y and trace, come with those of others, in a pass of `backward`: where
        the operands of two or more take no more memory than the weight."""
        most = min(MOST_STEPS, self._learned[0].numel() // max(sum(each.numel() for each in given), 1))
        n = len(given[0])
        if n == 0 or most < 2 or not _together.waits or ends_at_neurons():
            return False
        form = [(each.shape, each.dtype) for each in given]
        if form != self._form:
            self._multiply()
            self._form, self._operands = form, tuple(torch.cat([each] * most) for each in given)  # in its layout
        for kept, each in zip(self._operands, given, strict=True):
            kept.narrow(0, self._rows, n).copy_(each)
        self._rows += n
        if self._rows == most * n:
            self._multiply()
        return True

    def _multiply(self) -> None:
        if self._rows == 0:
            return
        g_y, trace = (kept.narrow(0, 0, self._rows) for kept in self._operands)
        self._rows = 0
        which = [False, *(p is not None and p.requires_grad for p in self._learned)]
        _, *found = self._gradients(g_y, trace, self._learned[0], which)
        for i, (p, g) in enumerate(zip(self._learned, found, strict=True)):
            if p is not None and g is not None:
                total, g = self._sums[i], g.to(p.dtype)
                self._sums[i] = g if total is None else total.add_(g)

    def arrive(self) -> None:
        """Put the sums into `.grad`, as autograd would."""
        self._multiply()
        for p, total in zip(self._learned, self._sums, strict=True):
            if p is None or total is None:
                continue
            if p.grad is not None:
                p.grad.add_(total)
            else:
                p.grad = total if total.stride() == p.stride() else torch.empty_like(p).copy_(total)


class _Together(threading.local):
    """Of this thread: the synapses of `steps_together`, None outside; whether a pass of `backward` runs."""

    synapses: dict[tuple[Any, ...], Steps] | None = None
    waits = False


_together = _Together()


@contextmanager
def steps_together() -> Iterator[None]:
    """Within it, passes of `backward` leave weight and bias of traced synapses on the CPU to one product for up to
    MOST_STEPS of them: the gradients are in `.grad` where it ends without an error. Weights that are computed, or have
    hooks, have a gradient from each pass."""
    before, _together.synapses = _together.synapses, {}
    try:
        yield
        for steps in _together.synapses.values():
            steps.arrive()
    finally:
        _together.synapses = before


def backward(loss: Tensor) -> None:
    """loss.backward(), which within `steps_together` may leave gradients to later steps."""
    _together.waits = _together.synapses is not None
    try:
        loss.backward()
    finally:
        _together.waits = False


def _steps_of(weight: Tensor, bias: Tensor | None, gradients: Callable[..., Any], *geometry: Any) -> Steps | None:
    """Where the call's gradients may come with those of other steps."""
    if is_dynamo_compiling() or _together.synapses is None or not torch.is_grad_enabled():
        return None
    if not weight.requires_grad or not may_wait(weight) or not (bias is None or may_wait(bias)):
        return None
    key = (id(weight), id(bias), geometry)
    if key not in _together.synapses:
        _together.synapses[key] = Steps(weight, bias, partial(gradients, *geometry))
    return _together.synapses[key]


def may_wait(p: Tensor) -> bool:
    """Whether nothing sees when the gradient of a parameter on the CPU comes."""
    hooked = p._backward_hooks or p._post_accumulate_grad_hooks
    return p.is_leaf and p.device.type == "cpu" and not hooked


def _learn(ctx: Any, g_y: Tensor, trace: Tensor, weight: Tensor, gradients: Gradients) -> Any:
    """Gradients of the four operands of a synapse."""
    to_input, _, *to_learned = ctx.needs_input_grad[:4]
    if ctx.steps is not None and ctx.steps.take(g_y, trace):
        to_learned = [False, False]
    g_s, g_weight, g_bias = gradients(g_y, trace, weight, [to_input and not ends_at_neurons(), *to_learned])
    return _cast(g_s, ctx.input_dtype), None, _cast(g_weight, weight.dtype), _cast(g_bias, weight.dtype)


def _rows(x: Tensor) -> Tensor:
    """x [*, features] as [rows, features]."""
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])


def _cast(tensor: Any, dtype: torch.dtype) -> Any:
    return tensor if tensor is None else tensor.to(dtype)


def _linear_gradients(g_y: Tensor, trace: Tensor, weight: Tensor, which: list[bool]) -> Any:
    g_s = g_y @ _cast(weight, g_y.dtype) if which[0] else None
    g_weight = g_y.t() @ _cast(trace, g_y.dtype) if which[1] else None
    return g_s, g_weight, g_y.sum(0, dtype=weight.dtype) if which[2] else None


def _conv_gradients(
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    g_y: Tensor,
    trace: Tensor,
    weight: Tensor,
    which: list[bool],
) -> Any:
    # the input gradient reads only W, the weight gradient only the input: so the input is the trace
    return torch.ops.aten.convolution_backward(
        g_y,
        _cast(trace, g_y.dtype),
        _cast(weight, g_y.dtype),
        [weight.shape[0]] if which[2] else None,
        stride,
        padding,
        dilation,
        False,
        [0] * len(stride),
        groups,
        which,
    )


class TracedLinear(torch.autograd.Function):
    """F.linear(s, W, b) with g_W = g_y^T a. The saved trace is an output for `first_order`: W's gradient changes with
    the neurons below, which the trace does not tell."""

    @staticmethod
    def forward(ctx: Any, s: Tensor, trace: Tensor, weight: Tensor, bias: Tensor | None, steps: Steps | None) -> Any:
        trace = trace.detach()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(trace, weight)
        ctx.input_dtype, ctx.steps = s.dtype, steps
        return F.linear(s, weight, bias), trace

    @staticmethod
    @first_order
    def backward(ctx: Any, g_y: Tensor | None, _: None) -> Any:
        if g_y is None:
            return (None,) * 5
        trace, weight = ctx.saved_tensors
        g_s, *others = _learn(ctx, _rows(g_y), _rows(trace), weight, _linear_gradients)
        return g_s if g_s is None or trace.dim() == 2 else g_s.view(trace.shape), *others, None


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
        geometry: tuple[Any, ...],
        steps: Steps | None,
    ) -> Any:
        trace = trace.detach()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(trace, weight)
        ctx.input_dtype, ctx.geometry, ctx.steps = s.dtype, geometry, steps
        return CONV[weight.dim() - 2](s, weight, bias, *geometry), trace

    @staticmethod
    @first_order
    def backward(ctx: Any, g_y: Tensor | None, _: None) -> Any:
        if g_y is None:
            return (None,) * 6
        trace, weight = ctx.saved_tensors
        return *_learn(ctx, g_y, trace, weight, partial(_conv_gradients, *ctx.geometry)), None, None


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
    return TracedLinear.apply(s, trace, weight, bias, _steps_of(weight, bias, _linear_gradients))[0]


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


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
    geometry = (stride, _tuple(padding, dims), dilation, groups)
    y, _ = TracedConv.apply(s, trace, weight, bias, geometry, _steps_of(weight, bias, _conv_gradients, *geometry))
    return y.squeeze(0) if unbatched else y


def _named_padding(
    s: Tensor, trace: Tensor, padding: str, kernel: torch.Size, dilation: tuple[int, ...]
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """'valid' and 'same' as numbers; an odd total of 'same' is padded at the end first, as torch does."""
    if padding == "valid":
        return s, trace, (0,) * len(dilation)
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(p % 2 for p in total):
        ends = [side for p in reversed(total) for side in (0, p % 2)]
        s, trace = F.pad(s, ends), F.pad(trace, ends)
    return s, trace, tuple(p // 2 for p in total)
