"""Packing a network, its sizes, its file, folding, and the command line."""

import json
import runpy
import struct
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import cli, deploy, models
from fastsnn.train import experiment

from ..cases import assert_same

safetensors = pytest.importorskip("safetensors.torch", reason="deployment files are safetensors files")


def network():
    return nn.Sequential(
        nn.Conv2d(2, 20, 3, padding=1),
        fastsnn.LIF.for_rule("sltt"),
        fastsnn.BinaryConv2d(20, 40, 3, padding=1, stride=2, bias=False),
        nn.BatchNorm2d(40),
        fastsnn.LIF.for_rule("ottt"),
        fastsnn.BinaryConv2d(40, 24, 3, padding="same", scale=False),
        nn.ReLU(),
        nn.Flatten(),
        fastsnn.BinaryLinear(24 * 16, 30),
        nn.Linear(30, 4),
    )


@pytest.fixture
def trained():
    """A network that has seen a few batches, in evaluation mode; one of its layers has zero weights."""
    net = network()
    net[5].weight.data[:, ::3] = 0.0
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(8, 2, 8, 8))
    fastsnn.reset(net)
    return net.eval()


@torch.no_grad()
def outputs(net, frames):
    fastsnn.reset(net)
    return torch.stack([net(frame) for frame in frames])


def test_packed_equals_training_network(backend, trained):
    frames = torch.randn(4, 3, 2, 8, 8)
    assert_same(outputs(deploy.pack(trained), frames), outputs(trained, frames), atol=1e-5)


def test_what_is_packed_moves_with_the_network(trained):
    packed = deploy.pack(trained).to("meta").half()
    assert {buffer.device.type for layer in (packed[2], packed[8]) for buffer in layer.buffers()} == {"meta"}
    assert [layer.words.dtype for layer in (packed[2], packed[8])] == [torch.int32] * 2
    x = torch.empty(3, 24 * 16, dtype=torch.float16, device="meta")
    assert packed[8](x).shape == (3, 30)


def test_packing_leaves_the_network_as_it_was(trained):
    frame = torch.randn(1, 2, 8, 8)
    trained(frame)
    before, parameters = fastsnn.states(trained), {k: v.clone() for k, v in trained.state_dict().items()}
    packed = deploy.pack(trained)
    after = fastsnn.states(trained)
    assert after.keys() == before.keys()
    for name, state in before.items():
        assert_same(after[name]["potential"], state["potential"])
    assert_same(tuple(trained.state_dict().values()), tuple(parameters.values()))
    assert isinstance(trained[8], fastsnn.BinaryLinear)
    assert isinstance(packed[8], deploy.PackedLinear)
    assert_same(outputs(packed, frame.unsqueeze(0)), outputs(trained, frame.unsqueeze(0)), atol=1e-5)


def test_bits_are_chosen_and_reported(trained):
    packed = deploy.pack(trained)
    bits = {layer.name: layer.bits for layer in deploy.sizes(packed).layers}
    assert bits == {"0": 32, "2": 1, "5": 2, "8": 1, "9": 32}
    assert "bits=2" in repr(packed[5])
    assert "2 bits" in str(deploy.sizes(packed))


def test_a_single_layer():
    layer, x = fastsnn.BinaryLinear(6, 3).eval(), torch.randn(3, 6)
    assert_same(deploy.pack(layer)(x), layer(x).detach(), atol=1e-5)


def test_a_layer_used_twice_stays_one():
    layer = fastsnn.BinaryConv2d(3, 3, 3, padding_mode="circular", padding=1)
    net, x = nn.Sequential(layer, nn.Sequential(layer)).eval(), torch.randn(2, 3, 5, 6)
    packed = deploy.pack(net)
    assert packed[0] is packed[1][0]
    assert_same(packed(x), net(x).detach(), atol=1e-5)


def resnet18():
    """The synapses of ResNet-18 for CIFAR-10 (He et al. 2016): all but the first and the last are binary."""
    layers, inputs = [nn.Conv2d(3, 64, 3, bias=False)], 64
    for outputs in (64, 128, 256, 512):
        layers += [fastsnn.BinaryConv2d(inputs, outputs, 3, bias=False)]
        layers += [fastsnn.BinaryConv2d(outputs, outputs, 3, bias=False) for _ in range(3)]
        if inputs != outputs:
            layers.append(fastsnn.BinaryConv2d(inputs, outputs, 1, bias=False))
        inputs = outputs
    return nn.ModuleList([*layers, nn.Linear(512, 10)])


