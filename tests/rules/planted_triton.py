"""The adaptive neuron of planted.py as a rule of the Triton kernels, alone and with a trace beside the slot that
drives spikes: python planted_triton.py. In Triton's interpreter (TRITON_INTERPRET=1) all that it computes is what the
reference computes, bit for bit; without it what would be launched is compiled for sm_90, and no register spills.
"""

import itertools
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

from planted import BETA, RHO, Adaptive  # first: it plants the slot

sys.path.append(str(Path(__file__).parents[2]))  # behind all else, so that fastsnn is the installed one

import pytest
import torch
import triton
import triton.language as tl
from fastsnn._triton import launch
from fastsnn._triton.rules import RULES as TRITON_RULES
from fastsnn._triton.rules.rule import Rule, reset

from fastsnn.reference import mpdr as reference
from fastsnn.rules import RULES
from fastsnn.rules.rule import Slot
from fastsnn.surrogate import Triangle
from fastsnn.surrogate.formulas import SHAPES
from fastsnn.types import LIFParams, LIFState, MPDRGradient, Saved
from tests.cases import assert_same, current, keep_of
from tests.gpuless import triton_interpreter

T, N = 5, 70


class Online(Adaptive):
    name = untraced = "adaptive_online"
    online = True


class Traced(Adaptive):
    name = kernel = "adaptive_traced"
    online = True
    untraced = "adaptive_online"
    slots = (Slot("trace", every_step=True), *Adaptive.slots)

    def advance(self, p, now, slots):
        return {"trace": p.leak * slots["trace"] + now.s}


@triton.jit
def charge(p, v, x, slots):
    return ((p.leak * v + p.gain * x) + p.bias) - p.of_rule[1] * slots[-1]


@triton.jit
def after_spike(p, b, fired):
    return p.of_rule[0] * b + tl.where(fired, 1.0, 0.0)


@triton.jit
def settle(p, u, fired, slots):
    return reset(p, u, fired) + p.of_rule[1] * slots[0], (after_spike(p, slots[0], fired),)


@triton.jit
def settle_traced(p, u, fired, slots):
    return reset(p, u, fired) + p.of_rule[1] * slots[1], (slots[0], after_spike(p, slots[1], fired))


@triton.jit
def advance_traced(p, now, slots):
    return p.leak * slots[0] + now.s, slots[1]


@triton.jit
def forgetful(p, now, slots):
    return (slots[0],)


@triton.jit
def bptt_gradient(p, g_s, g_v, g_slots, u, sg):
    return (g_s + g_slots[0] - p.reset_grad * g_v) * sg + g_v


@triton.jit
def carry(p, g_u, g_v, g_slots):
    return (p.of_rule[0] * g_slots[0] + p.of_rule[1] * (g_v - g_u),)


def plant():
    RULES.update({rule.name: rule() for rule in (Online, Traced)})
    adaptive = Rule("adaptive", charge=charge, settle=settle, bptt_gradient=bptt_gradient, carry=carry)
    traced = Rule("adaptive_traced", charge=charge, settle=settle_traced, advance=advance_traced)
    TRITON_RULES.update(adaptive=adaptive, adaptive_traced=traced)
    # the native core, which checks operands, knows nothing of these rules
    launch.NativeParams, launch.native_rules = SimpleNamespace, TRITON_RULES


def neuron(rule):
    """Parameters as the reference and as a launch takes them."""
    p = LIFParams(2.0, False, 0.6, None, Triangle(2.0), rule=rule, of_rule=(RHO, BETA))
    names = ("leak", "gain", "bias", "threshold", "reset_grad", "height", "slope", "of_rule")
    numbers = {name: getattr(p, name) for name in names} | {"v_reset": p.v_start}
    code = [*TRITON_RULES].index(p.kind.kernel)
    return p, launch.LifParams(reset=False, rule=code, surrogate=SHAPES.index(p.shape), **numbers)


