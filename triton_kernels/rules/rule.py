"""What a neuron rule is to the kernels, for some neurons and one step, as in fastsnn/rules and csrc/core/rules. The
functions here are those of the LIF neuron itself (equations/lif.md): a rule brings those that differ.

`slots` is a tuple with a block for each slot, in the order in which fastsnn/rules declares them.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from fastsnn.rules import RULES as DECLARED


class Lif(NamedTuple):
    """Parameters in the state's type, of_rule those of the rule alone; None where a kernel has no use for them. v_reset
    is None under soft reset."""

    leak: Any = None
    gain: Any = None
    bias: Any = None
    threshold: Any = None
    v_reset: Any = None
    reset_grad: Any = None
    of_rule: Any = None


class Now(NamedTuple):
    """What a step has computed when its slots follow: spikes (with the dropout mask on them), where it fired, u[t],
    v[t], v[t-1] and u[t-1]; first: nothing came before."""

    s: Any
    fired: Any
    u: Any
    v: Any
    v_prev: Any
    u_prev: Any
    first: Any


@triton.jit
def charge(p, v, x, slots):
    """u[t] = lam * v[t-1] + gain * x[t] + bias."""
    return (p.leak * v + p.gain * x) + p.bias


@triton.jit
def fire(p, u):
    return u >= p.threshold


@triton.jit
def reset(p, u, fired):
    """u[t] - th, or v_reset, where it fired."""
    if p.v_reset is None:
        return tl.where(fired, u - p.threshold, u)
    else:
        return tl.where(fired, p.v_reset, u)


@triton.jit
def settle(p, u, fired, slots):
    """v[t], and all slots, of which those that drive spikes have moved on."""
    return reset(p, u, fired), slots


@triton.jit
def advance(p, now, slots):
    """All slots, of which those that drive nothing have moved on."""
    return slots


@triton.jit
def reset_derivative(p, u, sg):
    """dv/du of the reset."""
    if p.v_reset is None:
        return 1.0 - p.reset_grad * sg
    else:
        return tl.where(fire(p, u), 0.0, 1.0) + p.reset_grad * ((p.v_reset - u) * sg)


@triton.jit
def bptt_gradient(p, g_s, g_v, g_slots, u, sg):
    """g_u[t] from the gradients of s[t] (dropout on it), v[t] and the settled slots."""
    return g_s * sg + g_v * reset_derivative(p, u, sg)


@triton.jit
def carry(p, g_u, g_v, g_slots):
    """Gradients of the settled slots of t-1."""
    return g_slots


FUNCTIONS = {
    "charge": charge,
    "settle": settle,
    "advance": advance,
    "bptt_gradient": bptt_gradient,
    "carry": carry,
}


class Rule:
    """The functions of a `kernel` of fastsnn.rules, which declares its slots and parameters. Kernels take it as a
    constant.

    Raises ImportError, naming rule, slot and file, where nothing declares the kernel, or several do differently, and
    for a slot that no function writes; TypeError for a function that no kernel calls.
    """

    def __init__(self, name: str, **own: Any) -> None:
        file = next((function.fn.__code__.co_filename for function in own.values()), __file__)
        here = f"rule {name!r} ({file})"
        for function in own.keys() - FUNCTIONS.keys():
            raise TypeError(f"{here} has {function!r}; kernels call {', '.join(FUNCTIONS)}")
        declared = [rule for rule in DECLARED.values() if rule.kernel == name]
        if len({(rule.slots, rule.parameters) for rule in declared}) != 1:
            who = ", ".join(rule.name for rule in declared) or "none"
            raise ImportError(
                f"{here}: rules of fastsnn.rules with this kernel, of the same slots and parameters: {who}"
            )
        self.name, self.slots, self.parameters = name, declared[0].slots, declared[0].parameters
        for slot in self.slots:
            where = "settle" if slot.drives else "advance"
            if where not in own:
                raise ImportError(f"{here}: slot {slot.name!r} is declared and there is no `{where}`, which writes it")
        self.count = len(self.slots)
        self.drives = any(slot.drives for slot in self.slots)
        self.every_step = tuple(slot.every_step for slot in self.slots)
        self.fault = f"{here}: `advance` and `settle` must return {self.count} slots"
        # the rule that goes back in time: it has those slots alone that drive spikes
        self.dynamics = DECLARED[declared[0].untraced].kernel
        for function, written in (FUNCTIONS | own).items():
            setattr(self, function, written)

    def __repr__(self) -> str:
        return self.name

    @property
    def cache_key(self) -> str:
        """What Triton finds compiled kernels by: all of a rule that is compiled into them."""
        return "-".join([str(self.slots), *(getattr(self, function).cache_key for function in FUNCTIONS)])


UNTRACED = Rule("none")
