"""EM-PF layers: EMPF, SECA, residual blocks, state, errors and training."""

import copy
import pickle

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import online
from fastsnn.models import EMPFBlock

from ..cases import assert_same

T, C = 4, 6
VERSIONS = ["I", "II", "III"]


def neuron(version="I", **kwargs):
    layer = fastsnn.EMPF(T, version, C, threshold=0.3, **kwargs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.rand(parameter.shape))
    return layer


def run(net, x):
    return torch.stack([net(x_t) for x_t in x])


def images(n=3):
    return torch.randn(T, n, C, 5, 5)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_sequence_mode_equals_the_steps(version, per_channel):
    steps, x = neuron(version, per_channel=per_channel), images()
    fused = copy.deepcopy(steps)
    fused.step_mode = "m"
    outcomes = []
    for layer, call in ((steps, run), (fused, lambda layer, x: layer(x))):
        given = x.clone().requires_grad_()
        spikes = call(layer, given)
        spikes.square().sum().backward()
        outcomes.append((spikes.detach(), given.grad, dict(layer.named_buffers()), layer.v))
        outcomes[-1][2].update({name: p.grad for name, p in layer.named_parameters()})
    assert_same(outcomes[1][:2], outcomes[0][:2])
    for name, value in outcomes[0][2].items():
        torch.testing.assert_close(outcomes[1][2][name], value)
    assert_same(outcomes[1][3], outcomes[0][3])


def test_starts_as_version_i():
    x = images()
    assert_same(run(fastsnn.EMPF(T, "II", C), x), run(fastsnn.EMPF(T, "I"), x))


def test_every_step_has_its_own_leak_and_threshold():
    layer = fastsnn.EMPF(2, leak=0.0)
    with torch.no_grad():
        layer.leak[1], layer.threshold[:] = 0.5, torch.tensor([1.0, 2.0])
    layer(torch.tensor([0.75, 1.5]))
    assert_same(layer(torch.tensor([2.0, 1.0])), torch.tensor([0.375, 0.0]))
    assert_same(layer.v, torch.tensor([2.0, 1.5]))


def test_running_statistics_follow_those_of_batch_norm():
    layer, x = neuron("II"), images()
    norms = [nn.BatchNorm2d(C) for _ in range(T)]
    with torch.no_grad():
        v = torch.zeros_like(x[0])
        for t in range(T):
            norms[t](layer.leak[t] * v + x[t])
            layer(x[t])
            v = layer.v
    torch.testing.assert_close(layer.running_mean, torch.stack([norm.running_mean for norm in norms]))
    torch.testing.assert_close(layer.running_var, torch.stack([norm.running_var for norm in norms]))


def test_evaluation_takes_the_running_statistics_of_each_step():
    layer, x = neuron("II"), images()
    run(layer, x)
    layer.eval().reset()
    before = {name: value.clone() for name, value in layer.named_buffers()}
    one_by_one = []
    for i in range(x.shape[1]):
        layer.reset()
        one_by_one.append(run(layer, x[:, i : i + 1]))
    layer.reset()
    assert_same(run(layer, x), torch.cat(one_by_one, 1))
    assert_same([*dict(layer.named_buffers()).values()], [*before.values()])


@pytest.mark.parametrize("version", VERSIONS)
def test_state_is_saved_restored_copied_and_reset(version):
    net, x = nn.Sequential(nn.Conv2d(C, C, 1), neuron(version)).eval(), images()
    with torch.no_grad():
        whole = run(net, x)
        fastsnn.reset(net)
        run(net, x[:2])
        saved = fastsnn.states(net)
        assert saved["1"]["t"] == 2
        twin, pickled = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        for other in (net, twin, pickled):
            assert_same(run(other, x[2:]), whole[2:])
        fastsnn.load_states(net, saved)
        fastsnn.detach(net)
        assert_same(run(net, x[2:]), whole[2:])
    assert not any("v" in name.split(".") for name in net.state_dict())


def test_moving_the_layer_moves_its_state():
    layer, x = neuron(), images()
    layer(x[0])
    layer.double()
    assert layer.v.dtype == torch.float64
    assert layer(x[1].double()).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_state_in_float32(dtype):
    layer = neuron("II").to(dtype)
    x = images().to(dtype).requires_grad_()
    spikes = run(layer, x)
    spikes.sum().backward()
    assert (spikes.dtype, layer.v.dtype, x.grad.dtype) == (dtype, torch.float32, dtype)
    assert layer.leak.grad.dtype == dtype


