"""The LIF neuron without a trace (equations/lif.md): through time, and spatial (Meng et al. 2023)."""

from .rule import Rule

PAPER = {"decay_input": False, "v_reset": None, "surrogate_function": ("Triangle", 1.0)}


class BPTT(Rule):
    """g_u = g_s*sg + g_v*dv/du ; g_x = gain*g_u ; g_v[t-1] = lam*g_u."""

    name = "bptt"
    online = False
    untraced = "bptt"


class SLTT(Rule):
    """v[t-1] is detached: g_x[t] = gain*g_s[t]*sg(u[t] - th)."""

    name = "sltt"
    online = True
    untraced = "sltt"
    paper = PAPER