@pytest.mark.parametrize(("bits", "megabytes"), [(2, 2.82), (1, 1.42)])
def test_memory_of_resnet18(bits, megabytes):
    """EM-PF's table 2 says 2.82 MB; it counts 2 bits a binary weight and no norms."""
    net = resnet18().eval()
    for layer in net:
        if bits == 2 and isinstance(layer, fastsnn.BinaryConv2d):
            layer.weight.data.view(-1)[0] = 0.0
    sizes = deploy.sizes(deploy.pack(net))
    assert round(sizes.weight_bytes / 1e6, 2) == megabytes
    # scales, 4 bytes an output, are all that comes on top: no padding in these shapes
    outputs = sum(len(layer.weight) for layer in net if isinstance(layer, fastsnn.BinaryConv2d))
    assert sizes.stored_bytes - sizes.weight_bytes == 4 * (outputs + 10)


def test_weights_of_one_bit_are_32_times_smaller():
    layer = fastsnn.BinaryLinear(4096, 64, bias=False).eval()
    assert 32 * deploy.pack(layer).words.nbytes == layer.weight.nbytes


def test_training_mode_is_refused(trained):
    trained[3].train()
    with pytest.raises(ValueError, match=r"3 in training mode; call net.eval\(\)"):
        deploy.pack(trained)
    with pytest.raises(ValueError, match="training mode"):
        deploy.pack(fastsnn.BinaryLinear(2, 2))


def test_refusals_name_the_layer(trained):
    trained[8].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="8: weight holds NaN"):
        deploy.pack(trained)
    with pytest.raises(ValueError, match="BinaryConv2d: groups is 2"):
        deploy.pack(fastsnn.BinaryConv2d(4, 4, 3, groups=2).eval())


@pytest.fixture
def file(trained, tmp_path):
    path = tmp_path / "net.safetensors"
    deploy.save(deploy.pack(trained), path, {"about": "a test"})
    return path


def test_a_file_gives_the_network_back(file, trained):
    frames, fresh = torch.randn(3, 1, 2, 8, 8), network()
    loaded = deploy.load(file, fresh)
    assert_same(outputs(loaded, frames), outputs(deploy.pack(trained), frames))
    assert isinstance(fresh[8], fastsnn.BinaryLinear)
    header = deploy.read_header(file)
    assert header["notes"] == {"about": "a test"}
    assert header["layers"] == {"2": 1, "5": 2, "8": 1}


