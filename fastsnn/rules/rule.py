"""What a neuron rule is: named state slots, parameters, a step and a gradient. The base is the LIF neuron itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Slots = dict[str, Any]  # name -> tensor


class Slot(NamedTuple):
    """A tensor that a neuron keeps from step to step, beside its potential.

    drives: spikes depend on it, so that evaluation keeps it and the gradient through time passes through it. Such a
    slot goes with the potential before its reset, and `Rule.settle` moves on both. every_step: a sequence returns that
    of every step, else the last; this is the eligibility trace, which comes first. start: before the first step;
    infinity where that step follows another formula (`Rule.first`).
    """

    name: str
    drives: bool = False
    every_step: bool = False
    start: float = 0.0


class Parameter(NamedTuple):
    """A number of a rule, an argument of the neuron; least <= number <= most."""

    name: str
    default: float | None = None
    least: float = float("-inf")
    most: float = float("inf")


class Now(NamedTuple):
    """What a step has computed when its slots follow: spikes (with the dropout mask on them), where it fired, u[t],
    v[t], v[t-1] and u[t-1]; first: nothing came before."""

    s: Tensor
    fired: Tensor
    u: Tensor
    v: Tensor
    v_prev: Tensor
    u_prev: Tensor
    first: bool


class Neuron(Protocol):
    """What a rule reads of a neuron (`fastsnn.types.LIFParams`)."""

    @property
    def leak(self) -> float: ...
    @property
    def gain(self) -> float: ...
    @property
    def bias(self) -> float: ...
    @property
    def threshold(self) -> float: ...
    @property
    def v_reset(self) -> float | None: ...
    @property
    def reset_grad(self) -> float: ...
    @property
    def of_rule(self) -> tuple[float, ...]: ...


class Rule:
    """u[t] = lam*v[t-1] + gain*x[t] + bias, s[t] = H(u[t] - th), v[t] = reset of u[t] (equations/lif.md).

    A subclass names itself and says what differs. `p` is the neuron, `slots` name -> tensor.
    """

    name: ClassVar[str]
    online: ClassVar[bool]  # v[t-1] is detached
    kernel: ClassVar[str] = "none"  # its step in csrc/core/rules/list.h and triton_kernels/rules
    slots: ClassVar[tuple[Slot, ...]] = ()
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    untraced: ClassVar[str]  # the rule of the same neuron that keeps no trace; itself where it has none
    soft_reset: ClassVar[str] = ""  # why it needs soft reset
    paper: ClassVar[Mapping[str, Any]] = {}  # what the paper and its code have where LIF has other defaults

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            return
        here = f"rule {cls.name!r} ({inspect.getsourcefile(cls)})"
        for slot in cls.slots[1:]:
            if slot.every_step:
                raise TypeError(f"{here}: slot {slot.name!r} is kept of every step; only the first can be, the trace")
        for parameter in cls.parameters:
            if parameter.default is None:
                raise TypeError(f"{here}: parameter {parameter.name!r} has no default")
        for slot in cls.slots:
            if slot.start == float("inf") and cls.first is Rule.first:
                raise TypeError(f"{here}: slot {slot.name!r} starts at infinity and the rule has no `first`")
        if cls.traced() == (cls.untraced == cls.name):
            raise TypeError(f"{here}: `untraced` is {cls.untraced!r}; it must name the rule without the trace")

    @classmethod
    def traced(cls) -> bool:
        """Whether the first slot is a trace."""
        return bool(cls.slots) and cls.slots[0].every_step

    def charge(self, p: Neuron, v: Tensor, x: Tensor, slots: Slots) -> Tensor:
        """u[t], as it is compared with th."""
        return (p.leak * v + p.gain * x) + p.bias

    def fire(self, p: Neuron, u: Tensor) -> Tensor:
        """s[t] = H(u[t] - th), equality fires."""
        return u >= p.threshold

    def reset(self, p: Neuron, u: Tensor, fired: Tensor) -> Tensor:
        """u[t] - th, or v_reset, where it fired."""
        if p.v_reset is None:
            return (u - p.threshold).where(fired, u)
        return u.masked_fill(fired, p.v_reset)

    def settle(self, p: Neuron, u: Tensor, fired: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        """v[t], and after the spike the slots that drive spikes."""
        return self.reset(p, u, fired), {}

    def advance(self, p: Neuron, now: Now, slots: Slots) -> Slots:
        """The slots that drive nothing, after the step. `slots`: theirs before it, and those that drive spikes as this
        step's depended on them."""
        return {}

    def first(self, p: Neuron, v: Tensor) -> Tensor:
        """After its first step, the slot whose start is infinite."""
        raise TypeError(f"rule {self.name!r} has no slot whose start is infinite")

    def reset_derivative(self, p: Neuron, u: Tensor, sg: Tensor) -> Tensor:
        """dv/du: 1 - th*sg (soft), (1 - s) + (r - u)*sg (hard); detach_reset drops the sg term."""
        if p.v_reset is None:
            return 1 - p.reset_grad * sg
        return (~self.fire(p, u)).to(u) + p.reset_grad * ((p.v_reset - u) * sg)

    def bptt_gradient(self, p: Neuron, g_s: Tensor, g_v: Tensor, g_slots: Slots, u: Tensor, sg: Tensor) -> Tensor:
        """g_u[t] from the gradients of s[t] (dropout on it), v[t] and the settled slots."""
        return g_s * sg + g_v * self.reset_derivative(p, u, sg)

    def carry(self, p: Neuron, g_u: Tensor, g_v: Tensor, g_slots: Slots) -> Slots:
        """Gradients of the settled slots of t-1."""
        return {}
