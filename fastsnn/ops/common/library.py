"""The kernels as operators of torch.library (namespace `fastsnn`), for torch.compile and torch.export.

Eager calls go from the families' autograd.Functions to the kernels and do not come here. Operators take tensors in any
layout, choose the backend when they run, and return tensors laid out as their fake implementations say. An output that
a rule does not have is an empty tensor. Their last argument is the backend that is forced where they are called
(`call`): what a graph or a backward pass runs later, maybe in another thread, cannot ask the context.
"""

from __future__ import annotations

import functools
import sys
from collections import namedtuple
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from ... import backends, graphs
from ...rules import RULES, SLOTS, Rule
from ...types import LIFParams, LIFState, params_of, slots_at, state_dtype
from .autograd import first_order

NAME = "torch.compile"

STATE = "Tensor? potential, Tensor? trace, Tensor? ratio, Tensor? keep, bool is_v"
PARAMS = (  # LIFParams.arguments
    "float tau, bool decay_input, float v_threshold, float? v_reset, str shape, float height, float slope, "
    "bool detach_reset, str rule, float[] of_rule=[]"
)
PARAMETERS = tuple(parameter.split("=")[0].split()[1] for parameter in PARAMS.split(", "))
NAMED = ("trace", "ratio")  # slots that every schema names; those of later rules follow the parameters
MORE = tuple(name for name in SLOTS if name not in NAMED)
MORE_GIVEN = "".join(f", Tensor? {name}=None" for name in MORE)
MORE_RETURNED = "".join(f", Tensor {name}_after" for name in MORE)


_parameters = attrgetter(*PARAMETERS)
_fields = attrgetter(*LIFState._fields)


@graphs.constant
def _names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the parameters and of a state: a graph does not look at each of them at every call."""
    return PARAMETERS, LIFState._fields


def of_params(p: LIFParams) -> dict[str, Any]:
    """The operands PARAMS."""
    return dict(zip(_names()[0], p.arguments, strict=True))


def read_params(k: Any) -> LIFParams:
    """Of the operands PARAMS."""
    return params_of(*_parameters(k))


def rule_of(k: Any) -> Rule:
    """The rule that the operands PARAMS name."""
    return RULES[k.rule]


def of_state(state: LIFState) -> dict[str, Any]:
    """The operands STATE and MORE_GIVEN."""
    return dict(zip(_names()[1], state, strict=True))


def read_state(k: Any) -> LIFState:
    """Of the operands STATE and MORE_GIVEN."""
    return LIFState(*_fields(k))


def named(k: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Some operands."""
    return {name: getattr(k, name) for name in names}


