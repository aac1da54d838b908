"""Folding EM-PF's membrane batch norm in networks, in memory and through a file."""

import copy
import json
import re

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import cli, deploy, models
from fastsnn.train import experiment

from ..cases import assert_same

T = 4
CHANNELS = 6
KERNELS = {"binary": fastsnn.BinaryConv2d, "float": nn.Conv2d}


@torch.no_grad()
def outputs(net, x):
    """Of every step."""
    fastsnn.reset(net)
    steps = torch.stack([net(x_t) for x_t in x])
    fastsnn.reset(net)
    return steps


def neurons(net, version="II"):
    return [module for module in net.modules() if isinstance(module, fastsnn.EMPF) and module.version == version]


@torch.no_grad()
def stirred(net):
    """A network that fires, and whose neurons of version II are far from version I."""
    means = {"alpha": 1, "beta": 0.5, "leak": 0.5, "threshold": 0.2, "weight": 1, "bias": 0}
    for module in net.modules():
        if isinstance(module, fastsnn.EMPF):
            for name, parameter in module.named_parameters():
                parameter.normal_(means[name], 0.3)
    return net


def trained(net, x, classes=10, batches=6):
    """The network after some batches, in evaluation mode: no statistics or parameters are at their start."""
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for _ in range(batches):
        noisy, y = x + 0.5 * torch.randn_like(x), torch.randint(classes, x.shape[1:2])
        fastsnn.online.train_batch(net, noisy, y, optimizer)
    for neuron in neurons(net):
        assert neuron.running_mean.abs().min() > 0
        assert neuron.beta.abs().min() > 0
    return net.eval()


def images(n=32):
    return torch.randn(n, 1, 8, 8).expand(T, n, 1, 8, 8)


@pytest.mark.parametrize("conv", KERNELS)
@pytest.mark.parametrize("seca", [None, "I", "II"])
@pytest.mark.parametrize("version", ["I", "II", "III"])
def test_folded_and_packed_equals_the_training_network(version, seca, conv):
    x = images()
    net = trained(stirred(models.digits_empf(T, version, seca, width=8, conv=KERNELS[conv])), x)
    folded = deploy.fold(net)
    assert not neurons(folded)
    assert len(neurons(folded, "I")) == (0 if version == "III" else 5)
    logits = outputs(net, x)
    assert logits.std(1).min() > 1e-3
    assert_same(outputs(deploy.pack(folded), x), logits, atol=1e-5)
    assert_same(outputs(deploy.fold(deploy.pack(net)), x), logits, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"parallel": True}, {"per_channel": True}, {"seca": "II"}, {"seca": "II", "stride": 2}],
    ids=str,
)
def test_blocks(options):
    x = torch.randn(T, 3, CHANNELS, 8, 8)
    block = stirred(models.EMPFBlock(CHANNELS, CHANNELS, T, version="II", conv=fastsnn.BinaryConv2d, **options))
    net = trained(nn.Sequential(block, nn.Flatten(), nn.LazyLinear(4)), x, classes=4)
    assert_same(outputs(deploy.pack(deploy.fold(net)), x), outputs(net, x), atol=1e-5)


def test_the_batch_norms_before_a_neuron_take_it_in():
    """All of them where their sum is the neuron's current; else one factor stands before the neuron."""
    net = deploy.fold(models.digits_empf(T, "II", width=8).eval())
    wide, same = net[3], net[4]
    for norm in (net[1], wide.bn1, wide.bn2, wide.shortcut[1], same.bn1):
        assert isinstance(norm, deploy.StepAffine)
    assert isinstance(wide.neuron2, fastsnn.EMPF)
    assert isinstance(same.bn2, nn.BatchNorm2d)
    assert isinstance(same.neuron2[0], deploy.StepAffine)
    attended = deploy.fold(models.EMPFBlock(8, 16, T, version="II", seca="I").eval())
    assert isinstance(attended.bn2, nn.BatchNorm2d)
    assert isinstance(attended.neuron2[0], deploy.StepAffine)
    attended = deploy.fold(models.EMPFBlock(8, 8, T, version="II", seca="II").eval())
    assert isinstance(attended.bn1, nn.BatchNorm2d)
    assert isinstance(attended.neuron1[0], deploy.StepAffine)


