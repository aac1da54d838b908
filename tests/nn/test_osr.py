"""OSR as a layer: against BatchNorm, in and out of sequences, bad input, folding, conversion, fused with a neuron."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import backends
from fastsnn.backends import cpu
from fastsnn.nn.osr import OSR, OSRState, VanillaBN

from ..cases import LAYOUTS, ONLINE, assert_same, current
from . import ddp_osr_worker

LAYERS = {fastsnn.OSR1d: (6, 5), fastsnn.OSR2d: (6, 5, 4, 3), fastsnn.OSR3d: (6, 5, 2, 3, 2)}
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def statistics(osr):
    return osr.running_mean.clone(), osr.running_var.clone(), int(osr.num_batches_tracked)


def moments(x):
    """Mean and biased variance of every channel of steps [T, N, C, *], in float64."""
    rows = x.double().flatten(0, 1).transpose(0, 1).flatten(1)
    return rows.mean(1), rows.var(1, correction=0)


def folded(x, momentum=0.9):
    """Running statistics of a fresh layer after the sequence x."""
    mean, var = moments(x)
    return ((1 - momentum) * mean).float(), (momentum + (1 - momentum) * var).float()


def run(net, x):
    return [net(x_t) for x_t in x]


@pytest.mark.parametrize("layer", LAYERS)
def test_statistics_are_folded_in_after_the_last_step(layer):
    x, osr = current(3, *LAYERS[layer]), layer(5, 3)
    before = statistics(osr)
    run(osr, x[:2])
    assert_same(statistics(osr), before)
    osr(x[2])
    assert_same(statistics(osr)[:2], folded(x), **CLOSE)
    assert osr.num_batches_tracked == 1
    assert osr.state == OSRState()


def test_training_normalises_as_evaluation_does():
    x, osr = current(2, 6, 5, 4), fastsnn.OSR1d(5, 2)
    run(osr, x)
    trained = osr(x[0]).detach()
    assert_same(osr.eval()(x[0]).detach(), trained)
    with torch.no_grad():
        assert_same(osr(x[0]), trained)


def test_vanilla_is_batch_norm_of_every_step():
    x, g = current(6, 5, 4, 3), torch.randn(6, 5, 4, 3)
    results = []
    for norm in (fastsnn.OSR2d(5, 2, max_ratio=0.0), nn.BatchNorm2d(5, eps=1e-4)):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        results.append((y.detach(), *torch.autograd.grad(y, (leaf, norm.weight, norm.bias), g)))
    assert_same(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("scale", "falls_back"), [(19.0, False), (21.0, True), (1 / 19, False), (1 / 21, True)])
def test_one_channel_beyond_the_ratio_takes_the_whole_layer_back_to_its_own_statistics(scale, falls_back):
    x = torch.randn(64, 3, 16)
    x = (x - x.mean((0, 2), keepdim=True)) / x.std((0, 2), keepdim=True)
    x[:, 1] *= scale
    y = fastsnn.OSR1d(3, 2, max_ratio=20.0)(x)
    own = nn.functional.batch_norm(x, None, None, training=True, eps=1e-4)
    running = x / (1 + 1e-4) ** 0.5
    assert_same(y.detach(), own if falls_back else running, rtol=1e-4, atol=1e-5)
    assert_same(fastsnn.OSR1d(3, 2, max_ratio=None)(x).detach(), running, rtol=1e-5, atol=1e-5)


def test_a_small_input_is_beyond_the_ratio():
    """Released code: batch statistics where max(std/run, run/std) > 20."""
    y = fastsnn.OSR1d(1, steps=2)(torch.tensor([[0.01], [-0.01]]))
    assert_same(y.detach(), torch.tensor([[1.0], [-1.0]]) * 0.5**0.5, rtol=1e-5)


def test_vanilla_bn_of_the_paper():
    """Zhu et al. 2024, appendix C: each step by its own statistics, the running ones once a sequence."""
    x, norm, osr = 3 * current(4, 6, 5, 4) + 1, VanillaBN(5, 4), fastsnn.OSR1d(5, 4)
    x[1] += 2.0
    mean, var = x.double().mean((1, 3)), x.double().var((1, 3), correction=0)  # [T, C]
    for x_t in x:
        y = norm(x_t)
        osr(x_t)
        expected = nn.functional.batch_norm(x_t, None, None, training=True, eps=1e-4)
        assert_same(y.detach(), expected, rtol=1e-5, atol=1e-5)
    assert_same(norm.running_mean, (0.1 * mean.mean(0)).float(), **CLOSE)
    assert_same(norm.running_var, (0.9 + 0.1 * var.mean(0)).float(), **CLOSE)
    assert_same(norm.running_mean, osr.running_mean)
    assert (norm.running_var < osr.running_var).all()


def test_a_sequence_that_ends_early_loses_nothing():
    x, osr = current(2, 6, 5, 4), fastsnn.OSR1d(5, 8)
    run(osr, x)
    fastsnn.reset(osr)
    assert_same(statistics(osr)[:2], folded(x), **CLOSE)
    after = statistics(osr)
    fastsnn.reset(osr)
    assert_same(statistics(osr), after)


def test_a_sequence_that_goes_on_counts_nothing_twice():
    x, late, split = current(5, 6, 5, 4), fastsnn.OSR1d(5, 3), fastsnn.OSR1d(5, 3)
    run(late, x)
    fastsnn.reset(late)
    for part in (x[:3], x[3:]):
        run(split, part)
        fastsnn.reset(split)
    assert_same(statistics(late), statistics(split))
    assert late.num_batches_tracked == 2


def test_a_step_after_reset_is_the_first_of_a_sequence():
    x, osr = current(4, 6, 5, 4), fastsnn.OSR1d(5, 3)
    osr(x[0])
    fastsnn.reset(osr)
    before = statistics(osr)
    run(osr, x[1:3])
    assert_same(statistics(osr), before)
    osr(x[3])
    assert osr.num_batches_tracked == before[2] + 1


def test_evaluation_leaves_statistics_and_state_alone():
    x, osr = current(3, 6, 5, 4), fastsnn.OSR1d(5, 3)
    osr(x[0])
    before, state = statistics(osr), osr.state
    run(osr.eval(), x)
    assert_same(statistics(osr), before)
    assert osr.state is state


def test_saved_states_resume_a_sequence():
    x, osr = current(3, 6, 5, 4), fastsnn.OSR1d(5, 3)
    other = copy.deepcopy(osr)
    run(osr, x)
    run(other, x[:2])
    saved = fastsnn.states(other)
    other.state = OSRState()
    fastsnn.load_states(other, saved)
    other(x[2])
    assert_same(statistics(other), statistics(osr))


def test_a_thousand_steps_of_a_large_mean():
    osr, x = fastsnn.OSR1d(4, 1000, momentum=0.0), 1e4 + torch.randn(1000, 8, 4)
    run(osr, x)
    assert_same(osr.running_var, moments(x)[1].float(), rtol=1e-4)
    assert (osr.running_var > 0).all()


@pytest.mark.parametrize("momentum", [0, 1, None, 0.3], ids=str)
def test_a_fold_by_a_kernel_is_that_of_a_reset(momentum):
    """The sequence of a step that ends it, and one that a reset ends: the same bits, and a write that autograd sees."""
    x, layers = current(3, 6, 5, 4), [fastsnn.OSR1d(5, steps, momentum=momentum) for steps in (3, 9)]
    for layer in layers:
        for _ in range(2):
            version = layer.running_mean._version
            run(layer, x)
            fastsnn.reset(layer)
            assert layer.running_mean._version > version
            assert layer.running_var._version > version
    assert_same(statistics(layers[0]), statistics(layers[1]))


def test_late_backwards_take_the_statistics_of_their_own_forward():
    x, g = current(2, 6, 5, 4), torch.randn(6, 5, 4)
    grads = []
    for wait in (False, True):
        osr, leaf = fastsnn.OSR1d(5, 1).double(), x[0].double().requires_grad_()
        y = osr(leaf)
        if wait:
            osr(x[1].double())
        grads.append(torch.autograd.grad(y, (leaf, osr.weight, osr.bias), g.double()))
    assert_same(grads[1], grads[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_strict_raises_and_keeps_the_statistics(bad):
    x = current(3, 6, 5, 4)
    x[1, 2, 3, 1] = bad
    strict, loose = fastsnn.OSR1d(5, 2, strict=True), fastsnn.OSR1d(5, 2)
    strict(x[0])
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        strict(x[1])
    strict(x[2])
    assert_same(statistics(strict)[:2], folded(x[[0, 2]]), **CLOSE)
    run(loose, x[:2])
    batch_norm = nn.BatchNorm1d(5)
    run(batch_norm, x[:2])
    for name in ("running_mean", "running_var"):
        finite = getattr(loose, name).isfinite()
        assert finite.tolist() == [True, True, True, False, True]
        assert_same(finite, getattr(batch_norm, name).isfinite())


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1)], ids=str)
def test_one_element_a_channel_raises_in_training_alone(shape):
    osr, x = fastsnn.OSR1d(5, 2), torch.ones(shape)
    with pytest.raises(ValueError, match="one element a channel"):
        osr(x)
    assert osr.eval()(x).shape == shape


@pytest.mark.parametrize("shape", [(0, 5), (3, 5, 0)], ids=str)
def test_an_empty_batch_counts_as_a_step_without_news(shape):
    x, osr = current(1, 6, 5, 4), fastsnn.OSR1d(5, 2)
    empty = torch.empty(shape, requires_grad=True)
    y = osr(empty)
    y.sum().backward()
    assert y.shape == empty.grad.shape == shape
    assert not osr.weight.grad.any()
    osr(x[0])
    assert_same(statistics(osr)[:2], folded(x), **CLOSE)
    only = fastsnn.OSR1d(5, 1)
    before = only.running_mean.clone(), only.running_var.clone()
    only(torch.empty(shape))
    assert_same((only.running_mean, only.running_var), before)


REFUSED = {
    "dimensions": (fastsnn.OSR2d, torch.ones(2, 5, 3), ValueError, "must have 4 dimensions"),
    "no-channels": (fastsnn.OSR1d, torch.ones(5), ValueError, "must have 2 or 3 dimensions"),
    "channels": (fastsnn.OSR1d, torch.ones(2, 4), ValueError, "has 4 channels.*num_features is 5"),
    "integer": (fastsnn.OSR1d, torch.ones(2, 5).long(), TypeError, r"x is torch\.int64"),
    "number": (fastsnn.OSR1d, 1.0, TypeError, "x is float"),
}


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", REFUSED)
def test_input_that_does_not_fit(case, mode):
    layer, x, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        layer(5, 3).train(mode)(x)


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": 0},
        {"steps": 2.0},
        {"num_features": 0},
        {"eps": 0.0},
        {"momentum": 1.1},
        {"momentum": torch.nan},
        {"max_ratio": -1.0},
    ],
    ids=str,
)
def test_arguments_out_of_range(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        fastsnn.OSR1d(**{"num_features": 3, "steps": 2, **arguments})


@pytest.mark.parametrize("make", [lambda: fastsnn.OSR1d(5, 3), lambda: fastsnn.OSRLIF(5, 3, rule="ottt")])
def test_traced_spikes_raise(make):
    spikes = fastsnn.LIF.for_rule("ottt")(current(6, 5))
    with pytest.raises(fastsnn.TraceError, match="between the synapse and the neuron"):
        make()(spikes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_statistics_in_full_precision(dtype):
    net = nn.Sequential(nn.Conv2d(2, 5, 3), fastsnn.OSR2d(5, 2))
    with torch.autocast("cpu", dtype=dtype):
        y = net(current(4, 2, 6, 6))
    y.float().square().sum().backward()
    assert y.dtype == dtype
    assert net[1].state.mean.dtype == torch.float64
    assert net[1].weight.grad.dtype == torch.float32


def test_gradcheck_of_evaluation():
    osr = fastsnn.OSR1d(3, 2).double().eval()
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(osr, (x,))


def test_moves_keep_the_state_in_float64():
    osr = fastsnn.OSR1d(5, 3)
    osr(current(6, 5))
    osr.half()
    assert osr.state.mean.dtype == torch.float64
    assert osr.to("meta").state.mean.device.type == "meta"


SYNAPSES = {
    "linear": (nn.Linear(4, 5, bias=False), (6, 4)),
    "conv1d": (nn.Conv1d(4, 5, 3), (6, 4, 7)),
    "conv2d": (nn.Conv2d(4, 5, 3, bias=False, stride=2), (6, 4, 7, 7)),
    "conv3d": (nn.Conv3d(4, 5, 2), (6, 4, 3, 3, 3)),
}


@pytest.mark.parametrize("name", SYNAPSES)
def test_fold_into_the_synapse_before(name):
    synapse, shape = SYNAPSES[name]
    net, x = nn.Sequential(synapse, OSR(5, 2)), torch.randn(shape)
    nn.init.normal_(net[1].weight)
    nn.init.normal_(net[1].bias)
    run(net, [x, 3 * x + 1])
    with pytest.raises(ValueError, match="evaluation mode"):
        fastsnn.fold(*net)
    net.eval()
    assert_same(fastsnn.fold(*net)(x), net(x), rtol=1e-5, atol=1e-5)


def test_fold_of_another_module_raises():
    with pytest.raises(TypeError, match="ReLU"):
        fastsnn.fold(nn.ReLU().eval(), fastsnn.OSR1d(5, 2).eval())


def test_convert_batchnorm():
    inner = nn.Sequential(nn.BatchNorm1d(3, eps=1e-3, momentum=0.2), nn.BatchNorm3d(2, affine=False))
    net = nn.Sequential(nn.BatchNorm2d(4, momentum=None).eval(), inner)
    net[0].running_mean.normal_()
    nn.init.normal_(net[0].weight)
    x, state = torch.randn(2, 4, 3, 3), copy.deepcopy(net.state_dict())
    expected = net[0](x)
    converted = fastsnn.convert_batchnorm(net, 6)
    assert converted is net
    assert [type(net[0]), type(inner[0]), type(inner[1])] == [fastsnn.OSR2d, fastsnn.OSR1d, fastsnn.OSR3d]
    assert (inner[0].eps, inner[0].momentum, inner[0].steps) == (1e-3, 0.8, 6)
    assert (net[0].momentum, net[0].training, inner[1].weight.requires_grad) == (0.9, False, False)
    found = net.state_dict()
    assert_same([found[name] for name in state], [*state.values()])
    assert_same(net[0](x), expected, **CLOSE)


def test_convert_a_batchnorm_itself_or_one_without_statistics():
    assert isinstance(fastsnn.convert_batchnorm(nn.BatchNorm1d(3).double(), 2), fastsnn.OSR1d)
    with pytest.raises(ValueError, match="tracks no running statistics"):
        fastsnn.convert_batchnorm(nn.BatchNorm1d(3, track_running_stats=False), 2)


def test_a_batchnorm_checkpoint_loads():
    source = nn.BatchNorm2d(5)
    source(torch.randn(6, 5, 3, 3))
    osr = fastsnn.OSR2d(5, 4)
    osr.load_state_dict(source.state_dict())
    assert_same(osr.running_var, source.running_var)


def test_data_parallel_is_refused():
    with pytest.raises(RuntimeError, match="DistributedDataParallel"):
        fastsnn.OSR1d(5, 3)._replicate_for_data_parallel()


@pytest.mark.parametrize("rule", ["bptt", *ONLINE])
def test_osrlif_keeps_its_neuron_s_contract(rule):
    x = current(4, 6, 5, 3)
    fused = fastsnn.OSRLIF.for_rule(rule, 5, 3)
    composed = nn.Sequential(OSR(5, 3), fastsnn.LIF.for_rule(rule))
    found, expected = (torch.stack([fastsnn.nn.plain(s) for s in run(net, x)]) for net in (fused, composed))
    assert_same(found.detach(), expected.detach())
    assert_same(fused.neuron.v, composed[1].v)
    for net in (fused, composed):
        fastsnn.reset(net.eval())
    assert_same(torch.stack(run(fused, x)), torch.stack(run(composed, x)))


def test_osrlif_in_and_out_of_sequences():
    """One that ends early, a step after it, one that goes on, an empty batch: each as OSR and LIF apart."""
    x = current(8, 6, 5, 4)
    steps = [x[0], None, x[1], *x[2:7], None, torch.empty(0, 5, 4), None, x[7]]
    fused = fastsnn.OSRLIF.for_rule("sltt", 5, 3)
    apart = nn.Sequential(fastsnn.OSR1d(5, 3), fastsnn.LIF.for_rule("sltt"))
    for step in steps:
        for net in (fused, apart):
            fastsnn.reset(net) if step is None else net(step)
        assert_same(statistics(fused.norm), statistics(apart[0]))
        assert_same(fused.norm.state, apart[0].state)
    assert fused.norm.num_batches_tracked == 4


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_osrlif_refuses_and_keeps_statistics_and_potential(bad):
    x, net = current(3, 6, 5, 4), fastsnn.OSRLIF.for_rule("sltt", 5, 3, strict=True)
    net(x[0])
    state, v = net.norm.state, net.neuron.v.clone()
    broken = x[1].clone()
    broken[2, 3, 1] = bad
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        net(broken)
    fresh = fastsnn.OSRLIF.for_rule("sltt", 5, 3)
    with pytest.raises(ValueError, match="one element a channel"):
        fresh(x[0, :1, :, :1])
    assert net.norm.state is state
    assert_same(net.neuron.v, v)
    assert fresh.norm.state == OSRState()


def test_osrlif_of_a_sequence():
    x, by_step = current(4, 6, 5, 3), fastsnn.OSRLIF.for_rule("sltt", 5, 4)
    whole = fastsnn.OSRLIF.for_rule("sltt", 5, 4, step_mode="m")
    assert_same(whole(x).detach(), torch.stack(run(by_step, x)).detach())
    assert_same(statistics(whole.norm), statistics(by_step.norm))


def test_osrlif_refuses_another_shape_in_mid_sequence():
    net = fastsnn.OSRLIF.for_rule("ottt", 5, 3)
    net(current(6, 5, 3))
    with pytest.raises(ValueError, match=r"fastsnn\.reset"):
        net(current(4, 5, 3))
    assert net.norm.state.steps == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_osrlif_changes_layout_in_mid_sequence(layout):
    x, first = current(3, 2, 8, 5, 7), fastsnn.OSRLIF.for_rule("ndot", 8, 3)
    other = copy.deepcopy(first)
    expected = run(first, x)
    found = [other(x[0]), other(LAYOUTS[layout](x)[1]), other(x[2])]
    if layout.startswith("expanded"):
        assert found[1].shape == expected[1].shape
    else:
        assert_same([s.spikes for s in found], [s.spikes for s in expected])


def test_passes_over_memory(monkeypatch):
    """Bytes of the tensors as large as x that every kernel call takes: it reads or writes each of them once."""
    calls = moved_by(fastsnn.OSRLIF.for_rule("sltt", 5, 9), monkeypatch)
    assert calls == [["osr_lif_forward", 16], ["osr_lif_reduce", 16], ["osr_gradient", 12]]


def test_passes_over_memory_under_ots(monkeypatch):
    """Two passes forward, as the threshold follows from the whole tensor: 60 bytes a neuron where one layer after the
    other moves 72."""
    fused = moved_by(fastsnn.OSRLIF.for_rule("ottt", 5, 9, threshold="ots"), monkeypatch)
    assert fused == [["osr_charge", 12], ["ots_fire", 20], ["osr_lif_reduce", 16], ["osr_gradient", 12]]
    composed = nn.Sequential(fastsnn.OSR1d(5, 9), fastsnn.LIF.for_rule("ottt", threshold="ots"))
    forward = [["osr_forward", 8], ["ots_charge", 12], ["ots_fire", 20]]
    assert moved_by(composed, monkeypatch) == [*forward, ["ots_backward", 12], ["osr_reduce", 8], ["osr_gradient", 12]]


def moved_by(net, monkeypatch):
    """[kernel, bytes a neuron] of every call of a later training step; a call takes each tensor once."""
    x, calls = current(2, 6, 5, 40).requires_grad_(), []
    net(x[0])

    class Core:
        def __getattr__(self, name):
            def call(**given):
                operands = [*given.values(), *given.get("slots", ()), *given.get("slots_out", ())]
                tensors = [a for a in operands if isinstance(a, torch.Tensor) and a.numel() >= x[0].numel()]
                calls.append([name, sum(tensor.nbytes for tensor in tensors) / x[0].numel()])
                return getattr(cpu._cpu, name)(**given)

            return call

    with monkeypatch.context() as patched:
        for family in ("osr", "ots"):
            patched.setattr(backends.select(family, torch.empty(0)), "_core", Core())
        fastsnn.nn.plain(net(x[1])).sum().backward()
    return calls


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
@pytest.mark.parametrize(
    ("split", "mode"),
    [
        pytest.param(5, "eager", id="unequal"),
        pytest.param(8, "eager", id="one-without-samples", marks=pytest.mark.slow),
        pytest.param(5, "compiled", id="compiled", marks=pytest.mark.slow),
        pytest.param(5, "overlapped", id="overlapped", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_as_one(split, mode, tmp_path):
    worker = Path(__file__).with_name("ddp_osr_worker.py")
    ranks = [subprocess.Popen([sys.executable, worker, tmp_path, str(rank), str(split), mode]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{rank}") for rank in range(2))
    assert_same([*first["buffers"].values()], [*second["buffers"].values()])
    net = ddp_osr_worker.network(mode)
    outputs = ddp_osr_worker.train(net, net, ddp_osr_worker.images())
    for name, buffer in net.named_buffers():
        assert_same(first["buffers"][name], buffer, rtol=1e-6, atol=1e-6)
    assert_same(first["gradients"], [p.grad for p in net.parameters()], rtol=1e-6, atol=1e-6)
    merged = torch.cat([first["outputs"], second["outputs"]], 1)
    assert_same(merged, outputs, rtol=1e-6, atol=1e-6)


def test_what_is_written_into_the_state_stays_out_of_the_backward():
    gradients = []
    for writes in (False, True):
        norm, x = fastsnn.OSR1d(4, 3), torch.linspace(-1, 2, 20).view(5, 4).requires_grad_()
        loss = norm(x).square().sum()
        if writes:
            norm.state.mean.fill_(9)
            norm.state.m2.fill_(9)
        loss.backward()
        gradients.append(x.grad)
    assert_same(*gradients)
