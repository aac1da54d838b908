"""Adaptive LIF (fastsnn/rules/alif.py): the potential is w[t] = u[t] - beta * b[t-1], and b is the last slot."""

import triton
import triton.language as tl

from . import rule
from .rule import Rule

lif_charge, reset, reset_derivative = rule.charge, rule.reset, rule.reset_derivative


@triton.jit
def charge(p, v, x, slots):
    return lif_charge(p, v, x, slots) - p.of_rule[1] * slots[-1]


@triton.jit
def v_after(p, u, fired, b):
    return reset(p, u, fired) + p.of_rule[1] * b


@triton.jit
def adapted(p, fired, b):
    return p.of_rule[0] * b + tl.where(fired, 1.0, 0.0)


@triton.jit
def settle(p, u, fired, slots):
    return v_after(p, u, fired, slots[0]), (adapted(p, fired, slots[0]),)


@triton.jit
def bptt_gradient(p, g_s, g_v, g_slots, u, sg):
    return (g_s + g_slots[0]) * sg + g_v * reset_derivative(p, u, sg)


@triton.jit
def carry(p, g_u, g_v, g_slots):
    return (p.of_rule[0] * g_slots[0] + p.of_rule[1] * (g_v - g_u),)


@triton.jit
def settle_traced(p, u, fired, slots):
    return v_after(p, u, fired, slots[1]), (slots[0], adapted(p, fired, slots[1]))


@triton.jit
def advance(p, now, slots):
    """a[t] = lam * a[t-1] + s[t]."""
    return p.leak * slots[0] + now.s, slots[1]


ALIF_UNTRACED = Rule("alif_untraced", charge=charge, settle=settle, bptt_gradient=bptt_gradient, carry=carry)
ALIF = Rule("alif", charge=charge, settle=settle_traced, advance=advance)
