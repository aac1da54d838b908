"""What only a real device can show. The parity suite runs there too, as cuda:device and triton:device."""

import copy

import pytest
import torch

import fastsnn
from fastsnn.functional import lif_sequence, lif_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BACKENDS = ("cuda", "triton")
OTTT = {"rule": "ottt", "v_reset": None, "decay_input": False}


@pytest.fixture(params=BACKENDS)
def device_backend(request):
    with fastsnn.use_backend(request.param):
        yield request.param


def test_more_elements_than_int32_counts(device_backend):
    """The last of 2^31 + 8192 neurons, in float16, equals the same neuron alone."""
    n = 2**31 + 8192
    if torch.cuda.mem_get_info()[0] < 20 * n:
        pytest.skip("needs 40 GiB of free device memory")
    x = torch.zeros(n, dtype=torch.float16, device="cuda")
    x[-3:] = torch.tensor([0.5, 1.0, 3.0])
    out = lif_step(x, rule="sltt", v_reset=None, decay_input=False)
    assert out.spikes[-3:].tolist() == [0.0, 1.0, 1.0]
    assert out.v[-3:].tolist() == [0.5, 0.0, 2.0]
    assert int(out.spikes.count_nonzero()) == 2


@pytest.mark.parametrize("rule", ["sltt", "ottt"])
def test_a_step_can_be_captured_in_a_graph(device_backend, rule):
    config = OTTT | {"rule": rule}
    x = torch.randn(100_003, device="cuda", requires_grad=True)
    g = torch.randn_like(x)
    expected = torch.autograd.grad(lif_step(x, **config).spikes, x, g)[0]
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.autograd.grad(lif_step(x, **config).spikes, x, g)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        spikes = lif_step(x, **config).spikes
        (g_x,) = torch.autograd.grad(spikes, x, g)
    spikes.detach().fill_(torch.nan)
    g_x.fill_(torch.nan)
    graph.replay()
    torch.testing.assert_close(g_x, expected, rtol=0, atol=0)
    torch.testing.assert_close(spikes, lif_step(x, **config).spikes, rtol=0, atol=0)


def test_kernels_run_on_the_current_stream(device_backend):
    """Work behind a long-running kernel of the same stream sees what that kernel wrote."""
    x = torch.zeros(2**20, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        x.fill_(3.0)
        spikes = lif_step(x, rule="sltt", v_reset=None, decay_input=False).spikes
    stream.synchronize()
    assert bool((spikes == 1).all())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_tensor_of_the_second_device_runs_there(device_backend):
    x = torch.randn(1000, device="cuda:1")
    spikes = lif_step(x, **OTTT).spikes
    assert spikes.device == x.device
    assert torch.cuda.current_device() == 0
    with fastsnn.use_backend("reference"):
        torch.testing.assert_close(spikes, lif_step(x, **OTTT).spikes, rtol=0, atol=0)


def test_cpu_and_device_fire_the_same_spikes(device_backend):
    x = torch.randn(6, 40_013)
    on_device = lif_sequence(x.cuda(), **OTTT)
    with fastsnn.use_backend(None):
        on_cpu = lif_sequence(x, **OTTT)
    for here, there in zip(on_cpu, on_device, strict=True):
        if here is not None:
            torch.testing.assert_close(there.cpu(), here, rtol=0, atol=0)


def test_a_packed_network_moves_to_the_device(device_backend):
    """Linear layers and convolutions, one and many positions, in float32 and on tensor cores."""
    conv, linear = fastsnn.BinaryConv2d(48, 40, 3, padding=1), fastsnn.BinaryLinear(40 * 6 * 7, 30)
    with fastsnn.use_backend("cpu"):
        packed = fastsnn.deploy.pack(torch.nn.Sequential(conv, torch.nn.ReLU(), torch.nn.Flatten(), linear).eval())
        x = torch.randn(5, 48, 6, 7)
        expected = packed(x)
    packed = packed.to("cuda")
    torch.testing.assert_close(packed(x.cuda()).cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed(x[:1].cuda()).cpu(), expected[:1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed(x.cuda().half()).cpu().float(), expected, rtol=2e-2, atol=2e-1)


def _training_network():
    torch.manual_seed(0)
    neurons = [fastsnn.LIF.for_rule("ottt", dropout=0.2) for _ in range(2)]
    conv = torch.nn.Conv2d(8, 16, 3, padding=1)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), neurons[0], torch.nn.AvgPool2d(2)]
    return torch.nn.Sequential(*layers, conv, neurons[1], torch.nn.Flatten(), torch.nn.Linear(16 * 16, 10)).cuda()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "sgd with a tensor as learning rate": lambda p: torch.optim.SGD(p, torch.tensor(0.05, device="cuda"), fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, capturable=True),
}


@pytest.mark.parametrize("mode", ["O", "A"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_fifty_graphed_updates_are_the_eager_ones(device_backend, mode, optimizer, half):
    """Weights, buffers, losses and dropout masks, bit for bit; the learning rate changes on the way."""
    net = _training_network()
    nets = net, copy.deepcopy(net)
    x, y = torch.randn(50, 4, 6, 3, 8, 8, device="cuda"), torch.randint(10, (50, 6), device="cuda")
    found = []
    for graphed, mine in enumerate(nets):
        trainer = fastsnn.online.Trainer(mine, OPTIMIZERS[optimizer](mine.parameters()), graph=bool(graphed), mode=mode)
        torch.cuda.manual_seed(3)
        results = []
        for i in range(50):
            if i == 25:
                rate = trainer.optimizer.param_groups[0]
                rate["lr"] = rate["lr"].mul_(0.5) if isinstance(rate["lr"], torch.Tensor) else rate["lr"] * 0.5
            with torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False):
                results.append(trainer.train_batch(x[i], y[i]))
        found.append(results)
        assert trainer.graph_refusal is None
    assert found[0] == found[1]
    for (name, eager), graphed in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        torch.testing.assert_close(graphed, eager, rtol=0, atol=0, msg=name)


def test_a_capture_that_fails_leaves_the_generator_usable(device_backend):
    class Reads(torch.nn.Module):
        def forward(self, x):
            return x * float(x.sum() > 1e9) + x if torch.cuda.is_current_stream_capturing() else x

    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Dropout(0.5), Reads(), torch.nn.Linear(4, 3)).cuda()
    trainer = fastsnn.online.Trainer(net, torch.optim.SGD(net.parameters(), 0.1), graph=True)
    x, y = torch.randn(3, 2, 5, device="cuda"), torch.zeros(2, dtype=torch.long, device="cuda")
    for _ in range(3):
        trainer.train_batch(x, y)
    with pytest.warns(RuntimeWarning, match="cannot be captured"):
        trainer.train_batch(x, y)
    assert torch.rand(3, device="cuda").isfinite().all()
    assert "cannot be captured" in trainer.graph_refusal
