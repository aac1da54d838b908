"""The kernels as operators of torch.library (namespace `fastsnn`), for torch.compile and torch.export.

Eager calls go from the families' autograd.Functions to the kernels and do not come here. Operators take tensors in any
layout, choose the backend when they run, and return tensors laid out as their fake implementations say. An output that
a rule does not have is an empty tensor. Their last argument is the backend that is forced where they are called
(`call`): what a graph or a backward pass runs later, maybe in another thread, cannot ask the context.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import backends, graphs
from ...rules import RULES, SLOTS, Rule
from ...types import LIFParams, LIFState, slots_at, state_dtype

NAME = "torch.compile"

STATE = "Tensor? potential, Tensor? trace, Tensor? ratio, Tensor? keep, bool is_v"
PARAMS = (  # LIFParams.arguments
    "float tau, bool decay_input, float v_threshold, float? v_reset, str shape, float height, float slope, "
    "bool detach_reset, str rule, float[] of_rule=[]"
)
NAMED = ("trace", "ratio")  # slots that every schema names; those of later rules follow the parameters
MORE = tuple(name for name in SLOTS if name not in NAMED)
MORE_GIVEN = "".join(f", Tensor? {name}=None" for name in MORE)
MORE_RETURNED = "".join(f", Tensor {name}_after" for name in MORE)


def apart(given: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What follows PARAMS[0]: the parameters, and the rest. An operator leaves out defaults at the end."""
    return given[:10], given[10:]


def rule_of(params: tuple[Any, ...]) -> Rule:
    """The rule that LIFParams.arguments name."""
    return RULES[params[8]]


def operands_state(given: Sequence[Any], more: Sequence[Any]) -> LIFState:
    """A state of the operands STATE and MORE_GIVEN."""
    potential, trace, ratio, keep, is_v = given
    return LIFState(potential, is_v, trace, ratio, keep, **dict(zip(MORE, more)))  # noqa: B905 (defaults are left out)


def slots_of(p: LIFParams, returned: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The rule's slots among those of NAMED and MORE."""
    state = (None, False, *returned[:2], None, *returned[2:])  # as LIFState has them
    return tuple(slots_at(p.places, state))


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


def define(name: str, schema: str, fake: Callable[..., Any], of_state: bool = False) -> Callable[..., Any]:
    """Decorator: the operator `fastsnn::name` that runs the decorated function, with `backend` as another argument.
    of_state: layers call it with what they keep between calls, so that a repeated call raises RuntimeError.

    Raises ImportError where another version of fastsnn has defined it in this process.
    """
    count = len(torch._C.parse_schema(f"{name}{schema}").arguments)
    arguments, _, results = schema.partition(") -> ")
    schema = f"{arguments}, str? backend=None) -> {results}"

    def register(run: Callable[..., Any]) -> Any:
        @functools.wraps(run)
        def under(*given: Any) -> Any:
            if of_state:
                _refuse_repetition()
            (backend,) = given[count:] or (None,)  # torch leaves a default out
            with backends.under(backend or backends.override()):
                return run(*given[:count])

        def faked(*given: Any) -> Any:
            return fake(*given[:count])

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
        return getattr(torch.ops.fastsnn, name).default

    return register


def differentiate(name: str, gradient: Callable[..., Any], keep: Callable[..., Any]) -> None:
    """The gradient of `fastsnn::name`, from what `keep` put into its context."""
    count = len(getattr(torch.ops.fastsnn, name).default._schema.arguments) - 1

    def kept(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        (ctx.backend,) = inputs[count:] or (None,)
        keep(ctx, inputs[:count], output)

    def gradients(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        with backends.under(ctx.backend or backends.override()):
            given = gradient(ctx, *grads)
        return *(given if isinstance(given, tuple) else (given,)), None

    new = f"{name} gradient" not in _latest
    backward, setup = _through(f"{name} gradient", gradients), _through(f"{name} context", kept)
    if new:
        torch.library.register_autograd(f"fastsnn::{name}", backward, setup_context=setup)


@graphs.constant
def _override(last: str | None) -> str | None:
    """The override; `last` makes a graph depend on it."""
    return backends.override()


def call(operator: Any, *given: Any) -> Any:
    """The operator, under the override of this context."""
    return operator(*given, _override(backends._last))


def contiguous_like(x: Tensor) -> Tensor:
    """A contiguous tensor of x's shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def empty_like(x: Tensor, model: Tensor | None) -> Tensor:
    """A tensor of x's state dtype, laid out as model; empty for None."""
    dtype = state_dtype(x.dtype)
    return x.new_empty(0, dtype=dtype) if model is None else torch.empty_like(model, dtype=dtype)
