"""What the LIF family's backends exchange."""

from __future__ import annotations

import math
import numbers
from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, float32, float64

from . import graphs
from .rules import RULES, SLOTS, Rule
from .surrogate import Sigmoid, Surrogate, coerce

# of a named tuple, whose own constructor takes twice as long
new = tuple.__new__

FLOATING = (float32, float64, torch.bfloat16, torch.float16)


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64 input, float32 otherwise."""
    return float64 if dtype is float64 else float32


def number(name: str, value: Any) -> float:
    """value as float. Raises TypeError or ValueError, naming the argument, for what is no number or NaN."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a number")
    if math.isnan(value):
        raise ValueError(f"{name} is NaN; it must be a number")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """value. Raises TypeError, naming the argument, for what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be True or False")
    return value


@dataclass(frozen=True)
class LIFParams:
    """A validated LIF configuration and what kernels need of it. Arguments as `fastsnn.LIF`'s."""

    tau: float = 2.0
    decay_input: bool = True
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    surrogate: Surrogate = Sigmoid()
    detach_reset: bool = False
    rule: str = "bptt"
    of_rule: tuple[float, ...] = ()  # the rule's own parameters, in its order; the paper's where there are none

    def __post_init__(self) -> None:
        tau = number("tau", self.tau)
        if not tau > 1:
            raise ValueError(f"tau is {self.tau}; it must be > 1 (the leak is 1 - 1/tau): 2.0 is the usual choice")
        for name in ("decay_input", "detach_reset"):
            flag(name, getattr(self, name))
        number("v_threshold", self.v_threshold)
        if self.v_reset is not None and not math.isfinite(number("v_reset", self.v_reset)):
            raise ValueError(f"v_reset is {self.v_reset}; it must be finite, or None for soft reset")
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; allowed: {', '.join(RULES)}")
        if self.kind.soft_reset and self.v_reset is not None:
            raise ValueError(
                f"rule {self.rule!r} needs soft reset and v_reset is {self.v_reset}: {self.kind.soft_reset}. "
                f"Pass v_reset=None, or use fastsnn.LIF.for_rule({self.rule!r})"
            )
        object.__setattr__(self, "of_rule", checked_parameters(self.kind, self.of_rule))
        object.__setattr__(self, "surrogate", coerce(self.surrogate))
        # torch.compile reads these and cannot compute a cached property
        for name in ("kind", "online", "traced", "places", "drive", "untraced", "arguments"):
            self.__dict__[name] = getattr(self, name)

    def __reduce__(self) -> Any:
        return LIFParams, tuple(getattr(self, field.name) for field in fields(self))

    @cached_property
    def kind(self) -> Rule:
        return RULES[self.rule]

    @cached_property
    def online(self) -> bool:
        return self.kind.online

    @cached_property
    def traced(self) -> bool:
        return self.kind.traced()

    @cached_property
    def places(self) -> tuple[int, ...]:
        """Where the rule's slots stand in a LIFState."""
        return tuple(PLACES[slot.name] for slot in self.kind.slots)

    @cached_property
    def drive(self) -> tuple[int, ...]:
        """Where those stand that spikes depend on."""
        return tuple(PLACES[slot.name] for slot in self.kind.slots if slot.drives)

    @cached_property
    def untraced(self) -> LIFParams:
        """The same neuron in evaluation: no trace, nothing is trained with it."""
        return self if self.kind.untraced == self.rule else replace(self, rule=self.kind.untraced)

    @cached_property
    def leak(self) -> float:
        return 1.0 - 1.0 / self.tau

    @cached_property
    def gain(self) -> float:
        return 1.0 / self.tau if self.decay_input else 1.0

    @cached_property
    def bias(self) -> float:
        return (self.v_reset or 0.0) / self.tau

    @cached_property
    def threshold(self) -> float:
        return float(self.v_threshold)

    @cached_property
    def v_start(self) -> float:
        return float(self.v_reset or 0.0)

    @cached_property
    def reset_grad(self) -> float:
        """Factor of the reset's sg term: th (soft) or 1 (hard), 0 where there is none."""
        if self.detach_reset or math.isinf(self.v_threshold):
            return 0.0
        return self.threshold if self.v_reset is None else 1.0

    @cached_property
    def arguments(self) -> tuple[Any, ...]:
        """All of this as an operator's arguments, in the order of `ops.common.library.PARAMS`."""
        v_reset = None if self.v_reset is None else self.v_start
        neuron = (float(self.tau), bool(self.decay_input), self.threshold, v_reset)
        return *neuron, self.shape, self.height, self.slope, bool(self.detach_reset), self.rule, [*self.of_rule]

    @property
    def shape(self) -> str:
        return self.surrogate.shape

    @cached_property
    def height(self) -> float:
        return self.surrogate.height

    @cached_property
    def slope(self) -> float:
        return self.surrogate.slope


