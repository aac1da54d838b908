"""Spikes that carry their eligibility trace through ordinary torch code (equations/ottt.md).

`fastsnn.LIF` under a traced rule returns `TracedSpikes`: a differentiable tensor of spikes with the trace beside it.

- A synapse (linear, convolutions, any product with plain weights) takes its value from the spikes, the gradient of its
  weights from the trace.
- A linear operation (average pooling, reshapes, cat, scaling by a constant, +, dropout, zero padding, detach) acts on
  both. A plain operand of +, - or cat has no trace: its own value stands in, as for a first synapse's input.
- A product of two, a maximum, a softmax give `UntracedCurrent`, for neurons and losses; a synapse behind it raises.
- Inspection and losses (comparisons, counts, casts to integers, full sums, cross entropy, ...) take the spikes.
- Written into a plain tensor (out += s, buffer[t] = s), they make it a pair.
- Anything else has no meaning on a trace and raises TraceError: pass `s.spikes` where dropping the trace is meant.

Autograd sees an ordinary tensor: an autograd.Function, a hook, a checkpoint or a wrapper for many processes takes the
pair and returns one. What reaches torch's dispatcher past `__torch_function__` (vmap) raises TraceError.

Inside a graph of torch.compile, made there or entering it, the pair's own memory is a tensor without data (device
meta): an operation that torch.compile does not send through `__torch_function__` (torch.cat of a tuple: pass a list)
fails instead of losing the trace; spikes, trace, shape, device and the like are those of the spikes. An
autograd.Function of traced spikes raises there, and on a pair that comes out of a graph; one that returns its input
without a call of torch is not seen, and loses its backward: keep it out of graphs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import isfunction
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._guards import TracingContext
from torch.compiler import is_dynamo_compiling

from .. import graphs
from ..ops import synapse
from ..ops.common import memory
from ..ops.common.autograd import Refusal
from .traced_names import (
    AT_GRAPH,
    CREATION,
    CURRENTS,
    INSPECT,
    LOSSES,
    OF_GRAPH,
    POOLING,
    PRODUCTS,
    PROPERTIES,
    STRUCTURE,
    SUMS,
)

__all__ = ["TraceError", "TracedSpikes", "UntracedCurrent", "plain"]

aten = torch.ops.aten
_forward_has_graph = torch._C._is_fwd_grad_enabled
without_rules = torch._C.DisableTorchFunctionSubclass


class TraceError(RuntimeError):
    """An operation that has no meaning on a trace was applied to traced spikes."""


class Beneath:
    """`__torch_dispatch__` of every pair, asked by the dispatcher; torch.compile asks the class, and takes it as it has
    none."""

    def __get__(self, pair: Any, cls: Any = None) -> Any:
        return Tensor.__torch_dispatch__ if pair is None else _beneath


class TracedSpikes(Tensor):
    """Spikes of a traced rule. `spikes` is the plain tensor (with gradient), `trace` its a[t], without."""

    _value: Tensor  # the spikes, plain
    _trace: Any
    _linked: bool  # whether the graph goes through _value; else it is the pair's own

    __torch_dispatch__ = Beneath()

    @staticmethod
    def of(spikes: Tensor, trace: Tensor) -> TracedSpikes:
        return _pair(TracedSpikes, spikes, trace)

    @property
    def spikes(self) -> Tensor:
        """The spikes as a plain tensor: what follows takes its weight gradient from them."""
        return _spikes(self)

    @property
    def trace(self) -> Tensor:  # type: ignore[override]
        """The eligibility trace a[t], in the state's dtype, outside autograd. Within a backward pass that is itself
        differentiated (create_graph) its derivative raises."""
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1 or not torch.is_grad_enabled():
            return self._trace
        return Refusal.apply(self._trace, self._value) if self.requires_grad else self._trace

    # Python rebinds the name in s += x: a new pair, and the neuron's trace stays as it is
    __iadd__, __isub__ = Tensor.__add__, Tensor.__sub__
    __imul__, __itruediv__ = Tensor.__mul__, Tensor.__truediv__

    def __iter__(self) -> Iterator[Tensor]:
        raise TraceError(
            "traced spikes do not unpack or iterate: take `s.spikes` and `s.trace`, or s.unbind(0) for the samples"
        )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if _in_function_with_graph(args, kwargs):
            raise TraceError(
                "an autograd.Function was given traced spikes inside of a graph of torch.compile, or from one, which "
                "loses its backward or theirs: leave out of torch.compile the Function and the layers before it, with "
                "torch.compiler.disable, or give the Function `s.spikes` and `s.trace`"
            )
        if kwargs.get("out") is not None:
            raise TraceError(f"{name}() of traced spikes takes no out=: use what it returns, or pass `s.spikes`")
        rule = RULES.get(name)
        if rule is not None:
            return rule(_callable(func, name), *args, **kwargs)
        if name in INSPECT:
            return _inspect(func, args, kwargs)
        if name in ("__get__", "__set__"):
            return _property(func, args, kwargs)
        if _writes(name):
            _refuse_in_place(name)
        raise TraceError(
            f"{name}() has no meaning on an eligibility trace. Pass `s.spikes` to use the spikes alone (what follows "
            "then takes its weight gradient from them), or use a linear operation: average pooling instead of max "
            "pooling, weight standardisation or a norm before the neuron instead of one after it"
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _pair, (type(self), _spikes(self), self._trace)

    def __deepcopy__(self, memo: Any) -> TracedSpikes:
        own_leaf = not self._linked and self.is_leaf
        spikes = self._value.detach().requires_grad_(self.requires_grad) if own_leaf else _spikes(self)
        trace = None if self._trace is None else self._trace.clone()
        return _pair(type(self), spikes.__deepcopy__(memo), trace)


class UntracedCurrent(TracedSpikes):
    """A function of traced spikes that has no trace: a product of two, a maximum, a softmax. `trace` is None.

    It has a value and a spatial gradient, for a neuron or a loss. Weights behind it raise TraceError: their gradient
    would need a trace.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in OF_ANY or name in INSPECT or _writes(name) or kwargs.get("out") is not None:
            return super().__torch_function__(func, types, args, kwargs)
        if name not in SUMS:
            _refuse_learnt(name, _operands(args, kwargs)[1])
        return _untraced(_call(_callable(func, name), plain, args, kwargs))


