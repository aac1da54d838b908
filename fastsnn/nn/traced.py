"""Spikes that carry their eligibility trace through ordinary torch code (SPEC section 2).

`fastsnn.LIF` under a traced rule returns `TracedSpikes`: a tensor of spikes with the trace beside it.

- A synapse (linear, conv1d/2d/3d, spikes @ W) runs once on the spikes and takes its weight gradient from the trace.
- A linear operation (average pooling, reshapes, cat, scaling by a constant, +, dropout, zero padding, ...) acts on
  both. A plain operand of +, - or cat has no trace: its own value stands in, as for a first synapse's input.
- Inspection and losses (comparisons, statistics, softmax, cross entropy, full sums, detach, ...) take the spikes.
- Anything else has no meaning on a trace and raises TraceError: pass `s.spikes` where dropping the trace is meant.

Inside a graph of torch.compile the pair's own memory is a tensor without data (device meta), so that an operation which
torch.compile does not send through `__torch_function__` (torch.cat of a tuple: pass a list) fails instead of losing the
trace; spikes, trace, shape, device and the like are those of the spikes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isdatadescriptor, isfunction
from typing import Any

import torch
from torch import Tensor

from ..ops import synapse

__all__ = ["TraceError", "TracedSpikes", "plain"]


class TraceError(RuntimeError):
    """An operation that has no meaning on a trace was applied to traced spikes."""


class TracedSpikes(Tensor):
    """Spikes of a traced rule. `spikes` is the plain tensor (with gradient), `trace` its a[t], without."""

    _spikes: Tensor
    _trace: Tensor

    @staticmethod
    def of(spikes: Tensor, trace: Tensor) -> TracedSpikes:
        # a graph must not take the pair for a plain tensor: one without data cannot be computed with
        body = torch.empty_like(spikes, device="meta") if torch.compiler.is_dynamo_compiling() else spikes
        out = body.as_subclass(TracedSpikes)
        out._spikes = spikes
        out._trace = trace
        return out

    @property
    def spikes(self) -> Tensor:
        """The spikes as a plain tensor: what follows takes its weight gradient from them."""
        return self._spikes

    @property
    def trace(self) -> Tensor:  # type: ignore[override]
        """The eligibility trace a[t], in the state's dtype, outside autograd."""
        return self._trace

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """As Tensor.backward."""
        self._spikes.backward(*args, **kwargs)

    # Python rebinds the name in s += x: a new pair, and the neuron's trace stays as it is
    __iadd__, __isub__ = Tensor.__add__, Tensor.__sub__
    __imul__, __itruediv__ = Tensor.__mul__, Tensor.__truediv__

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        rule = RULES.get(name)
        if rule is not None:
            return rule(_callable(func, name), *args, **kwargs)
        if name in INSPECT:
            return _on_spikes(func, args, kwargs)
        if name in ("__get__", "__set__"):
            return _property(func, args, kwargs)
        raise TraceError(
            f"{name}() has no meaning on an eligibility trace. Pass `s.spikes` to use the spikes alone (what follows "
            "then takes its weight gradient from them), or use a linear operation: average pooling instead of max "
            "pooling, weight standardisation or a norm before the neuron instead of one after it"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return TracedSpikes.of, (self._spikes, self._trace)

    def __deepcopy__(self, memo: Any) -> TracedSpikes:
        return TracedSpikes.of(self._spikes.__deepcopy__(memo), self._trace.clone())


def plain(x: Any) -> Any:
    """The spikes of TracedSpikes, anything else unchanged."""
    return x._spikes if isinstance(x, TracedSpikes) else x


def _trace_of(x: Any) -> Any:
    if isinstance(x, TracedSpikes):
        return x._trace
    return x.detach() if isinstance(x, Tensor) else x


def _map(fn: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(_map(fn, item) for item in value)
    return fn(value)


def _method(name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Called on the tensor: torch 2.11 cannot inline such a method into a graph as a function."""
    return getattr(tensor, name)(*args, **kwargs)


def _callable(func: Any, name: str) -> Any:
    return partial(_method, name) if name in IN_PYTHON and func is getattr(Tensor, name) else func


def _on_spikes(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*_map(plain, args), **{key: _map(plain, value) for key, value in kwargs.items()})


def _property(func: Any, args: Any, kwargs: Any) -> Any:
    """shape, dtype, grad_fn, ... of the spikes; not views such as .T or .data."""
    name = getattr(func.__self__, "__name__", "")
    if name in PROPERTIES:
        return func(*[plain(arg) for arg in args])
    if name == "_base":
        # torch.compile guards the tensor that is passed, not the spikes
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args)
    # torch.compile asks for a method written in Python as for a property
    if name in RULES:
        return partial(RULES[name], partial(_method, name), *args)
    if name in INSPECT:
        return _on_spikes(func, args, kwargs)
    raise TraceError(f".{name} of traced spikes has no rule: use transpose, or `s.spikes`")


def _both(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A linear operation on spikes and trace alike."""
    spikes = _on_spikes(func, args, kwargs)
    with torch.no_grad():
        trace = func(*_map(_trace_of, args), **{key: _map(_trace_of, value) for key, value in kwargs.items()})
    if isinstance(spikes, Tensor):
        return TracedSpikes.of(spikes, trace)
    return type(spikes)(map(TracedSpikes.of, spikes, trace))


def _linear(func: Any, input: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not isinstance(input, TracedSpikes):
        raise TraceError("linear() has traced spikes as its weight; pass `s.spikes`")
    return synapse.linear(input._spikes, input._trace, weight, bias)


def _conv(func: Any, input: Any, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    if not isinstance(input, TracedSpikes):
        raise TraceError("a convolution has traced spikes as its weight; pass `s.spikes`")
    return synapse.conv(input._spikes, input._trace, weight, bias, *args, **kwargs)


def _matmul(func: Any, a: Any, b: Any) -> Tensor:
    if not isinstance(a, TracedSpikes) or isinstance(b, TracedSpikes) or b.dim() != 2:
        raise TraceError(
            "matmul() of traced spikes is a synapse only as `spikes @ W` with a plain W [in, out]; pass `s.spikes`"
        )
    return synapse.linear(a._spikes, a._trace, b.t())


def _scaled(func: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    """Product with a constant."""
    other = b if isinstance(a, TracedSpikes) else a
    if isinstance(other, TracedSpikes):
        raise TraceError(f"{func.__name__}() of two spike tensors is not linear; pass `s.spikes`")
    if isinstance(other, Tensor) and other.requires_grad:
        raise TraceError(
            f"{func.__name__}() of traced spikes with a tensor that requires gradient is not a synapse fastsnn knows; "
            "scale the synapse's output, or pass `s.spikes`"
        )
    return _both(func, a, b, *args, **kwargs)


def _quotient(func: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    """Quotient by a constant."""
    if isinstance(b, TracedSpikes) or kwargs.get("rounding_mode"):
        raise TraceError(f"{func.__name__}() by spikes, or rounded, is not linear; pass `s.spikes`")
    return _scaled(func, a, b, *args, **kwargs)


def _in_place(func: Any, *args: Any, **kwargs: Any) -> Any:
    raise TraceError(
        f"{func.__name__}() would change a tensor in place and lose or corrupt a trace: write s = s + x, "
        "or use `s.spikes`"
    )


def _dropout(func: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """One mask for both."""
    if not training or p == 0:
        return input
    mask = func(torch.ones_like(input._spikes), p, True)
    return TracedSpikes.of(input._spikes * mask, input._trace * mask)


def _pad(func: Any, input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    if mode == "constant" and value:
        raise TraceError(f"pad() with value {value} is not linear on a trace; pad with 0, or pass `s.spikes`")
    return _both(func, input, pad, mode, value)


def _reduce(func: Any, input: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A sum or mean over some dimensions acts on both; over all of them it is a number about the spikes."""
    if dim is None or not isinstance(dim, (int, list, tuple)):
        return func(plain(input), *(() if dim is None else (dim,)), *args, **kwargs)
    return _both(func, input, dim, *args, **kwargs)


STRUCTURE = (
    "reshape view flatten unflatten squeeze unsqueeze permute transpose swapaxes swapdims movedim contiguous "
    "clone to float double half bfloat16 type_as cpu cuda expand expand_as repeat repeat_interleave tile narrow "
    "select index_select __getitem__ chunk split unbind tensor_split cat concat stack hstack vstack roll flip view_as "
    "reshape_as unfold pixel_shuffle pixel_unshuffle neg __neg__ t"
).split()
POOLING = (
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample interpolate"
).split()
INSPECT = frozenset(
    (
        "size dim ndimension numel nelement stride storage_offset "
        "element_size data_ptr untyped_storage storage get_device type __len__ __bool__ __float__ "
        "__int__ __repr__ __str__ __format__ __contains__ __hash__ item tolist numpy __array__ detach "
        "retain_grad register_hook requires_grad_ eq ne gt lt ge le __eq__ __ne__ __gt__ __lt__ __ge__ __le__ "
        "logical_and logical_or logical_not equal allclose isclose isnan isinf isfinite any all argmax argmin "
        "max min amax amin topk sort argsort std var norm count_nonzero nonzero unique histc bincount softmax "
        "log_softmax cross_entropy mse_loss l1_loss smooth_l1_loss huber_loss nll_loss kl_div "
        "binary_cross_entropy binary_cross_entropy_with_logits one_hot cosine_similarity multi_margin_loss "
        "zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full "
        "new_tensor new_empty_strided has_names "
    ).split()
).union(name for name in (*dir(Tensor), *dir(torch)) if name.startswith(("is_", "_is_")))
PROPERTIES = frozenset(name for name in dir(Tensor) if isdatadescriptor(getattr(Tensor, name)))
PROPERTIES -= set("_base T mT H mH data real imag".split())
RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys([*STRUCTURE, *POOLING], _both),
    **dict.fromkeys("add sub __add__ __radd__ __sub__ __rsub__ rsub".split(), _both),
    **dict.fromkeys("mul multiply __mul__ __rmul__".split(), _scaled),
    **dict.fromkeys("div divide true_divide __truediv__ __div__".split(), _quotient),
    **dict.fromkeys("add_ sub_ mul_ div_".split(), _in_place),
    **dict.fromkeys("conv1d conv2d conv3d".split(), _conv),
    **dict.fromkeys("matmul mm __matmul__".split(), _matmul),
    **dict.fromkeys("dropout dropout1d dropout2d dropout3d".split(), _dropout),
    **dict.fromkeys("sum mean".split(), _reduce),
    "linear": _linear,
    "pad": _pad,
}
IN_PYTHON = frozenset(name for name in RULES if isfunction(getattr(Tensor, name, None)))