def rewritten(path, **changes):
    """The file with other header entries."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] |= changes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_bad_files(file):
    whole = file.read_bytes()
    cases = {
        "not a whole": lambda: file.write_bytes(whole[:-1]),
        "whole safetensors": lambda: file.write_bytes(whole[:100]),
        "altered": lambda: flipped(file, -1),
        "checksum": lambda: rewritten(file, notes="{}"),
        "has version 2": lambda: rewritten(file, version="2"),
        "no packed network": lambda: rewritten(file, format="other"),
        "does not exist": file.unlink,
    }
    for message, spoil in cases.items():
        file.write_bytes(whole)
        spoil()
        with pytest.raises(deploy.DeployError, match=message):
            deploy.load(file, network())
    file.write_bytes(whole)
    deploy.load(file, network())


def test_another_network_is_refused(file):
    other = network()
    other[0] = nn.Conv2d(2, 20, 5, padding=2)
    with pytest.raises(deploy.DeployError, match="another network"):
        deploy.load(file, other)
    with pytest.raises(deploy.DeployError, match="has binary layers"):
        deploy.load(file, network()[:5])


def test_only_packed_networks_are_saved_and_nothing_is_lost(file, trained):
    before = file.read_bytes()
    with pytest.raises(deploy.DeployError, match="2, 5, 8 not packed"):
        deploy.save(trained, file)
    assert file.read_bytes() == before


def membrane_norm_step(v, x, leak, threshold, alpha, beta, norm, eps):
    """equations/empf.md, version II in evaluation; [N, channels]."""
    gamma, shift, mean, var = norm
    m = leak * v + x
    mh = alpha * m + beta * (gamma * (m - mean) / torch.sqrt(var + eps) + shift)
    s = torch.where(mh >= threshold, mh - threshold, 0.0)
    return s, mh - s


def test_folding_the_membrane_norm():
    """Three steps of version II behind a batch norm, against the folded form of equations/empf.md."""
    channels, eps = 5, 1e-5
    torch.set_default_dtype(torch.float64)
    try:
        weight, bias = torch.randn(2, channels)
        v = folded_v = torch.zeros(7, channels)
        for _ in range(3):
            leak, threshold, alpha, beta = torch.rand(4) + 0.2
            norm = (torch.randn(channels), torch.randn(channels), torch.randn(channels), torch.rand(channels) + 0.1)
            normed = 3 * torch.randn(7, channels)
            s, v = membrane_norm_step(v, weight * normed + bias, leak, threshold, alpha, beta, norm, eps)

            folded = deploy.fold_membrane_norm(leak, threshold, alpha, beta, norm, eps, weight, bias)
            m = folded.leak * folded_v + folded.weight * normed + folded.bias
            folded_s = torch.where(m >= folded.threshold, m - folded.threshold, 0.0)
            folded_v = m - folded_s - folded.offset

            assert 0.1 < (s > 0).double().mean() < 0.9
            assert_same((folded_s, folded_v), (s, v), atol=1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


def test_streaming_example(tmp_path, capsys):
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "streaming.py"))
    sums = example["main"](tmp_path / "net.safetensors")
    assert "ms a frame" in capsys.readouterr().out
    torch.manual_seed(0)
    net, frames = example["network"]().eval(), torch.randn(50, 2, 32, 32)
    # a potential at the threshold may round to either side: most frames are equal, not all of them must be
    near = torch.isclose(sums, example["stream"](net, frames), atol=1e-3).all(1)
    assert near[:5].all()
    assert near.float().mean() > 0.5


_digits_conv = models.digits_conv


def binary_digits(rule, classes, mpdr=None):
    """models.digits_conv with binary synapses between the first and the last."""
    net = _digits_conv(rule, classes)
    for i, (inputs, outputs) in {3: (32, 64), 7: (64, 64)}.items():
        net[i] = nn.Sequential(fastsnn.BinaryConv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
    return net


def test_export_and_load_of_a_run(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.setattr(experiment.models, "digits_conv", binary_digits)
    run = experiment.Experiment(experiment.Config(rule="sltt", epochs=1, steps=2, batch_size=256), tmp_path)
    assert run.run()
    file = tmp_path / "net.safetensors"
    assert cli.main(["export", str(tmp_path), "--out", str(file)]) == 0
    assert "x  1 bits" in capsys.readouterr().out
    assert deploy.read_header(file)["notes"] == {"config": asdict(run.config)}
    assert cli.main(["load", str(file)]) == 0
    accuracy = run.progress.epochs[-1]["test_accuracy"]
    assert f"test accuracy {100 * accuracy:.2f} %" in capsys.readouterr().out
    flipped(file, -1)
    assert cli.main(["load", str(file)]) == 1
    assert "was altered" in capsys.readouterr().err


class Derived(fastsnn.BinaryLinear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked_layer():
    layer = fastsnn.BinaryConv2d(3, 4, 3)
    layer.register_forward_pre_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Derived(3, 4), r"0\.0 is Derived, derived from a binary layer"),
        (lambda: nn.utils.parametrizations.weight_norm(fastsnn.BinaryLinear(3, 4)), "is ParametrizedBinaryLinear"),
        (hooked_layer, r"0\.0 has forward hooks"),
    ],
    ids=["derived", "parametrized", "hooked"],
)
def test_what_packing_would_lose_is_refused(make, message, tmp_path):
    net = nn.Sequential(nn.Sequential(make())).eval()
    with pytest.raises(TypeError, match=message):
        deploy.pack(net)
    with pytest.raises(deploy.DeployError, match="not packed"):
        deploy.save(net, tmp_path / "net")
