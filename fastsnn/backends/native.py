"""A core as backend: allocates outputs, passes addresses. CPU and CUDA differ in where they run; the Triton core
takes the tensors themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops.types import EMPTY, Forward, LIFParams, LIFState, Pull, Saved, state_dtype
from ..reference.binary import Geometry, output_shape
from ..reference.surrogate import SHAPES

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
TRACES = {"none": 0, "ottt": 1, "ndot": 2, "ndot_released": 3}


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


Give = Callable[[Tensor | None], Any]
POINT = (1, 1)  # a plane, or a kernel, of one pixel


def _empty_float(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


class LIFKernels:
    """LIF kernels of one core; signatures as fastsnn.reference.lif, and fastsnn.reference.mpdr where the core has it.
    `where(x)` is the core's Execution for x, `give(tensor)` what it takes for a tensor or for none."""

    def __init__(
        self, name: str, core: Any, where: Callable[[Tensor], Any], saves_u: bool, give: Give = _address
    ) -> None:
        self.NAME, self.SAVES_U = name, saves_u
        self._core, self._where, self._give, self._cached = core, where, give, f"_native_{name}"

    def _params(self, p: LIFParams) -> Any:
        native = p.__dict__.get(self._cached)
        if native is None:
            native = p.__dict__[self._cached] = self._core.LifParams(
                leak=p.leak,
                gain=p.gain,
                bias=p.bias,
                threshold=p.threshold,
                v_reset=p.v_start,
                reset_grad=p.reset_grad,
                height=p.height,
                slope=p.slope,
                reset=p.v_reset is not None,
                trace=TRACES[p.trace],
                surrogate=SHAPES.index(p.shape),
            )
        return native

    def forward(
        self,
        p: LIFParams,
        x: Tensor,
        state: LIFState,
        sequence: bool,
        v_seq: bool = False,
        into: LIFState = EMPTY,
        u_seq: bool = False,
        moments_out: Tensor | None = None,
    ) -> Forward:
        give = self._give
        potential, is_v, trace, ratio, keep = state
        one = x[0] if sequence else x
        empty = torch.empty_like if x.dtype in (torch.float32, torch.float64) else _empty_float
        spikes = torch.empty_like(x)
        u, _, a, e, _ = into
        v = None
        if u is None:
            u = empty(x if u_seq else one)
        if v_seq or not p.online:
            v = empty(x if v_seq else one)
        if a is None and p.trace != "none":
            a = empty(x)
        if e is None and p.trace in ("ndot", "ndot_released"):
            e = empty(one)
        arguments = (
            self._params(p),
            self._where(x),
            len(x) if sequence else 1,
            one.numel(),
            DTYPES[x.dtype],
            ratio is None,
            is_v,
            give(x),
            give(potential),
            give(trace),
            give(ratio),
            give(keep),
            give(spikes),
            give(None if u_seq else u),
            give(u if u_seq else None),
            give(None if v_seq else v),
            give(v if v_seq else None),
            give(a),
            give(e),
        )
        if moments_out is None:
            self._core.lif_forward(*arguments)
        else:
            self._core.mpdr_forward(*arguments, give(moments_out))
        return Forward(spikes, u, v, a, e)

    def backward(
        self,
        p: LIFParams,
        saved: Saved,
        g_s: Tensor | None,
        g_v: Tensor | None = None,
        g_v_seq: Tensor | None = None,
        want_v: bool = False,
        pull: Pull | None = None,
    ) -> tuple[Tensor | None, ...]:
        give = self._give
        like: Any = saved.x if saved.u is None else saved.u
        one = like[0] if saved.sequence else like
        g_x = torch.empty_like(like) if like.dtype == saved.dtype else torch.empty_like(like, dtype=saved.dtype)
        g_v_first = torch.empty_like(one, dtype=state_dtype(saved.dtype)) if want_v else None
        arguments = (
            self._params(p),
            self._where(like),
            not p.online,
            len(like) if saved.sequence else 1,
            one.numel(),
            DTYPES[saved.dtype],
            saved.is_v,
            give(g_s),
            give(saved.keep),
            give(saved.u),
            give(saved.x),
            give(saved.potential),
            give(g_v),
            give(g_v_seq),
            give(g_x),
            give(g_v_first),
        )
        if pull is None:
            self._core.lif_backward(*arguments)
            return g_x, g_v_first
        local = torch.empty_like(g_x) if pull.local else None
        target = (pull.mean, pull.std, pull.weight, pull.mu)
        self._core.mpdr_backward(*arguments, *target, give(pull.moments), give(local))
        return g_x, g_v_first, local