def slots_of(p: LIFParams, returned: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The rule's slots among those of NAMED and MORE."""
    after = (None, False, *returned[:2], None, *returned[2:])  # as LIFState has them
    return tuple(slots_at(p.places, after))


def all_slots(rule: Rule, slots: Any, absent: Any) -> list[Any]:
    """Those of NAMED and MORE, `absent` where the rule has none."""
    by_name = {slot.name: value for slot, value in zip(rule.slots, slots, strict=True)}
    return [by_name.get(name, absent) for name in (*NAMED, *MORE)]


# torch.ops outlives a purge of sys.modules: operators are registered once, and call what was imported last
_latest: dict[str, Any] = vars(torch.ops.fastsnn).setdefault("_latest", {})


def _through(key: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    _latest[key] = fn
    return lambda *args, **kwargs: _latest[key](*args, **kwargs)


def _given(name: str, schema: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """function, which raises TypeError where an argument must be a tensor and is None: torch lets that pass."""
    arguments = enumerate(torch._C.parse_schema(f"{name}{schema}").arguments)
    needed = [(at, argument.name) for at, argument in arguments if argument.type.kind() == "TensorType"]

    @functools.wraps(function)
    def checked(*given: Any) -> Any:
        for at, argument in needed:
            if given[at] is None:
                raise TypeError(f"{name}: {argument} is None; it must be a tensor")
        return function(*given)

    return checked


def _refuse_repetition() -> None:
    """Raises RuntimeError where a compiled forward runs within a backward pass. (A compiled backward may.)"""
    if torch._C._current_graph_task_id() == -1:
        return
    frame: Any = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_engine_run_backward":
        if frame.f_code.co_name == "compile_wrapper":
            raise RuntimeError(
                "a compiled function with a neuron or OSR was called within a backward pass, as gradient checkpointing "
                "does to recompute a segment: it would start from the state of its last call. Give fastsnn.checkpoint "
                "the network uncompiled, or let torch.compile recompute "
                "(torch._functorch.config.activation_memory_budget)"
            )
        frame = frame.f_back


_operators: dict[Any, Operator] = {}


def straight(op: Any) -> Callable[..., Any]:
    """What an operator of fastsnn's runs, called as it is but not through the dispatcher: without autograd, under the
    override of its caller."""
    operator = _operators[op]
    count, run, operands = len(operator.operands._fields), operator.run, operator.operands

    def call(*given: Any) -> Any:
        return run(operands(*given[:count]))

    call.__name__ = operator.name
    return call


class Operator:
    """An operator of torch.library, called by the names of its operands, under the override of this context.

    op: itself, whose arguments are the operands in their order, and the backend. operands: a tuple of them by name.
    run: what it runs, on such a tuple.
    """

    def __init__(self, name: str, schema: str) -> None:
        arguments = torch._C.parse_schema(f"{name}{schema}").arguments
        names = [argument.name for argument in arguments]
        defaults = [argument.default_value for argument in arguments if argument.has_default_value()]
        # defaults are the last, and torch leaves them out
        self.operands: Any = namedtuple(name, names, defaults=defaults)  # type: ignore[misc]
        self.name = name
        self.op: Any = None
        self.run: Any = None

    def __call__(self, **operands: Any) -> Any:
        return self.op(*self.operands(**operands), _override(backends._last))


def define(name: str, schema: str, fake: Callable[[Any], Any], of_state: bool = False) -> Callable[..., Operator]:
    """Decorator: the operator `fastsnn::name` that runs the decorated function on its operands by name, as `fake` does
    on those without memory; `backend` is another argument. of_state: layers call it with what they keep between calls,
    so that a repeated call raises RuntimeError.

    Raises ImportError where another version of fastsnn has defined it in this process.
    """
    operator = Operator(name, schema)
    count = len(operator.operands._fields)
    arguments, _, results = schema.partition(") -> ")
    schema = f"{arguments}, str? backend=None) -> {results}"

    def register(run: Callable[[Any], Any]) -> Operator:
        @functools.wraps(run)
        def under(*given: Any) -> Any:
            if of_state:
                _refuse_repetition()
            (backend,) = given[count:] or (None,)  # torch leaves a default out
            with backends.under(backend or backends.override()):
                return run(operator.operands(*given[:count]))

        def faked(*given: Any) -> Any:
            return fake(operator.operands(*given[:count]))

        known = _latest.setdefault(f"{name} schema", schema)
        if known != schema:
            raise ImportError(
                f"operator fastsnn::{name} is defined with {known}, by another version of fastsnn that this process "
                "imported before: start Python anew"
            )
        new = name not in _latest
        calls, fakes = (_through(key, _given(name, schema, fn)) for key, fn in ((name, under), (f"{name} fake", faked)))
        if new:
            torch.library.define(f"fastsnn::{name}", schema)
            torch.library.impl(f"fastsnn::{name}", "default", calls)
            torch.library.register_fake(f"fastsnn::{name}", fakes)
        operator.op, operator.run = getattr(torch.ops.fastsnn, name).default, run
        _operators[operator.op] = operator
        return operator

    return register


def differentiate(operator: Operator, gradient: Callable[..., dict[str, Any]], keep: Callable[..., None]) -> None:
    """The gradient of an operator, first order: of some operands by name, from what `keep` put into its context of the
    operands and the outputs. `ctx.needs` has by name which are needed."""
    names = operator.operands._fields

    def kept(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        (ctx.backend,) = inputs[len(names) :] or (None,)
        ctx.set_materialize_grads(False)
        keep(ctx, operator.operands(*inputs[: len(names)]), output)

    def gradients(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad
        ctx.needs = operator.operands(*needed[: len(names)])
        found = {} if all(g is None for g in grads) else gradient(ctx, *grads)
        return tuple(found.get(name) for name in (*names, "backend")[: len(needed)])

    first = first_order(gradients)

    def under(ctx: Any, *grads: Any) -> Any:
        with backends.under(ctx.backend or backends.override()):
            return first(ctx, *grads)

    new = f"{operator.name} gradient" not in _latest
    backward, setup = _through(f"{operator.name} gradient", under), _through(f"{operator.name} context", kept)
    if new:
        torch.library.register_autograd(f"fastsnn::{operator.name}", backward, setup_context=setup)


@graphs.constant
def _override(last: str | None) -> str | None:
    """The override; `last` makes a graph depend on it."""
    return backends.override()


def contiguous_like(x: Tensor) -> Tensor:
    """A contiguous tensor of x's shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_like(x: Tensor, model: Tensor | None) -> Tensor:
    """A tensor of x's state dtype, laid out as model; empty for None."""
    dtype = state_dtype(x.dtype)
    return x.new_empty(0, dtype=dtype) if model is None else torch.empty_like(model, dtype=dtype)