def test_a_step_saves_no_more_than_the_potentials():
    layer, x = fastsnn.EMPF(T), images().requires_grad_()
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        layer(x[0])
        held.clear()
        before = layer.state.v
        layer(x[1])
    large = [t for t in held if t.numel() == x[0].numel()]
    assert {t.data_ptr() for t in large} == {before.data_ptr(), layer.state.v.data_ptr()}


@pytest.mark.parametrize("version", VERSIONS)
def test_channels_last_stays_channels_last(version):
    layer, x = neuron(version), images()[0]
    x = x.to(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("version", VERSIONS)
def test_wrong_number_of_steps(version):
    layer = neuron(version, step_mode="m")
    with pytest.raises(ValueError, match=r"T = 3 steps .* steps = 4"):
        layer(images()[:3])
    layer(images())
    with pytest.raises(RuntimeError, match=r"step 8 of steps = 4: call fastsnn.reset"):
        layer(images())
    layer.step_mode = "s"
    with pytest.raises(RuntimeError, match=r"step 5 of steps = 4: call fastsnn.reset"):
        layer(images()[0])
    fastsnn.reset(layer)
    layer(images()[0])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.0}, "steps is 2.0"),
        ({"steps": 2, "version": "IV"}, "version is 'IV'"),
        ({"steps": 2, "version": "II"}, "channels is None"),
        ({"steps": 2, "per_channel": True}, "channels is None"),
        ({"steps": 2, "channels": 0}, "channels is 0"),
        ({"steps": 2, "leak": float("nan")}, "leak is NaN"),
        ({"steps": 2, "threshold": float("nan")}, "threshold is NaN"),
        ({"steps": 2, "step_mode": "x"}, "step_mode is 'x'"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=named):
        fastsnn.EMPF(**arguments)


def test_bad_inputs():
    layer, x = neuron("II"), images()
    with pytest.raises(TypeError, match=r"int64.*x.float\(\)"):
        layer(x[0].long())
    with pytest.raises(ValueError, match="has 6 channels and x of shape"):
        layer(x[0, :, :5])
    with pytest.raises(ValueError, match="more than one value a channel"):
        layer(x[0, :1, :, :1, :1])
    with pytest.raises(ValueError, match=r"needs \[N, C, \*\]"):
        layer(x[0, 0, 0, 0])
    assert layer.state.t == 0
    layer(x[0])
    kept = layer.v
    with pytest.raises(ValueError, match=r"state v is \(3, 6, 5, 5\).*fastsnn\.reset\(net\)"):
        layer(x[1, :2])
    assert layer.v is kept


def test_explain_names_the_backend():
    assert "cpu: runs" in neuron().explain()


