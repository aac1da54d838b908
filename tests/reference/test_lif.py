"""The reference's hand-written gradients against autograd through the plain equations of lif.md and ottt.md."""

import pytest
import torch

from ..cases import (
    OF_LIF,
    RESETS,
    SURROGATES,
    assert_same,
    configurations,
    current,
    keep_of,
    on_reference,
    sequence,
    steps,
)

TIGHT = {"rtol": 1e-11, "atol": 1e-12}


class Spike(torch.autograd.Function):
    """H(z) whose derivative is the surrogate's."""

    @staticmethod
    def forward(ctx, z, surrogate):
        ctx.save_for_backward(surrogate.derivative(z))
        return (z >= 0).to(z)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None


def naive(x, v, keep, *, rule, tau, decay_input, v_reset, detach_reset, surrogate_function, th=1.0):
    """Spikes and v of every step, as equations/lif.md prints them."""
    r = 0.0 if v_reset is None else v_reset
    spikes, potentials = [], []
    for x_t in x:
        if rule != "bptt":
            v = v.detach()
        u = v + (x_t - (v - r)) / tau if decay_input else v - (v - r) / tau + x_t
        s = Spike.apply(u - th, surrogate_function)
        s_reset = s.detach() if detach_reset else s
        v = u - th * s_reset if v_reset is None else (1 - s_reset) * u + s_reset * v_reset
        spikes.append(s * keep)
        potentials.append(v)
    return torch.stack(spikes), torch.stack(potentials)


def case(shape=(6, 5, 7)):
    x = 1.5 * torch.randn(shape, dtype=torch.float64) + 0.3
    return x, torch.randn_like(x[0]), keep_of(x[0]), torch.randn_like(x), torch.randn_like(x)


def compare(run, config):
    """Values and gradients of `run` against `naive`; under BPTT gradients enter and leave through v as well."""
    x, v, keep, g_s, g_v = case()
    both = 2 if config["rule"] == "bptt" else 1
    results = []
    for fn in (naive, lambda *args, **kwargs: on_reference(run, *args, **kwargs)[:2]):
        leaves = [x.clone().requires_grad_(), v.clone().requires_grad_()]
        out = fn(leaves[0], v=leaves[1], keep=keep, **config)
        results.append((*out, *torch.autograd.grad(out[:both], leaves[:both], (g_s, g_v)[:both])))
    assert_same(results[1], results[0], **TIGHT)


@pytest.mark.parametrize("run", [sequence, steps], ids=["sequence", "steps"])
@pytest.mark.parametrize("detach_reset", [False, True], ids=["reset", "detached"])
@pytest.mark.parametrize("config", configurations(rules=["bptt"]))
def test_bptt_equals_autograd(config, detach_reset, run):
    compare(run, config | {"detach_reset": detach_reset, "surrogate_function": SURROGATES[0]})


@pytest.mark.parametrize("v_reset", RESETS.values(), ids=RESETS)
@pytest.mark.parametrize("shape", SURROGATES, ids=repr)
def test_bptt_of_every_surrogate_equals_autograd(shape, v_reset):
    config = {"rule": "bptt", "v_reset": v_reset, "tau": 1.7, "decay_input": True, "detach_reset": False}
    compare(sequence, config | {"surrogate_function": shape})


@pytest.mark.parametrize("run", [sequence, steps], ids=["sequence", "steps"])
@pytest.mark.parametrize("config", configurations(rules=OF_LIF))
def test_online_rules_equal_autograd_with_v_detached(config, run):
    compare(run, config | {"detach_reset": False, "surrogate_function": SURROGATES[0]})


@pytest.mark.parametrize("tau", [2.0, 1.7])
def test_ottt_trace(tau):
    x = current(6, 41, dtype=torch.float64)
    keep = keep_of(x[0])
    out = on_reference(sequence, x, keep=keep, rule="ottt", tau=tau)
    expected = torch.zeros_like(keep)
    for spikes, trace in zip(out.spikes, out.trace, strict=True):
        expected = (1 - 1 / tau) * expected + spikes
        assert_same(trace, expected)