def forward(rule, x, state):
    """Spikes, u and v of every step and the slots, of the reference and of the kernels."""
    p, q = neuron(rule)
    wanted = reference.forward(p, x, state, True, v_seq=True, u_seq=True)
    found = type(wanted)(*map(torch.empty_like, wanted[:3]), [torch.empty_like(slot) for slot in wanted.slots])
    before = [state[place] for place in p.places]
    after = None, found.u, None, found.v, *found.slots
    operands = x, state.potential, *before, state.keep, found.spikes, *after
    launch.lif_forward(q, nullcontext(), len(x), x[0].numel(), 0, None in before, state.is_v, *operands)
    return found, wanted


def backward(rule, saved, g_s, g_v, g_b, g_v_seq, pull):
    """Gradients of x, and back in time of the state before it, of the reference and of the kernels."""
    p, q = neuron(rule)
    g_x, g_v_first, g_first, _ = reference.backward(p, saved, g_s, g_v, g_v_seq, not p.online, pull, (g_b,))
    wanted = [g_x] if p.online else [g_x, g_v_first, *g_first]
    found = [torch.empty_like(tensor) for tensor in wanted]
    state = saved.u, saved.x, saved.potential, *(saved.drive or [None])
    firsts = found[1:] or [None, None]
    operands = g_s, saved.keep, *state, g_v, g_b, g_v_seq, found[0], *firsts
    where = nullcontext(), not p.online, len(g_s), g_s[0].numel(), 0, saved.is_v
    launch.lif_backward(q, *where, *operands, pulls=pull and pull.rows)
    return found, wanted


def results():
    """(found, wanted) of every case."""
    for dtype, is_v, masked in itertools.product((torch.float32, torch.float64, torch.float16), *[(False, True)] * 2):
        x, wide = current(T, N, dtype=dtype), torch.float64 if dtype == torch.float64 else torch.float32
        g_s, (v, b, trace, g_v, g_b) = torch.randn(T, N).to(dtype), torch.randn(5, N, dtype=wide)
        keep = keep_of(x[0]) if masked else None
        start = {"potential": v, "is_v": is_v, "keep": keep}
        for rule in ("adaptive", "adaptive_online", "adaptive_traced"):
            more = {"trace": trace} if rule == "adaptive_traced" else {}
            yield forward(rule, x, LIFState(**start, adaptation=b, **more))
            yield forward(rule, x, LIFState())
        g_v_seq, u = torch.randn(2, T, N, dtype=wide)
        mpdr = MPDRGradient(torch.rand(T, 3, dtype=torch.float64), False)
        for pulled, late in ((None, g_v_seq), (mpdr, None)):
            yield backward("adaptive", Saved(dtype, True, u=u, keep=keep), g_s, g_v, g_b, late, pulled)
            saved = Saved(dtype, True, x=x, **start, drive=[b])
            for rule in ("adaptive_online", "adaptive_traced"):
                yield backward(rule, saved, g_s, None, None, None, pulled)


def compiled():
    """Everything that would be launched."""
    from tests.gpuless import triton_build

    with triton_build.recorded_launches() as recorded:
        for _ in results():
            pass
    for variant in {str(variant): variant for variant in recorded}.values():
        yield triton_build.compiled(variant, 90)


def check_compiled():
    from tests.gpuless import machine_code

    spilled = [machine_code.resources_of(kernel.asm["cubin"])[1] for kernel in compiled()]
    assert len(spilled) > 20
    assert not any(spilled)
    TRITON_RULES["adaptive_traced"].advance = forgetful
    with pytest.raises(triton.CompilationError) as raised:
        list(compiled())
    assert re.search(r"rule 'adaptive_traced' \(.*planted_triton.py\): .* must return 2 slots", messages(raised.value))


def messages(error):
    """Its own and those of its causes."""
    return f"{error}\n{messages(error.__cause__)}" if error else ""


def main():
    torch.manual_seed(0)
    plant()
    if not launch.INTERPRETED:
        return check_compiled()
    triton_interpreter.repair()
    for found, wanted in results():
        assert_same(found, wanted)
        assert all(tensor.abs().sum() > 0 for tensor in wanted if torch.is_tensor(tensor))
    return None


if __name__ == "__main__":
    main()