def _writes(name: str) -> bool:
    """Whether a method of this name changes its tensor. (torch.compile knows no str.endswith.)"""
    return name[-1:] == "_" and name[-2:] != "__"


def _pair(cls: type[TracedSpikes], spikes: Tensor, trace: Any) -> Any:
    in_graph = is_dynamo_compiling()
    # a graph must not take the pair for a plain tensor: one without data cannot be computed with
    out = (torch.empty_like(spikes, device="meta") if in_graph else spikes).as_subclass(cls)
    out._value, out._trace, out._linked = spikes, trace, in_graph or not _in_function()
    return out


def _in_function() -> bool:
    """Whether the forward of an autograd.Function runs: its node goes to the pair that it returns, after it."""
    return not _forward_has_graph() and not torch.is_inference_mode_enabled()


@graphs.constant
def _in_traced_function() -> bool:
    """As `_in_function`, of torch.compile's tracing: of that only its own call stack tells."""
    frame = sys._getframe()
    while frame is not None:
        if type(frame.f_locals.get("self")).__name__ in ("AutogradFunctionVariable", "AutogradFunctionApplyVariable"):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _in_function_with_graph(args: Any, kwargs: Any) -> bool:
    """Whether the forward of an autograd.Function runs within a graph, or on pairs that were made in one: there the
    graph does not go through the pair's own memory, to which a Function's node goes."""
    if is_dynamo_compiling():
        return _in_traced_function()
    if torch._C._is_fwd_grad_enabled() or torch.is_inference_mode_enabled():
        return False
    with without_rules():
        return any(pair.is_meta and not pair._value.is_meta for pair in _operands(args, kwargs)[0])


