"""The native CPU core as backend: allocates outputs, passes pointers to `fastsnn._cpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..ops.types import EMPTY, Forward, LIFParams, LIFState, Saved, state_dtype
from ..reference.surrogate import SHAPES

try:
    from .. import _cpu
except ImportError as error:
    _cpu = None  # type: ignore[assignment]
    _import_error = str(error)

_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_TRACES = {"none": 0, "ottt": 1, "ndot": 2, "ndot_released": 3}


def refusal() -> str | None:
    """Why the core cannot run; None where it can."""
    if _cpu is None:
        in_source = (Path(__file__).parents[2] / "setup.py").exists()
        return (
            f"the native core is not installed ({_import_error}); reinstall fastsnn with a C++17 compiler "
            "and without FASTSNN_PURE_PYTHON" + (", or start Python outside its source folder" if in_source else "")
        )
    return None


def _native(p: LIFParams) -> Any:
    native = p.__dict__.get("_native_cpu")
    if native is None:
        native = p.__dict__["_native_cpu"] = _cpu.LifParams(
            leak=p.leak,
            gain=p.gain,
            bias=p.bias,
            threshold=p.threshold,
            v_reset=p.v_start,
            reset_grad=p.reset_grad,
            height=p.height,
            slope=p.slope,
            reset=p.v_reset is not None,
            trace=_TRACES[p.trace],
            surrogate=SHAPES.index(p.shape),
        )
    return native


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _empty_float(x: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float32)


class lif:
    """LIF kernels; signatures as fastsnn.reference.lif."""

    NAME = "cpu"

    @staticmethod
    def forward(
        p: LIFParams, x: Tensor, state: LIFState, sequence: bool, v_seq: bool = False, into: LIFState = EMPTY
    ) -> Forward:
        potential, is_v, trace, ratio, keep = state
        one = x[0] if sequence else x
        empty = torch.empty_like if x.dtype in (torch.float32, torch.float64) else _empty_float
        spikes = torch.empty_like(x)
        u, _, a, e, _ = into
        v = None
        if u is None:
            u = empty(one)
        if v_seq or not p.online:
            v = empty(x if v_seq else one)
        if a is None and p.trace != "none":
            a = empty(x)
        if e is None and p.trace in ("ndot", "ndot_released"):
            e = empty(one)
        _cpu.lif_forward(
            _native(p),
            len(x) if sequence else 1,
            one.numel(),
            _DTYPES[x.dtype],
            torch.get_num_threads(),
            ratio is None,
            is_v,
            x.data_ptr(),
            _address(potential),
            _address(trace),
            _address(ratio),
            _address(keep),
            spikes.data_ptr(),
            u.data_ptr(),
            0 if v_seq else _address(v),
            _address(v) if v_seq else 0,
            _address(a),
            _address(e),
        )
        return Forward(spikes, u, v, a, e)

    @staticmethod
    def backward(
        p: LIFParams,
        saved: Saved,
        g_s: Tensor | None,
        g_v: Tensor | None = None,
        g_v_seq: Tensor | None = None,
        want_v: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        like: Any = saved.x if saved.u is None else saved.u
        one = like[0] if saved.u is None else like
        g_x = torch.empty_like(like) if like.dtype == saved.dtype else torch.empty_like(like, dtype=saved.dtype)
        g_v_first = torch.empty_like(one, dtype=state_dtype(saved.dtype)) if want_v else None
        _cpu.lif_backward(
            _native(p),
            not p.online,
            len(like) if saved.u is None else 1,
            one.numel(),
            _DTYPES[saved.dtype],
            torch.get_num_threads(),
            saved.is_v,
            _address(g_s),
            _address(saved.keep),
            _address(saved.u),
            _address(saved.x),
            _address(saved.potential),
            _address(g_v),
            _address(g_v_seq),
            g_x.data_ptr(),
            _address(g_v_first),
        )
        return g_x, g_v_first


class standardize:
    """Weight-standardisation kernels; signatures as fastsnn.reference.standardize."""

    NAME = "cpu"

    @staticmethod
    def forward(weight: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows = len(weight)
        out = torch.empty_like(weight)
        mean = weight.new_empty(rows, dtype=torch.float64)
        inverse = torch.empty_like(mean)
        pointers = (t.data_ptr() for t in (weight, gain, mean, inverse, out))
        cols = weight[0].numel()
        _cpu.standardize_forward(rows, cols, _DTYPES[weight.dtype], torch.get_num_threads(), eps, *pointers)
        return out, mean, inverse

    @staticmethod
    def backward(
        weight: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, g_out: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        g_weight, g_gain = torch.empty_like(weight), torch.empty_like(gain)
        pointers = (t.data_ptr() for t in (weight, gain, mean, inverse, g_out, g_weight, g_gain))
        rows, cols = len(weight), weight[0].numel()
        _cpu.standardize_backward(rows, cols, _DTYPES[weight.dtype], torch.get_num_threads(), eps, *pointers)
        return g_weight, g_gain
