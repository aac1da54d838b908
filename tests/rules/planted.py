"""An adaptive neuron planted among the rules before anything reads them: python planted.py, on the reference backend.

Its slot drives spikes (Bellec et al. 2018): th[t] = th + beta*b[t-1], b[t] = rho*b[t-1] + s[t]. The potential that is
compared with th is w[t] = u[t] - beta*b[t-1].
"""

import fastsnn.rules
from fastsnn.rules.rule import Parameter, Rule, Slot


class Adaptive(Rule):
    name = "adaptive"
    online = False
    kernel = "adaptive"
    untraced = "adaptive"
    slots = (Slot("adaptation", drives=True),)
    parameters = (Parameter("rho", 0.9, 0.0, 1.0), Parameter("beta", 0.3, 0.0))

    def charge(self, p, v, x, slots):
        return super().charge(p, v, x, slots) - p.of_rule[1] * slots["adaptation"]

    def settle(self, p, u, fired, slots):
        (rho, beta), b = p.of_rule, slots["adaptation"]
        return self.reset(p, u, fired) + beta * b, {"adaptation": rho * b + fired.to(u)}

    def bptt_gradient(self, p, g_s, g_v, g_slots, u, sg):
        return (g_s + g_slots["adaptation"] - p.reset_grad * g_v) * sg + g_v

    def carry(self, p, g_u, g_v, g_slots):
        rho, beta = p.of_rule
        return {"adaptation": rho * g_slots["adaptation"] + beta * (g_v - g_u)}


fastsnn.rules.RULES["adaptive"] = Adaptive()
fastsnn.rules.SLOTS = tuple(dict.fromkeys((*fastsnn.rules.SLOTS, "adaptation")))

import torch  # noqa: E402

import fastsnn  # noqa: E402
from fastsnn.surrogate import Sigmoid  # noqa: E402

T, NEURON = 7, {"tau": 2.0, "decay_input": False, "v_threshold": 0.6, "v_reset": None, "rule": "adaptive"}
RHO, BETA = 0.8, 0.4


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return (z >= 0).to(z)

    @staticmethod
    def backward(ctx, g):
        q = torch.sigmoid(4.0 * ctx.saved_tensors[0])
        return g * 4.0 * q * (1 - q)


def by_autograd(x):
    """Spikes and the last v, from the equations."""
    v, b, spikes = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x:
        u = 0.5 * v + x_t
        s = Spike.apply(u - (0.6 + BETA * b))
        v, b = u - 0.6 * s, RHO * b + s
        spikes.append(s)
    return torch.stack(spikes), v, b


def layer(**more):
    return fastsnn.LIF(surrogate_function=Sigmoid(4.0), rho=RHO, beta=BETA, **NEURON, **more)


def gradient(outputs, x, weights):
    return torch.autograd.grad(sum((o * w).sum() for o, w in zip(outputs, weights, strict=True)), x)[0]


def main():
    fastsnn.use_backend("reference")
    torch.manual_seed(0)
    x = torch.randn(T, 4, 5, dtype=torch.float64).requires_grad_()
    weights = torch.randn_like(x), torch.randn_like(x[0])
    s, v, b = by_autograd(x)
    right = gradient((s, v), x, weights)

    whole = layer(step_mode="m")
    spikes = whole(x)
    assert torch.equal(spikes, s)
    assert s.mean() > 0.1
    torch.testing.assert_close(gradient((spikes, whole.v), x, weights), right)
    state = fastsnn.states(whole)[""]
    torch.testing.assert_close(state["adaptation"], b)

    each = layer()
    spikes = torch.stack([each(x_t) for x_t in x])
    assert torch.equal(spikes, s)
    torch.testing.assert_close(gradient((spikes, each.v), x, weights), right)

    parts = layer(step_mode="m")
    spikes = torch.cat([parts(x[:3]), parts(x[3:])])
    assert torch.equal(spikes, s)
    torch.testing.assert_close(gradient((spikes, parts.v), x, weights), right)

    each.eval()
    fastsnn.reset(each)
    with torch.no_grad():
        assert torch.equal(torch.stack([each(x_t) for x_t in x]), s)  # adaptation is part of the neuron, not of a trace

    found = fastsnn.functional.lif_sequence(x, surrogate_function=Sigmoid(4.0), rho=RHO, beta=BETA, **NEURON)
    assert torch.equal(found.spikes, s)
    torch.testing.assert_close(found.adaptation, b)


if __name__ == "__main__":
    main()
