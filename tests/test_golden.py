"""Networks of the public API against numbers from the papers' released code (golden/README.md)."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastsnn

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """One file's numbers, and the network they belong to with the initial parameters."""

    def __init__(self, rule):
        self.data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{rule}.npz").items()}
        layers = OrderedDict(
            conv1=fastsnn.WSConv2d(3, 8, 3, padding=1),
            lif1=fastsnn.LIF.for_rule(rule),
            scale1=fastsnn.Scale(),
            pool1=nn.AvgPool2d(2),
            conv2=fastsnn.WSConv2d(8, 10, 3, padding=1),
            lif2=fastsnn.LIF.for_rule(rule),
            scale2=fastsnn.Scale(),
            pool2=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            fc=nn.Linear(40, 5),
        )
        self.net = nn.Sequential(layers).double()
        self.net.load_state_dict(self["param"])

    def __getitem__(self, prefix):
        return {key.removeprefix(f"{prefix}/"): value for key, value in self.data.items() if key.startswith(prefix)}

    def batches(self):
        return zip(self.data["x"], self.data["y"], strict=True)


@pytest.fixture(params=["ottt", "ndot_released"])
def golden(request):
    return Golden(request.param)


def loss(logits, y, steps):
    target = F.one_hot(y, logits.shape[1]).to(logits)
    return (0.95 * F.cross_entropy(logits, y) + 0.05 * F.mse_loss(logits, target)) / steps


def assert_near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def test_every_step(golden):
    x, _ = next(golden.batches())
    for t, x_t in enumerate(x):
        assert_near(golden.net(x_t).detach(), golden.data[f"logits/{t}"])
        for layer, lif in enumerate((golden.net.lif1, golden.net.lif2)):
            assert_near(lif.v, golden.data[f"v/{layer}/{t}"])
            assert_near(lif.trace, golden.data[f"trace/{layer}/{t}"])


def test_accumulated_gradients(golden):
    x, y = next(golden.batches())
    for x_t in x:
        loss(golden.net(x_t), y, len(x)).backward()
    assert_near({name: p.grad for name, p in golden.net.named_parameters()}, golden["grad"])


def test_online_training_then_evaluation(golden):
    optimizer = torch.optim.SGD(golden.net.parameters(), lr=0.1, momentum=0.9)
    for x, y in golden.batches():
        fastsnn.reset(golden.net)
        for x_t in x:
            optimizer.zero_grad()
            loss(golden.net(x_t), y, len(x)).backward()
            optimizer.step()
    assert_near(golden.net.state_dict(), OrderedDict(golden["online"]))

    fastsnn.reset(golden.net.eval())
    with torch.no_grad():
        assert_near(sum(map(golden.net, golden.data["x"][0])), golden.data["eval_logits"])


class GoldenOSR:
    """The two batches of golden/osr.npz and the layer they belong to."""

    def __init__(self):
        self.data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / "osr.npz").items()}
        self.layer = fastsnn.OSR2d(5, 4, eps=float(self.data["eps"]), momentum=float(self.data["momentum"])).double()
        names = {"weight": "gamma", "bias": "beta", "running_mean": "run_mean0", "running_var": "run_var0"}
        self.layer.load_state_dict({name: self.data[key] for name, key in names.items()}, strict=False)

    def step(self, batch, t):
        """y and the gradients of x, weight and bias."""
        x = self.data[f"x/{batch}/{t}"].clone().requires_grad_()
        y = self.layer(x)
        inputs = (x, self.layer.weight, self.layer.bias)
        return y.detach(), *torch.autograd.grad(y, inputs, self.data[f"gy/{batch}/{t}"])

    def expected(self, batch, t):
        return tuple(self.data[f"{name}/{batch}/{t}"] for name in ("y", "gx", "ggamma_paper", "gbeta"))


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_osr(name):
    golden = GoldenOSR()
    with fastsnn.use_backend(name):
        for batch in range(2):
            assert_near(golden.layer.running_mean, golden.data[f"run_mean_used/{batch}"])
            assert_near(golden.layer.running_var, golden.data[f"run_var_used/{batch}"])
            for t in range(4):
                assert_near(golden.step(batch, t), golden.expected(batch, t))
    assert_near(golden.layer.running_mean, golden.data["run_mean_after"])
    assert_near(golden.layer.running_var, golden.data["run_var_after"])


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_ots(name):
    data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / "ots.npz").items()}
    settings = {"tau": float(data["tau"]), "v_threshold": float(data["v_threshold"])}
    neuron, thresholds = fastsnn.LIF.for_rule("ottt", threshold="ots", **settings), []
    neuron.stabilizer.register_forward_hook(lambda _, __, threshold: thresholds.append(threshold))
    with fastsnn.use_backend(name):
        for t in range(4):
            x = data[f"x/{t}"].clone().requires_grad_()
            s = neuron(x)
            assert_near(s.spikes.detach(), data[f"s/{t}"])
            assert_near(thresholds[t], data[f"threshold/{t}"])
            assert_near(neuron.v, data[f"v/{t}"])
            assert_near(torch.autograd.grad(s.spikes, x, data[f"gs/{t}"])[0], data[f"gx/{t}"])