class StandardizeKernels:
    """Weight-standardisation kernels of one core; signatures as fastsnn.reference.standardize."""

    def __init__(self, name: str, core: Any, where: Callable[[Tensor], Any], give: Give = _address) -> None:
        self.NAME, self._core, self._where, self._give = name, core, where, give

    def forward(self, weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows, cols = len(weight), weight[0].numel()
        out = torch.empty_like(weight)
        mean = weight.new_empty(rows, dtype=torch.float64)
        inverse = torch.empty_like(mean)
        operands = map(self._give, (weight, gain, mean, inverse, out))
        self._core.standardize_forward(self._where(weight), rows, cols, DTYPES[weight.dtype], eps, *operands)
        return out, mean, inverse

    def backward(
        self, weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        rows, cols = len(weight), weight[0].numel()
        g_weight, g_gain = torch.empty_like(weight), torch.empty_like(gain)
        operands = map(self._give, (weight, gain, mean, inverse, g_out, g_weight, g_gain))
        self._core.standardize_backward(self._where(weight), rows, cols, DTYPES[weight.dtype], eps, *operands)
        return g_weight, g_gain


class BinaryKernels:
    """Binary synapses on one core; signatures as fastsnn.reference.binary."""

    def __init__(self, name: str, core: Any, where: Callable[[Tensor], Any]) -> None:
        self.NAME, self._core, self._where = name, core, where

    def forward(self, weight: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
        out, scale = torch.empty_like(weight), weight.new_empty(len(weight), dtype=torch.float64)
        sizes = len(weight), weight[0].numel(), DTYPES[weight.dtype]
        self._core.binarize_forward(self._where(weight), *sizes, scaled, *map(_address, (weight, scale, out)))
        return out, scale

    def backward(self, weight: Tensor, g_out: Tensor) -> Tensor:
        g_weight = torch.empty_like(weight)
        sizes = len(weight), weight[0].numel(), DTYPES[weight.dtype]
        self._core.binarize_backward(self._where(weight), *sizes, *map(_address, (weight, g_out, g_weight)))
        return g_weight

    def product(
        self,
        x: Tensor,
        words: Tensor,
        bits: int,
        shape: torch.Size,
        scale: Tensor | None,
        bias: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        outputs, inputs, *kernel = shape
        planes: tuple[Sequence[int], ...]
        if kernel:
            y = x.new_empty(output_shape(x.shape, shape, geometry))
            if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
                y = y.contiguous(memory_format=torch.channels_last)
            samples, planes = len(x), (x.shape[2:], y.shape[2:], kernel)
            strides = x.stride(), y.stride()
        else:
            y = x.new_empty(*x.shape[:-1], outputs)
            x = x if x.dim() == 2 else x.reshape(-1, inputs)
            samples, planes = len(x), (POINT, POINT, POINT)
            strides = (*x.stride(), 0, 0), (outputs, 1, 0, 0)
        self._core.packed_product(
            self._where(x),
            samples,
            inputs,
            outputs,
            *planes,
            *geometry,
            *strides,
            bits,
            DTYPES[x.dtype],
            *map(_address, (x, words, scale, bias, y)),
        )
        return y