def test_a_sum_with_one_norm_that_cannot_take_it_in():
    x = torch.randn(T, 3, CHANNELS, 8, 8)
    block = stirred(models.EMPFBlock(CHANNELS, 8, T, version="II"))
    block.bn2 = nn.BatchNorm2d(8, track_running_stats=False)
    net = trained(nn.Sequential(block, nn.Flatten(), nn.LazyLinear(4)), x, classes=4)
    folded = deploy.fold(net)
    assert isinstance(folded[0].shortcut[1], nn.BatchNorm2d)
    assert_same(outputs(folded, x), outputs(net, x), atol=1e-5)


def unusual(name):
    """Networks for [3, CHANNELS] a step whose norm cannot take the neuron in, or has parts missing."""
    neuron = fastsnn.EMPF(T, "II", CHANNELS)
    norm = nn.BatchNorm1d(CHANNELS)
    return {
        "alone": lambda: neuron,
        "first": lambda: nn.Sequential(neuron, nn.Linear(CHANNELS, 3)),
        "norm without affine": lambda: nn.Sequential(nn.BatchNorm1d(CHANNELS, affine=False), neuron),
        "norm without statistics": lambda: nn.Sequential(
            nn.BatchNorm1d(CHANNELS, track_running_stats=False), neuron, nn.Linear(CHANNELS, 3)
        ),
        "norm used twice": lambda: nn.Sequential(norm, neuron, norm),
        "another layer between": lambda: nn.Sequential(norm, nn.Identity(), neuron),
    }[name]()


@pytest.mark.parametrize(
    "name",
    ["alone", "first", "norm without affine", "norm without statistics", "norm used twice", "another layer between"],
)
def test_other_surroundings(name):
    x = torch.randn(T, 9, CHANNELS)
    net = trained(stirred(unusual(name)), x, classes=3)
    folded = deploy.fold(net)
    assert not neurons(folded)
    assert_same(outputs(folded, x), outputs(net, x), atol=1e-5)


def test_sequence_mode():
    x = torch.randn(T, 9, CHANNELS, 2)
    net = stirred(nn.Sequential(fastsnn.EMPF(T, "II", CHANNELS, step_mode="m")))
    for _ in range(3):
        net(x)
        fastsnn.reset(net)
    net.eval()
    with torch.no_grad():
        expected = net(x)
        folded = deploy.fold(net)
        assert_same(folded(x), expected, atol=1e-5)
        with pytest.raises(RuntimeError, match=r"step 8 of steps = 4: call fastsnn\.reset"):
            folded(x)
        fastsnn.reset(folded)
        with pytest.raises(ValueError, match="x has T = 3 steps and this layer has parameters for steps = 4"):
            folded(x[:3])
        assert_same(folded(x), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_are_kept(dtype):
    x = torch.randn(T, 9, CHANNELS)
    net = trained(stirred(nn.Sequential(nn.BatchNorm1d(CHANNELS), fastsnn.EMPF(T, "II", CHANNELS))), x, classes=3)
    net = net.to(dtype)
    tolerance = {torch.float64: 1e-12, torch.bfloat16: 0.05}[dtype]
    assert_same(outputs(deploy.fold(net), x.to(dtype)), outputs(net, x.to(dtype)), atol=tolerance, rtol=tolerance)


def test_the_given_network_stays_as_it_was():
    x = images(4)
    net = trained(stirred(models.digits_empf(T, "II", width=4)), x)
    with torch.no_grad():
        net(x[0])
    before, states, text = copy.deepcopy(net.state_dict()), fastsnn.states(net), repr(net)
    folded = deploy.fold(net)
    assert repr(net) == text
    assert_same(list(net.state_dict().values()), list(before.values()))
    after = fastsnn.states(net)
    assert [state["t"] for state in after.values()] == [1] * len(states)
    assert_same([state["v"] for state in after.values()], [state["v"] for state in states.values()])
    assert all(state["t"] == 0 for state in fastsnn.states(folded).values())
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    assert_same(list(net.state_dict().values()), list(before.values()))


def test_training_mode_is_refused():
    net = models.digits_empf(T, "II", width=4).eval()
    net[3].bn1.train()
    with pytest.raises(ValueError, match=r"3\.bn1 in training mode; call net\.eval\(\) before folding"):
        deploy.fold(net)


def test_what_cannot_be_folded_is_named():
    class Noisy(fastsnn.EMPF):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sequential(Noisy(T, "II", 4))).eval()
    with pytest.raises(ValueError, match=r"1\.0 is Noisy, derived from fastsnn\.EMPF.*make the network with"):
        deploy.fold(net)
    for value in (torch.nan, torch.inf):
        net = models.digits_empf(T, "II", width=4).eval()
        net[4].neuron2.running_mean[2, 1] = value
        with pytest.raises(ValueError, match=r"4\.neuron2: parameters or statistics hold NaN or infinity"):
            deploy.fold(net)