def _spikes(s: TracedSpikes) -> Tensor:
    if s._linked:
        return s._value
    with without_rules():
        return aten.alias(s)


def _method(name: str, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Called on the tensor: torch 2.11 cannot inline such a method into a graph as a function."""
    return getattr(tensor, name)(*args, **kwargs)


def _callable(func: Any, name: str) -> Any:
    return partial(_method, name) if name in IN_PYTHON and func is getattr(Tensor, name) else func


def _name(func: Any) -> str:
    return func.args[0] if isinstance(func, partial) else func.__name__


def _beneath(func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
    if func is aten.alias.default and not torch._C._is_torch_function_enabled():
        return func(args[0]._value)
    if func in (aten.alias.default, aten.detach.default):
        pair = _pair(type(args[0]), func(args[0]._value), args[0]._trace)
        pair._linked = False  # autograd is above
        return pair
    raise TraceError(
        f"{func} reached traced spikes where their rules are off (vmap, a functorch transform, a collective, an "
        "extension): pass `s.spikes`, or work on `s.spikes` and `s.trace`"
    )


def plain(x: Any) -> Any:
    """The spikes of TracedSpikes, anything else unchanged."""
    return _spikes(x) if type(x) is not Tensor and isinstance(x, TracedSpikes) else x


def _trace_of(x: Any) -> Any:
    if isinstance(x, TracedSpikes):
        return x._trace
    return x.detach() if isinstance(x, Tensor) else x


def _map(fn: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return type(value)(_map(fn, item) for item in value)
    return fn(value)


def _call(func: Any, operand: Callable[[Any], Any], args: Any, kwargs: Any) -> Any:
    return func(*_map(operand, args), **{key: _map(operand, value) for key, value in kwargs.items()})


def _tensors(*values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(*value)


def _operands(args: Any, kwargs: Any) -> tuple[list[TracedSpikes], list[Tensor]]:
    """The pairs and the plain tensors of a call."""
    found = list(_tensors(args, *kwargs.values()))
    pairs = [x for x in found if isinstance(x, TracedSpikes)]
    return pairs, [x for x in found if not isinstance(x, TracedSpikes)]


def _untraced(out: Any, kinds: Callable[[Tensor], bool] = Tensor.is_floating_point) -> Any:
    """Tensors of such kinds as currents without trace; numbers, indices and all else as they are."""
    if isinstance(out, Tensor):
        return _pair(UntracedCurrent, out, None) if out.dim() and kinds(out) else out
    if isinstance(out, (list, tuple)) and not isinstance(out, torch.Size):
        items = [_untraced(item, kinds) for item in out]
        return items if isinstance(out, list) else tuple(items) if type(out) is tuple else type(out)(items)
    return out


def _inspect(func: Any, args: Any, kwargs: Any) -> Any:
    """Of the spikes; the forward of an autograd.Function must not return it as if it were plain."""
    out = _call(func, plain, args, kwargs)
    if torch.compiler.is_compiling() or not _in_function() or _name(func) in CREATION:
        return out
    return _untraced(out, lambda _: True)


def _of_spikes(func: Any, *args: Any, **kwargs: Any) -> Any:
    return _call(func, plain, args, kwargs)


def _property(func: Any, args: Any, kwargs: Any) -> Any:
    """shape, dtype, ... of the spikes; requires_grad, grad, ... of what has the graph."""
    name = getattr(func.__self__, "__name__", "")
    if name in OF_GRAPH:
        sets = name == "requires_grad" and func.__name__ == "__set__"
        return (_require_gradient if sets else _of_graph)(func, *args)
    if name == "device" and not is_dynamo_compiling() and TracingContext.try_get() is not None:
        # a pair that enters a graph is looked at: no data there either
        return torch.device("meta")
    if name in PROPERTIES and func.__name__ == "__get__":
        return func(plain(args[0]), *args[1:])
    if name == "_base":
        # torch.compile guards the tensor that is passed, not the spikes
        with without_rules():
            return func(*args)
    if name in BOTH_PROPERTIES and func.__name__ == "__get__":
        return BOTH_PROPERTIES[name](args[0])
    # torch.compile asks for a method written in Python as for a property
    if name in RULES:
        return partial(RULES[name], partial(_method, name), *args)
    if name in INSPECT:
        return _of_spikes(func, *args, **kwargs)
    raise TraceError(f".{name} of traced spikes has no rule: use `s.spikes`")


def _of_graph(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Of the tensor where the gradients of all that follows meet."""
    with without_rules():
        return _call(func, lambda x: x._value if isinstance(x, TracedSpikes) and x._linked else x, args, kwargs)


def _require_gradient(func: Any, s: TracedSpikes, *args: Any, **kwargs: Any) -> Any:
    if s._linked and not s._value.requires_grad:
        # the pair itself becomes the leaf: an autograd.Function asks it
        s._value, s._linked = s._value.detach(), False
    out = _of_graph(func, s, *args, **kwargs)
    return s if isinstance(out, Tensor) else out


def _both(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A linear operation on spikes and trace alike."""
    return _beside(_call(func, plain, args, kwargs), func, args, kwargs)


def _beside(spikes: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """What func gave for the spikes, with what it gives for the trace."""
    with torch.no_grad():
        trace = _call(func, _trace_of, args, kwargs)
    return _paired(spikes, trace)


def _paired(spikes: Any, trace: Any) -> Any:
    if isinstance(spikes, Tensor):
        if spikes.is_complex():
            raise TraceError("traced spikes as complex numbers have no rule: pass `s.spikes`")
        return TracedSpikes.of(spikes, trace) if spikes.is_floating_point() else spikes
    return type(spikes)(map(_paired, spikes, trace)) if isinstance(spikes, (list, tuple)) else spikes


def _as_other(func: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    """x.view_as(s), x.to(s): a plain tensor stays one."""
    return (_both if isinstance(input, TracedSpikes) else _of_spikes)(func, input, *args, **kwargs)


def _view(func: Any, input: Any, *args: Any, **kwargs: Any) -> Any:
    if any(isinstance(arg, torch.dtype) for arg in (*args, *kwargs.values())):
        raise TraceError("view() as another dtype is not linear on a trace; use .to(dtype), or `s.spikes`")
    return _both(func, input, *args, **kwargs)


def _refuse_in_backward(name: str) -> None:
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return
    if torch._C._current_graph_task_id() != -1:
        raise TraceError(
            f"{name}() of traced spikes inside a backward pass: a weight's gradient takes `s.trace`, all else "
            "`s.spikes`; say which"
        )


def _linear(func: Any, input: Any, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not isinstance(input, TracedSpikes):
        raise TraceError("linear() has traced spikes as its weight; pass `s.spikes`")
    if not torch.is_grad_enabled():
        _refuse_in_backward("linear")
        return func(_spikes(input), weight, bias)
    return synapse.linear(_spikes(input), input._trace, weight, bias)


def _conv(func: Any, input: Any, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    if not isinstance(input, TracedSpikes):
        raise TraceError("a convolution has traced spikes as its weight; pass `s.spikes`")
    if not torch.is_grad_enabled():
        _refuse_in_backward("convolution")
        return func(_spikes(input), weight, bias, *args, **kwargs)
    return synapse.conv(_spikes(input), input._trace, weight, bias, *args, **kwargs)


def _matmul(func: Any, *args: Any, **kwargs: Any) -> Any:
    s: Any
    weight: Any
    s, weight = args if len(args) == 2 else (None, None)
    if isinstance(s, TracedSpikes) and not isinstance(weight, TracedSpikes) and weight.dim() == 2:
        return _linear(F.linear, s, weight.t())
    return _product(func, *args, **kwargs)


def _product(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Linear in every operand: with plain weights a synapse, of two pairs a current without trace."""
    pairs, weights = _operands(args, kwargs)
    if len(pairs) > 1:
        return _spatial(func, *args, **kwargs)
    _refuse_in_backward(_name(func))
    s = pairs[0]

    def value(x: Any) -> Any:
        return _spikes(s) if x is s else x.detach() if isinstance(x, Tensor) else x

    y = _call(func, value, args, kwargs)
    if not torch.is_grad_enabled() or not any(weight.requires_grad for weight in weights):
        return y
    trace = s._trace.to(s._value.dtype)
    return synapse.two_pass(y, _call(func, lambda x: trace if x is s else x, args, kwargs))


def _scaled(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Product with a constant: a plain tensor, or a pair without gradient (then its spikes)."""
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    if len(tensors) == 1:
        return _both(func, *args, **kwargs)
    _refuse_in_backward(_name(func))
    pairs = [x for x in tensors if isinstance(x, TracedSpikes)]
    _refuse_learnt(_name(func), [x for x in tensors if not isinstance(x, TracedSpikes)])
    if len(pairs) == 1:
        return _both(func, *args, **kwargs)
    constant = [x for x in pairs if not x.requires_grad]
    if len(pairs) != 2 or len(constant) != 1:
        return _spatial(func, *args, **kwargs)

    def halves(x: Any) -> Any:
        return x._value if x is constant[0] else x

    return _both(func, *map(halves, args), **{key: halves(x) for key, x in kwargs.items()})


def _refuse_learnt(name: str, others: list[Tensor]) -> None:
    if any(other.requires_grad for other in others):
        raise TraceError(
            f"{name}() of traced spikes, or of a current without trace, with a tensor that requires gradient "
            "is not a synapse fastsnn knows: scale the synapse's output, put a neuron before the weights, or pass "
            "`s.spikes`"
        )


def _quotient(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Quotient by a constant."""
    divisor = args[1] if len(args) > 1 else kwargs.get("other")
    if isinstance(divisor, TracedSpikes) or kwargs.get("rounding_mode"):
        raise TraceError(f"{_name(func)}() by spikes, or rounded, is not linear; pass `s.spikes`")
    return _scaled(func, *args, **kwargs)


def _spatial(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A function of the spikes alone, as a current without trace."""
    _refuse_learnt(_name(func), _operands(args, kwargs)[1])
    return _untraced(_call(func, plain, args, kwargs))


def _loss(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Its target may require gradient."""
    return _untraced(_call(func, plain, args, kwargs))


def _refuse_in_place(name: str) -> NoReturn:
    raise TraceError(
        f"{name}() would change a tensor in place and lose or corrupt a trace: write s = s + x, "
        "stack a list in place of filling a buffer, or use `s.spikes`"
    )


def _in_place(func: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
    """Traced spikes written into a plain tensor: it becomes a pair."""
    name, traced = _name(func), isinstance(target, TracedSpikes)
    if traced and name not in ("__setitem__", "copy_"):
        _refuse_in_place(name)
    picture = target._is_view() and not torch.is_grad_enabled()
    if not traced and (picture or not target.is_floating_point()):
        if picture and any(pair._trace is not None for pair in _operands(args, kwargs)[0]):
            warnings.warn(
                f"{name}() wrote traced spikes into part of a plain tensor under no_grad: it takes the spikes alone, "
                "for a picture; for layers that follow, stack a list in its place",
                stacklevel=3,
            )
        return _of_spikes(func, target, *args, **kwargs)
    pair = WRITTEN[name](target, *args, **kwargs)
    return _become(target, pair if pair.dtype == target.dtype else pair.to(target.dtype), name)


def _become(target: Tensor, pair: Tensor, name: str) -> Tensor:
    """All who hold `target` hold the pair from here on; refused where part of its memory is held as another tensor."""
    own, holders = (target._value, 2) if isinstance(target, TracedSpikes) else (target, 1)
    lone = not own._is_view() and memory.holders(own) == holders
    leaf = isinstance(target, torch.nn.Parameter) or (target.is_leaf and target.requires_grad)
    if torch.compiler.is_compiling() or leaf or not lone or target.shape != pair.shape:
        _refuse_in_place(name)
    try:
        torch.utils.swap_tensors(target, pair)
    except RuntimeError:
        _refuse_in_place(name)
    return target


def _filled(target: Tensor, index: Any, value: Any) -> Any:
    spikes = plain(target).clone()
    spikes[index] = plain(value)
    if any(isinstance(x, UntracedCurrent) for x in (target, value)):
        return _untraced(spikes)
    trace = _trace_of(target).clone()
    trace[index] = _trace_of(value)
    return TracedSpikes.of(spikes, trace)


def _copied(target: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    return source.to(target.device, target.dtype).expand_as(target).clone()


def _new_tensor(func: Any, like: Any, data: Any, *args: Any, **kwargs: Any) -> Tensor:
    if any(isinstance(x, TracedSpikes) for x in _tensors(data)):
        raise TraceError(
            "new_tensor() copies traced spikes without their trace: s.detach().clone() keeps both; pass `s.spikes` to "
            "copy the spikes alone"
        )
    return func(plain(like), data, *args, **kwargs)


def _dropout(func: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """One mask for both."""
    if not training or p == 0:
        return input
    mask = func(torch.ones_like(input._value), p, True)
    return TracedSpikes.of(_spikes(input) * mask, input._trace * mask)


def _pad(func: Any, input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    if mode == "constant" and value:
        raise TraceError(f"pad() with value {value} is not linear on a trace; pad with 0, or pass `s.spikes`")
    return _both(func, input, pad, mode, value)


def _reduce(func: Any, *args: Any, **kwargs: Any) -> Any:
    """A sum or mean over some dimensions acts on both; over all of them it is a number about the spikes."""
    spikes = _call(func, plain, args, kwargs)
    return _beside(spikes, func, args, kwargs) if spikes.dim() else spikes


BOTH_PROPERTIES: dict[str, Callable[[Any], Any]] = {
    "data": lambda s: s.detach(),
    "real": lambda s: s.view_as(s),
    "T": lambda s: s.permute(*reversed(range(s.dim()))),
    "mT": lambda s: s.transpose(-2, -1),
    "H": lambda s: s.transpose(0, 1),
    "mH": lambda s: s.transpose(-2, -1),
}
WRITTEN: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(["add_", "__iadd__"], torch.add),
    **dict.fromkeys(["sub_", "__isub__"], torch.sub),
    **dict.fromkeys(["mul_", "__imul__"], torch.mul),
    **dict.fromkeys(["div_", "__itruediv__"], torch.div),
    "copy_": _copied,
    "__setitem__": _filled,
}
RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys([*STRUCTURE, *POOLING, *SUMS], _both),
    **dict.fromkeys("to expand_as view_as reshape_as type_as".split(), _as_other),
    **dict.fromkeys("mul multiply __mul__ __rmul__ grid_sample lerp".split(), _scaled),
    **dict.fromkeys("div divide true_divide __truediv__ __div__".split(), _quotient),
    **dict.fromkeys("conv1d conv2d conv3d".split(), _conv),
    **dict.fromkeys("matmul __matmul__".split(), _matmul),
    **dict.fromkeys("dropout dropout1d dropout2d dropout3d".split(), _dropout),
    **dict.fromkeys("sum mean".split(), _reduce),
    **dict.fromkeys(PRODUCTS, _product),
    **dict.fromkeys(CURRENTS, _spatial),
    **dict.fromkeys(LOSSES, _loss),
    **dict.fromkeys(WRITTEN, _in_place),
    **dict.fromkeys(AT_GRAPH, _of_graph),
    "requires_grad_": _require_gradient,
    "linear": _linear,
    "pad": _pad,
    "view": _view,
    "new_tensor": _new_tensor,
}
OF_ANY = frozenset([*LOSSES, *WRITTEN, *AT_GRAPH, "requires_grad_", "__get__", "__set__"])
IN_PYTHON = frozenset(name for name in RULES if isfunction(getattr(Tensor, name, None)))
