"""The adaptive LIF neuron against its equations. What every rule must show (parity of backends, operators, states,
machine code) iterates over fastsnn.rules and is not repeated here."""

import pytest
import torch

import fastsnn
from fastsnn import functional

from ..cases import current, on_reference

RULES = ("alif_bptt", "alif_sltt", "alif")
T, TAU, TH, RHO, BETA = 9, 2.0, 0.6, 0.75, 0.4
NEURON = {"tau": TAU, "decay_input": False, "v_threshold": TH, "v_reset": None, "rho": RHO, "beta": BETA}
NEURON["surrogate_function"] = fastsnn.surrogate.Sigmoid(4.0)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return (z >= 0).to(z)

    @staticmethod
    def backward(ctx, g):
        q = torch.sigmoid(4.0 * ctx.saved_tensors[0])
        return g * 4.0 * q * (1 - q)


def by_autograd(x, through_time):
    """Spikes, v and b of the last step, from u[t] = lam*v[t-1] + x[t], s[t] = H(u[t] - (th + beta*b[t-1]))."""
    v, b, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x:
        if not through_time:
            v, b = v.detach(), b.detach()
        u = (1 - 1 / TAU) * v + x_t
        s = Spike.apply(u - (TH + BETA * b))
        v, b = u - TH * s, RHO * b + s
        spikes.append(s)
    return torch.stack(spikes), v, b


def spikes_of(out):
    return out if isinstance(out, torch.Tensor) else out.spikes


@pytest.fixture
def x():
    torch.manual_seed(0)
    return (1.0 + torch.randn(T, 3, 5, dtype=torch.float64)).requires_grad_()


@pytest.mark.parametrize("rule", RULES)
def test_spikes_state_and_gradient_are_those_of_the_equations(rule, x):
    spikes, v, b = by_autograd(x, rule == "alif_bptt")
    found = functional.lif_sequence(x, rule=rule, **NEURON)
    assert torch.equal(found.spikes, spikes)
    torch.testing.assert_close((found.v, found.adaptation), (v, b))
    weights = torch.randn_like(x), torch.randn_like(v), torch.randn_like(b)
    given = [spikes, v, b] if rule == "alif_bptt" else [spikes]
    wanted = torch.autograd.grad(given, x, weights[: len(given)])
    outputs = [found.spikes, found.v, found.adaptation][: len(given)]
    torch.testing.assert_close(torch.autograd.grad(outputs, x, weights[: len(given)]), wanted)


@pytest.mark.parametrize("parts", [[1] * T, [4, 5]], ids=["steps", "parts"])
def test_the_gradient_goes_through_a_layers_state(parts, x):
    """From call to call, through the potential and the adaptation."""
    spikes, v, _ = by_autograd(x, True)
    layer = fastsnn.LIF(rule="alif_bptt", step_mode="m", **NEURON)
    found = torch.cat([layer(part) for part in x.split(parts)]), layer.v
    assert torch.equal(found[0], spikes)
    weights = torch.randn_like(x), torch.randn_like(v)
    wanted = torch.autograd.grad((spikes, v), x, weights)
    torch.testing.assert_close(torch.autograd.grad(found, x, weights), wanted)


def test_its_trace_is_that_of_ottt(x):
    found, trace = functional.lif_sequence(x, rule="alif", **NEURON), torch.zeros_like(x[0])
    for s, a in zip(found.spikes, found.trace, strict=True):
        trace = (1 - 1 / TAU) * trace + s
        torch.testing.assert_close(a, trace)


def test_adaptation_spaces_spikes_out():
    """Under a constant current, the intervals between spikes grow (Bellec et al. 2018, figure 1)."""
    drive = torch.full((60, 1), 0.9, dtype=torch.float64)
    at = functional.lif_sequence(drive, rule="alif_sltt", **{**NEURON, "rho": 0.98, "beta": 0.2}).spikes[:, 0].nonzero()
    intervals = at.diff(dim=0)
    assert intervals[0] == 1
    assert intervals[-1] > 2


@pytest.mark.parametrize("rule", RULES)
def test_without_adaptation_it_is_the_lif_neuron(rule):
    x = current(T, 40, dtype=torch.float64)
    plain = {name: value for name, value in NEURON.items() if name not in ("rho", "beta")}
    found = functional.lif_sequence(x, rule=rule, **{**NEURON, "beta": 0.0})
    wanted = functional.lif_sequence(x, rule="sltt", **plain)
    assert torch.equal(found.spikes, wanted.spikes)
    assert torch.equal(found.v, wanted.v)


@pytest.mark.parametrize("rule", RULES)
def test_a_layer_goes_on_from_its_state_also_in_evaluation(rule, x):
    layer, whole = fastsnn.LIF(rule=rule, **NEURON), fastsnn.LIF(rule=rule, step_mode="m", **NEURON)
    for mode in (True, False):
        fastsnn.reset(layer.train(mode))
        fastsnn.reset(whole.train(mode))
        with torch.no_grad():
            steps = torch.stack([spikes_of(layer(x_t)) for x_t in x])
            assert torch.equal(steps, spikes_of(whole(x)))
            assert torch.equal(steps, on_reference(functional.lif_sequence, x, rule=rule, **NEURON).spikes)
        assert layer.state.adaptation is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rho": 1.5}, r"rho is 1.5; rule 'alif' needs 0.0 <= rho <= 1.0"),
        ({"beta": -1.0}, r"beta is -1.0; rule 'alif' needs 0.0 <= beta <= inf"),
        ({"beta": "much"}, r"beta is 'much'"),
        ({"v_reset": 0.0}, r"rule 'alif' needs soft reset and v_reset is 0.0: a spike subtracts its threshold"),
        ({"threshold": "ots"}, r"rule is 'alif'; threshold='ots' goes with 'sltt' and 'ottt'"),
    ],
)
def test_what_does_not_fit_is_named(given, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fastsnn.LIF(rule="alif", **{**NEURON, **given})


def test_another_rule_of_the_same_neuron_keeps_its_parameters():
    neuron = fastsnn.LIF.for_rule("alif", rho=0.5, beta=0.125)
    neuron.rule = "alif_bptt"
    assert neuron.rule_parameters == {"rho": 0.5, "beta": 0.125}
    neuron.rule = "bptt"
    assert neuron.rule_parameters == {}
    neuron.rule = "alif"
    assert neuron.rule_parameters == {"rho": 0.875, "beta": 0.25}