@pytest.mark.parametrize("version", ["I", "II", "III"])
def test_through_a_file(version, tmp_path):
    pytest.importorskip("safetensors", reason="deployment files are safetensors files")

    def architecture():
        return models.digits_empf(T, version, "I", width=8, conv=fastsnn.BinaryConv2d)

    x, path = images(), tmp_path / "net.safetensors"
    net = trained(stirred(architecture()), x)
    packed = deploy.pack(deploy.fold(net))
    deploy.save(packed, path)
    assert deploy.read_header(path)["folded"] == (version == "II")
    fresh = architecture()
    loaded = deploy.load(path, fresh)
    assert fresh.training
    assert_same(outputs(loaded, x), outputs(packed, x))
    assert_same(outputs(loaded, x), outputs(net, x), atol=1e-5)
    other = models.digits_empf(T, "II" if version == "I" else "I", "I", width=8, conv=fastsnn.BinaryConv2d)
    with pytest.raises(deploy.DeployError, match="holds another network"):
        deploy.load(path, other)


@pytest.mark.parametrize(
    ("version", "seca"),
    [pytest.param("I", "none", marks=pytest.mark.slow), ("II", "II"), pytest.param("III", "I", marks=pytest.mark.slow)],
)
def test_export_and_load_of_a_run(version, seca, tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    pytest.importorskip("safetensors", reason="deployment files are safetensors files")
    config = experiment.Config(rule="empf", version=version, seca=seca, epochs=3, steps=2, batch_size=64)
    run = experiment.Experiment(config, tmp_path)
    assert run.run()
    file = tmp_path / "net.safetensors"
    assert cli.main(["export", str(tmp_path), "--out", str(file)]) == 0
    assert "x  1 bits" in capsys.readouterr().out
    x = run.data.test_x[:50].expand(2, -1, -1, -1, -1)
    loaded = deploy.load(file, experiment.Experiment(config, tmp_path).net)
    assert_same(outputs(loaded, x), outputs(run.net.eval(), x), atol=1e-5)
    assert cli.main(["load", str(file)]) == 0
    shown = float(re.search(r"test accuracy ([\d.]+) %", capsys.readouterr().out)[1])
    assert shown == pytest.approx(100 * run.progress.epochs[-1]["test_accuracy"], abs=0.3)


def test_a_run_that_cannot_be_folded_is_named(tmp_path, capsys):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    config = experiment.Config(rule="empf", version="II", epochs=1, steps=2)
    run = experiment.Experiment(config, tmp_path)
    run.net[2].running_var[0] = torch.nan
    run.save()
    assert cli.main(["export", str(tmp_path), "--out", str(tmp_path / "net.safetensors")]) == 1
    assert "cannot be folded and packed: 2: parameters or statistics hold NaN" in capsys.readouterr().err
    assert not (tmp_path / "net.safetensors").exists()
    assert json.loads((tmp_path / "config.json").read_text())["version"] == "II"