@pytest.mark.parametrize("size", [1, 3, 5])
def test_seca_is_its_formula(size):
    layer, x = fastsnn.SECA(C, size), images()[0]
    weight = layer.attend.weight.detach().view(-1)
    means = nn.functional.pad(x.mean((2, 3)), (size // 2, size // 2))
    attention = torch.stack([(weight * means[:, c : c + size]).sum(1) for c in range(C)], 1).sigmoid()
    torch.testing.assert_close(layer(x), attention[..., None, None] * x)


def test_seca_ii_attends_to_the_sum_with_what_the_convolution_takes():
    layer, x, current = fastsnn.SECA(C, version="II"), *images()[:2]
    one = fastsnn.SECA(C)
    one.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(current, x), one(x + current))


def test_seca_refuses_inputs_that_its_version_does_not_take():
    x = images()[0]
    for layer, inputs in ((fastsnn.SECA(C), (x, x)), (fastsnn.SECA(C, version="II"), (x,))):
        with pytest.raises(ValueError, match=r"SECA 'II' takes seca\(bn\(conv\(x\)\), x\)"):
            layer(*inputs)
    with pytest.raises(ValueError, match="changes the shape"):
        fastsnn.SECA(C, version="II")(x, x[..., :1])
    with pytest.raises(ValueError, match=rf"must be \[N, {C}, H, W\]"):
        fastsnn.SECA(C)(x[:, :1])
    with pytest.raises(ValueError, match="channels is 0"):
        fastsnn.SECA(0)


@pytest.mark.parametrize("size", [0, 2, 4, -1, 3.0])
def test_seca_refuses_an_even_kernel(size):
    with pytest.raises(ValueError, match=f"kernel_size is {size!r}; it must be odd"):
        fastsnn.SECA(C, size)


def test_seca_refuses_an_unknown_version():
    with pytest.raises(ValueError, match="version is 'III'"):
        fastsnn.SECA(C, version="III")


class Counted(nn.Conv2d):
    """A convolution class of one's own."""


@pytest.mark.parametrize("seca", [None, "I", "II"])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_is_the_sum_of_branch_and_shortcut(stride, seca):
    block = EMPFBlock(C, C, T, stride, seca=seca, threshold=0.1).eval()
    twin, x = copy.deepcopy(block), images()
    attend = fastsnn.SECA(C)  # of whichever weights
    for x_t in x:
        first = twin.bn1(twin.conv1(x_t))
        if seca == "II" and stride == 1:
            attend.load_state_dict(twin.seca1.state_dict())
            first = attend(x_t + first)
        inner = twin.neuron1(first)
        current = twin.bn2(twin.conv2(inner))
        if seca:
            attend.load_state_dict(twin.seca.state_dict())
            current = attend(current + inner if seca == "II" else current)
        expected = twin.neuron2(current + (x_t if stride == 1 else twin.shortcut(x_t)))
        assert_same(block(x_t), expected)
        assert expected.any()


@pytest.mark.parametrize("stride", [1, 2])
def test_attention_adds_its_kernels_alone(stride):
    """Table 3 of the paper: SECA-II's convolution is the block's own."""
    count = {seca: sum(p.numel() for p in EMPFBlock(C, C, T, stride, seca=seca).parameters()) for seca in (None, "II")}
    assert count["II"] - count[None] == (6 if stride == 1 else 3)


@pytest.mark.parametrize(("parallel", "inner"), [(False, "I"), (True, "III")])
def test_parallel_block_has_a_neuron_without_state_inside(parallel, inner):
    block = EMPFBlock(C, 2 * C, T, version="I", parallel=parallel, conv=Counted)
    assert (block.neuron1.version, block.neuron2.version) == (inner, "I")
    assert sum(isinstance(module, Counted) for module in block.modules()) == 3
    assert block(images()[0]).shape == (3, 2 * C, 5, 5)


def network(version, seca=None):
    torch.manual_seed(0)
    block = EMPFBlock(C, C, T, version=version, seca=seca, threshold=0.1)
    return nn.Sequential(nn.Conv2d(1, C, 3), block, nn.Flatten(), nn.Linear(9 * C, 3))


def batch():
    return torch.randn(T, 6, 1, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("mode", ["O", "A"])
@pytest.mark.parametrize("version", VERSIONS)
def test_training_lowers_the_loss_and_moves_every_parameter(version, mode):
    net = network(version, "II")
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    x, y = batch()
    losses = [online.train_batch(net, x, y, optimizer, mode=mode).loss for _ in range(12)]
    assert losses[-1] < losses[0]
    still = [name for name, value in net.named_parameters() if torch.equal(value, before[name])]
    assert not still


@pytest.mark.parametrize("version", ["I", "II"])
def test_random_back_propagation_moves_the_drawn_step_alone(version):
    net, (x, y) = network(version), batch()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    generator = torch.Generator().manual_seed(2)
    drawn = int(torch.randperm(T, generator=torch.Generator().manual_seed(2))[0])
    online.train_batch(net, x, y, optimizer, mode="A", backward_steps=1, generator=generator)
    moved = (net[1].neuron2.threshold != before["1.neuron2.threshold"]).tolist()
    assert moved == [t == drawn for t in range(T)]
    if version == "II":
        assert (net[1].neuron2.running_mean != before["1.neuron2.running_mean"]).any(1).all()


@pytest.mark.parametrize("mode", ["O", "A"])
def test_nan_weights_stop_the_training_and_nothing_is_lost(mode):
    net, (x, y) = network("I"), batch()
    with torch.no_grad():
        net[1].conv1.weight[0, 0, 0, 0] = torch.nan
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 1 of 4.*no update"):
        online.train_batch(net, x, y, optimizer, mode=mode)
    for name, parameter in net.named_parameters():
        assert_same(parameter.detach(), before[name], equal_nan=True)


@pytest.mark.parametrize("steps", [T - 1, T + 1])
def test_training_with_another_number_of_steps_is_refused(steps):
    net, (x, y) = network("II"), batch()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(ValueError, match=rf"x has T = {steps} steps and \S+ has parameters for steps = {T}"):
        online.train_batch(net, [x[0]] * steps, y, optimizer)
    assert_same([*net.state_dict().values()], [*before.values()])