def checked_parameters(rule: Rule, given: Sequence[float]) -> tuple[float, ...]:
    """The rule's own parameters as floats, its defaults for none. Raises TypeError or ValueError, naming one."""
    if not given:
        return tuple(float(parameter.default or 0.0) for parameter in rule.parameters)
    values = []
    for (name, _, least, most), value in zip(rule.parameters, given, strict=True):
        if not least <= number(name, value) <= most:
            raise ValueError(f"{name} is {value}; rule {rule.name!r} needs {least} <= {name} <= {most}")
        values.append(float(value))
    return tuple(values)


def of_rule(rule: str, given: Mapping[str, float]) -> tuple[float, ...]:
    """The rule's own parameters in its order, from those given by name. Raises TypeError for one that it has not."""
    if not given or rule not in RULES:
        return ()
    own = {parameter.name: parameter.default for parameter in RULES[rule].parameters}
    for name in given:
        if name not in own:
            allowed = ", ".join(own) or "none"
            raise TypeError(f"{name!r} is no argument of a neuron; those of rule {rule!r} alone are: {allowed}")
    return tuple({**own, **given}.values())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Formula(Surrogate):
    """A surrogate as kernels see it: shape, height and slope."""

    formula: tuple[str, float, float] = ("sigmoid", 1.0, 1.0)

    @property
    def shape(self) -> str:  # type: ignore[override]
        return self.formula[0]

    @property
    def height(self) -> float:
        return self.formula[1]

    @property
    def slope(self) -> float:
        return self.formula[2]


def params_of(*arguments: Any) -> LIFParams:
    """LIFParams of `LIFParams.arguments`, whose last, a list, an operator leaves out where it is empty."""
    return _params_of(*arguments[:9], tuple(arguments[9] if len(arguments) > 9 else ()))


@lru_cache(maxsize=256)
def _params_of(*arguments: Any) -> LIFParams:
    tau, decay_input, v_threshold, v_reset, shape, height, slope, detach_reset, rule, own = arguments
    surrogate = Formula(formula=(shape, height, slope))
    return LIFParams(tau, decay_input, v_threshold, v_reset, surrogate, detach_reset, rule, own)


@graphs.constant
def _constant(*arguments: Any) -> LIFParams:
    """`params_of` in a graph. It must take plain numbers: torch.compile hands over an object without its fields."""
    return params_of(*arguments)


# typed: 1 is not True
_built = lru_cache(maxsize=256, typed=True)(LIFParams)


def cached_params(
    tau: float,
    decay_input: bool,
    v_threshold: float,
    v_reset: float | None,
    surrogate: Any,
    detach_reset: bool,
    rule: str,
    own: tuple[float, ...] = (),
) -> LIFParams:
    """LIFParams of these arguments, built once. A surrogate of SpikingJelly's is read anew each time."""
    surrogate = coerce(surrogate)
    if torch.compiler.is_dynamo_compiling():
        formula = (surrogate.shape, surrogate.height, surrogate.slope)
        return _constant(tau, decay_input, v_threshold, v_reset, *formula, detach_reset, rule, own)
    args = (tau, decay_input, v_threshold, v_reset, surrogate, detach_reset, rule, own)
    try:
        return _built(*args)
    except TypeError:
        # an argument that is not hashable: let LIFParams name it
        return LIFParams(*args)


def replaced(state: Any, **values: Any) -> Any:
    """A named tuple with other values in these fields. Out of a graph of torch 2.11 its `_replace` comes empty, and
    that of torch 2.8 has no `_asdict`."""
    return type(state)(**(dict(zip(type(state)._fields, state, strict=True)) | values))


def map_tensors(state: Any, fn: Any) -> Any:
    """A named tuple with fn of each of its tensors."""
    return type(state)(*[fn(value) if isinstance(value, Tensor) else value for value in state])


def with_slots(cls: Any) -> Any:
    """Decorator: a named tuple with a field more, None, for every slot of the rules that it does not name."""
    more = [name for name in SLOTS if name not in cls._fields]
    defaults = [*cls._field_defaults.values(), *[None] * len(more)]
    made = namedtuple(cls.__name__, (*cls._fields, *more), defaults=defaults, module=cls.__module__)  # type: ignore[misc]
    made.__doc__, made.map = cls.__doc__, cls.map  # type: ignore[attr-defined]
    return made


@with_slots
class LIFState(NamedTuple):
    """State between steps. All tensors have the shape of one step's input.

    potential: u[t] before reset, or v[t] after it where is_v; None before the first step. keep: the sequence's dropout
    mask, already scaled. The others are the rules' slots (`fastsnn.rules`), None where the rule has none. trace: a[t].
    ratio: e[t] of "ndot"; v[t] - th*s[t], the next step's denominator, of "ndot_released". A slot that drives spikes is
    that before the spike of u[t], or after it where is_v.
    """

    potential: Tensor | None = None
    is_v: bool = False
    trace: Tensor | None = None
    ratio: Tensor | None = None
    keep: Tensor | None = None

    def map(self, fn: Any) -> LIFState:
        """fn of every tensor."""
        return map_tensors(self, fn)


EMPTY = LIFState()
FIELDS = ("v", *LIFState._fields[1:])  # as arguments are called
MORE = (None,) * (len(LIFState._fields) - 5)  # slots of rules that 0.1 had not
PLACES = {name: LIFState._fields.index(name) for name in SLOTS}


class Forward(NamedTuple):
    """What a backend's forward returns: spikes, u and v after the last step (of every step where asked), and the rule's
    slots: the trace of every step, the last of the others."""

    spikes: Tensor
    u: Tensor | None
    v: Tensor | None
    slots: Sequence[Tensor] = ()


def state_of(places: Sequence[int], potential: Any, is_v: bool, slots: Sequence[Any], keep: Any) -> LIFState:
    """A state whose fields at `places` are these slots."""
    fields = [potential, is_v, None, None, keep, *MORE]
    for i, place in enumerate(places):
        fields[place] = slots[i]
    return new(LIFState, fields)


def slots_at(places: Sequence[int], state: Any) -> list[Any]:
    """The slots at `places` of a state."""
    return [state[place] for place in places]


class MPDRGradient(NamedTuple):
    """What MPDR adds to a backward: dL/du[t] = offset + slope*(u[t] - m) of every step as float64 [T, 3] (m, offset,
    slope), and whether its part of g_x stays apart."""

    rows: Tensor
    local: bool


class Saved(NamedTuple):
    """What a backend's backward works from: u of every step, or x of the sequence and its first state. drive: the slots
    of that state which spikes depend on."""

    dtype: torch.dtype
    sequence: bool
    u: Tensor | None = None
    x: Tensor | None = None
    potential: Tensor | None = None
    is_v: bool = False
    keep: Tensor | None = None
    drive: Sequence[Tensor | None] = ()
