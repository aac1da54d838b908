"""Traced spikes: what runs once, what acts on both, what is refused."""

import copy
import operator
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import fastsnn
from fastsnn import TracedSpikes, TraceError
from fastsnn.nn.traced import UntracedCurrent

from ..cases import TORCH, assert_same

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


def spiking(*shape, dtype=torch.float64):
    """Traced spikes whose trace is unrelated to them; `.spikes` is a leaf."""
    spikes = (torch.rand(shape) < 0.4).to(dtype).requires_grad_()
    return TracedSpikes.of(spikes, torch.rand(shape, dtype=torch.float64).to(dtype))


def two_passes(fn, s, parameters, g_y):
    """The papers' formulation: run on the spikes for value and input gradient, on the trace for the weights'."""
    y = fn(s.spikes)
    (g_s,) = torch.autograd.grad(y, s.spikes, g_y)
    return y, g_s, *torch.autograd.grad(fn(s.trace), parameters, g_y)


SYNAPSES = {
    "linear": (nn.Linear(7, 5), (3, 7)),
    "linear-no_bias": (nn.Linear(7, 5, bias=False), (3, 7)),
    "linear-4d": (nn.Linear(7, 5), (2, 3, 4, 7)),
    "linear-unbatched": (nn.Linear(7, 5), (7,)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), (3, 4, 9)),
    "conv1d-stride": (nn.Conv1d(4, 6, 3, stride=2), (3, 4, 9)),
    "conv1d-same-even": (nn.Conv1d(4, 6, 4, padding="same", dilation=3), (3, 4, 15)),
    "conv2d": (nn.Conv2d(4, 6, 3), (2, 4, 8, 7)),
    "conv2d-no_bias": (nn.Conv2d(4, 6, 3, padding=1, bias=False), (2, 4, 8, 7)),
    "conv2d-groups": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 8, 7)),
    "conv2d-depthwise": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 8, 7)),
    "conv2d-uneven": (nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), (1, 2)), (2, 4, 8, 9)),
    "conv2d-valid": (nn.Conv2d(4, 6, 3, padding="valid"), (2, 4, 8, 7)),
    "conv2d-same": (nn.Conv2d(4, 6, 3, padding="same"), (2, 4, 8, 7)),
    "conv2d-same-even": (nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 3)), (2, 4, 8, 13)),
    "conv2d-reflect": (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 8, 7)),
    "conv2d-circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (2, 4, 8, 7)),
    "conv2d-unbatched": (nn.Conv2d(4, 6, 3), (4, 8, 7)),
    "conv3d": (nn.Conv3d(2, 3, 3, stride=(1, 2, 1), padding=1), (2, 2, 4, 5, 6)),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (3, 4, 9)),
    "conv_transpose2d": (nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2, dilation=2), (2, 4, 8, 7)),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 3, 2, stride=2, bias=False), (2, 2, 4, 5, 6)),
    "wslinear": (fastsnn.WSLinear(7, 5), (3, 7)),
    "wsconv2d": (fastsnn.WSConv2d(4, 6, 3, padding=1), (2, 4, 8, 7)),
}


@pytest.mark.parametrize("name", SYNAPSES)
def test_synapse_equals_two_passes(name):
    module, shape = SYNAPSES[name]
    module, s = copy.deepcopy(module).double(), spiking(*shape)
    y = module(s)
    g_y = torch.randn_like(y)
    actual = (y, *torch.autograd.grad(y, [s.spikes, *module.parameters()], g_y))
    assert type(y) is torch.Tensor
    assert_same(actual, two_passes(module, s, [*module.parameters()], g_y), rtol=1e-12, atol=1e-13)


PRODUCTS = {
    "matmul": torch.matmul,
    "mm": torch.mm,
    "@": lambda s, w: s @ w,
    "W @ s": lambda s, w: w.T @ s.T,
    "keywords": lambda s, w: torch.matmul(other=s.mT, input=w.mT),
    "method": lambda s, w: s.matmul(other=w),
    "einsum": lambda s, w: torch.einsum("ni,io->on", s, w),
    "einsum-list": lambda s, w: torch.einsum(s, [0, 1], w, [1, 2], [2]),
    "tensordot": lambda s, w: torch.tensordot(s, w, dims=([1], [0])),
    "mv": lambda s, w: s @ w[:, 0],
    "bmm": lambda s, w: torch.bmm(s.unflatten(0, (3, 1)), w.expand(3, 7, 5)),
    "broadcast": lambda s, w: s @ torch.stack([w, 2 * w]),
    "addmm": lambda s, w: torch.addmm(w[:3], s, w, beta=0.5),
    "F.linear": lambda s, w: F.linear(weight=w.T, input=s),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_with_a_weight_equals_two_passes(name):
    s, weight, product = spiking(3, 7), torch.randn(7, 5, dtype=torch.float64, requires_grad=True), PRODUCTS[name]
    y = product(s, weight)
    g_y = torch.randn_like(y)
    actual = (y, *torch.autograd.grad(y, [s.spikes, weight], g_y))
    assert type(y) is torch.Tensor
    assert_same(actual, two_passes(lambda x: product(x, weight), s, [weight], g_y), rtol=1e-12, atol=1e-13)


def test_functional_synapses_with_keywords():
    s, weight, bias = spiking(2, 4, 8, 7), torch.randn(6, 2, 3, 3).double(), torch.randn(6).double()
    plain = F.conv2d(s.spikes, weight, bias, stride=2, padding=1, groups=2)
    assert_same(F.conv2d(input=s, weight=weight, bias=bias, stride=2, padding=1, groups=2), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_trace_may_be_wider_than_the_spikes(dtype):
    s, module = spiking(3, 7, dtype=dtype), nn.Linear(7, 5).to(dtype)
    wide = TracedSpikes.of(s.spikes, s.trace.float())
    module(wide).sum().backward()
    expected = s.trace.sum(0).expand(5, 7)
    assert_same(module.weight.grad, expected, rtol=1e-2)
    assert module.weight.grad.dtype == s.spikes.grad.dtype == dtype


class Count(TorchDispatchMode):
    """How often each convolution and matrix product ran."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("convolution", "convolution_backward", "mm", "addmm"):
            self.ran.append(name)
        return func(*args, **kwargs or {})


def test_a_synapse_runs_once():
    s, conv, linear = spiking(2, 3, 4, 4), nn.Conv2d(3, 5, 3).double(), nn.Linear(20, 7).double()
    with Count() as count:
        out = linear(conv(s).flatten(1))
    assert count.ran == ["convolution", "addmm"]
    with Count() as count:
        out.sum().backward()
    assert count.ran.count("convolution_backward") == 1


BOTH = {
    "reshape": lambda x: x.reshape(2, -1),
    "view": lambda x: x.view(2, 3, 64),
    "view_as": lambda x: x.view_as(torch.empty(6, 8, 8)),
    "flatten": lambda x: x.flatten(1),
    "nn.Flatten": nn.Flatten(),
    "unflatten": lambda x: x.unflatten(2, (4, 2)),
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, 2).contiguous(),
    "movedim": lambda x: torch.movedim(x, 0, -1),
    "clone": lambda x: x.clone(),
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "expand": lambda x: x[:, :1].expand(2, 3, 8, 8),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "index": lambda x: x[:, 1:, ::2],
    "mask": lambda x: x[torch.tensor([True, False])],
    "select": lambda x: x.select(1, 0),
    "narrow": lambda x: x.narrow(1, 0, 2),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 0])),
    "chunk": lambda x: x.chunk(2, 2)[1],
    "split": lambda x: torch.split(x, 3, 2)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "reversed": lambda x: reversed(x),
    "stack": lambda x: torch.stack([x, x]),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(1, 2),
    "pixel_shuffle": lambda x: F.pixel_unshuffle(x, 2),
    "neg": lambda x: -x,
    "scale": lambda x: 2.74 * x,
    "nn.Scale": fastsnn.Scale(),
    "quotient": lambda x: x / 4,
    "mask_product": lambda x: x * torch.arange(8.0),
    "avg_pool2d": nn.AvgPool2d(2),
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d(1),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "pad": nn.ZeroPad2d(1),
    "pad-reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "mean-dims": lambda x: x.mean((2, 3)),
    "sum-dim": lambda x: torch.sum(x, dim=1, keepdim=True),
    "identity": nn.Identity(),
    "dropout-eval": nn.Dropout(0.5).eval(),
    "shift": lambda x: x + 1,
    "detach": lambda x: x.detach() + 0 * x,
    "clone.detach": lambda x: x.clone().detach() + 0 * x,
    ".T": lambda x: x[0, 0].T,
    ".mT": lambda x: x.mT,
    ".data": lambda x: x.data + 0 * x,
    "where": lambda x: torch.where(torch.arange(8) < 3, x, 0.0),
    "where-keywords": lambda x: torch.where(condition=torch.arange(8) < 3, input=x, other=x / 2),
    "masked_fill": lambda x: x.masked_fill(torch.arange(8) < 3, 0),
    "cumsum": lambda x: x.cumsum(1),
    "gather": lambda x: x.gather(0, torch.zeros(1, 3, 8, 8, dtype=torch.long)),
    "axis": lambda x: torch.concatenate([x, x], axis=1),
    "sum-axis": lambda x: x.sum(axis=1),
    "sum-numpy": lambda x: x.sum(np.int64(1)),
    "mean-keywords": lambda x: torch.mean(input=x, dim=(np.int64(2), 3)),
    "mul-keywords": lambda x: torch.mul(other=x, input=2.5 * torch.ones(8)),
    "add-keywords": lambda x: torch.add(input=x, other=x, alpha=3),
    "div-keywords": lambda x: torch.div(input=x, other=3),
    "flatten-keywords": lambda x: torch.flatten(input=x, start_dim=2),
    "dropout-keywords": lambda x: F.dropout(input=x, p=0.5, training=False),
    "operator": lambda x: torch.ops.aten.roll(x, [1], [2]),
}


@pytest.mark.parametrize("name", BOTH)
def test_linear_operations_act_on_both(name):
    fn, s = BOTH[name], spiking(2, 3, 8, 8)
    out, expected = fn(s), fn(s.spikes)
    g = torch.rand_like(expected)
    assert isinstance(out, TracedSpikes)
    assert not out.trace.requires_grad
    assert_same((out.spikes, out.trace), (expected, fn(s.trace)))
    assert_same(torch.autograd.grad(out.spikes, s.spikes, g), torch.autograd.grad(expected, s.spikes, g))


MIXED = {
    "add": torch.add,
    "operator+": lambda a, b: a + b,
    "add-alpha": lambda a, b: torch.add(a, b, alpha=0.5),
    "sub": lambda a, b: a - b,
    "cat": lambda a, b: torch.cat([a, b], 1),
    "stack": lambda a, b: torch.stack((a, b)),
    "sum-of-list": lambda a, b: sum([a, b]),
}


@pytest.mark.parametrize("order", ["traced-traced", "traced-plain", "plain-traced"])
@pytest.mark.parametrize("name", MIXED)
def test_two_operands(name, order):
    fn = MIXED[name]
    a, b = (
        spiking(2, 3) if kind == "traced" else torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        for kind in order.split("-")
    )
    out = fn(a, b)
    leaves = [fastsnn.nn.plain(x) for x in (a, b)]
    traces = [x.trace if isinstance(x, TracedSpikes) else x for x in (a, b)]
    assert_same((out.spikes, out.trace), (fn(*leaves), fn(*traces).detach()))
    g = torch.rand_like(out.spikes)
    assert_same(torch.autograd.grad(out.spikes, leaves, g), torch.autograd.grad(fn(*leaves), leaves, g))


@pytest.mark.parametrize("change", [operator.iadd, operator.isub, operator.imul, operator.itruediv])
def test_augmented_assignment_gives_a_new_pair(change):
    s = spiking(2, 3)
    before = s.spikes.detach().clone(), s.trace.clone()
    out = change(s, 2)
    assert_same((out.spikes.detach(), out.trace), tuple(change(value.clone(), 2) for value in before))
    assert_same((s.spikes.detach(), s.trace), before)


IN_PLACE = {
    "add_": lambda s: s.add_(2),
    "mul_": lambda s: s.mul_(2),
    "into-a-leaf": lambda s: operator.iadd(torch.ones(2, 3).double().requires_grad_(), s),
    "into-a-parameter": lambda s: [p := nn.Parameter(torch.ones(2, 3).double()), p.data.copy_(s)],
    "into-a-view": lambda s: torch.zeros(4, 3).double()[:2].copy_(s),
    "into-part-of-a-view": lambda s: operator.setitem(torch.zeros(2, 2, 3).double()[0], slice(2), s),
    "into-viewed-memory": lambda s: [x := torch.zeros(2, 3).double(), x[0], x.add_(s)],
    "into-another-shape": lambda s: torch.zeros(3).double().add_(s[:1]),
    "index_add_": lambda s: torch.zeros(2, 3).double().index_add_(0, torch.tensor([0, 1]), s),
}


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
def test_writing_in_place_is_refused_with_the_remedy(change):
    s = spiking(2, 3)
    before = s.spikes.detach().clone(), s.trace.clone()
    with pytest.raises(fastsnn.TraceError, match=r"s = s \+ x"):
        change(s)
    assert_same((s.spikes.detach(), s.trace), before)


WRITTEN = {
    "out += s": lambda out, s: operator.iadd(out, s),
    "out -= s": lambda out, s: operator.isub(out, s),
    "add_": lambda out, s: out.add_(s, alpha=0.5),
    "copy_": lambda out, s: out.copy_(s),
    "out[1] = s": lambda out, s: operator.setitem(out, 1, s[1]),
    "out[:, mask] = s": lambda out, s: operator.setitem(out, (slice(None), torch.arange(3) > 0), s[:, 1:]),
    "twice": lambda out, s: [operator.setitem(out, 1, s[1]), operator.setitem(out, 0, s[0]), out.copy_(out + s)],
    "out[0] = 3": lambda out, s: [out.copy_(s), operator.setitem(out, 0, 3.0)],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_plain_tensor_that_spikes_are_written_into_is_a_pair(name):
    s, start = spiking(2, 3), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    out = held = 2 * start
    WRITTEN[name](out, s)
    expected, of_trace = 2 * start, 2 * start.detach()
    WRITTEN[name](expected, s.spikes)
    WRITTEN[name](of_trace, s.trace)
    assert type(held) is TracedSpikes
    assert_same((held.spikes, held.trace), (expected, of_trace))
    g = torch.rand(2, 3, dtype=torch.float64)
    leaves = [s.spikes, start]
    grads = [torch.autograd.grad(out, leaves, g, materialize_grads=True) for out in (held.spikes, expected)]
    assert_same(*grads)


def test_counts_of_spikes_are_plain():
    s, counts = spiking(2, 3).detach(), torch.zeros(2, 3, dtype=torch.int64)
    held = counts[0]
    counts[0] = s[0]
    counts[1].copy_(s[1])
    assert type(counts) is torch.Tensor
    assert_same(counts, s.int().long())
    assert_same(held, counts[0])


def test_a_picture_of_spikes():
    torchvision = pytest.importorskip("torchvision")
    s = spiking(4, 1, 5, 5)
    assert_same(torchvision.utils.make_grid(s), torchvision.utils.make_grid(s.spikes))


def test_residual_branch_trains_both_synapses():
    s = spiking(3, 7)
    first, second = (nn.Linear(7, 7).double() for _ in range(2))
    (second(s + first(s))).sum().backward()
    assert_same(second.weight.grad, (s.trace + first(s.spikes)).sum(0).detach().expand(7, 7), rtol=1e-12, atol=1e-12)
    assert first.weight.grad.any()


@pytest.mark.parametrize("module", [nn.Dropout(0.3), nn.Dropout1d(0.3), nn.Dropout2d(0.3), nn.Dropout3d(0.3)], ids=repr)
def test_dropout_shares_its_mask(module):
    shape = (8, 5, 4, 4, 4)[: {nn.Dropout1d: 3, nn.Dropout2d: 4, nn.Dropout3d: 5}.get(type(module), 2)]
    s = TracedSpikes.of(torch.ones(shape, requires_grad=True), torch.full(shape, 3.0))
    out = module(s)
    assert_same(out.trace, 3 * out.spikes)
    assert set(out.spikes.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}


INSPECTION = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(),
    "compare": lambda x: x > 0.5,
    "equal": lambda x: x == 1,
    "any": lambda x: x.any(),
    "argmax": lambda x: x.argmax(1),
    "std": lambda x: x.std(),
    "bool": lambda x: x.bool(),
    "int": lambda x: x.int(),
    "to": lambda x: x.to(torch.int64),
    "quantile": lambda x: x.quantile(0.5),
    "median": lambda x: x.median(),
    "max": lambda x: x.max(),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.tensor([0, 2])),
    "mse_loss": lambda x: F.mse_loss(x, torch.ones(2, 3, dtype=torch.float64)),
    "nn.L1Loss": lambda x: nn.L1Loss()(x, torch.ones(2, 3, dtype=torch.float64)),
    "zeros_like": lambda x: torch.zeros_like(x),
    "new_zeros": lambda x: x.new_zeros(2),
}


@pytest.mark.parametrize("name", INSPECTION)
def test_inspection_and_losses_take_the_spikes(name):
    fn, s = INSPECTION[name], spiking(2, 3)
    out, expected = fn(s), fn(s.spikes)
    assert type(out) is torch.Tensor
    assert_same(out, expected)
    assert out.requires_grad == expected.requires_grad


@pytest.mark.parametrize("name", ["cross_entropy", "mse_loss", "mean"])
def test_losses_send_their_gradient_to_the_spikes(name):
    fn, s = INSPECTION[name], spiking(2, 3)
    fn(s).backward()
    assert_same(s.spikes.grad, *torch.autograd.grad(fn(s.spikes), s.spikes))


CURRENTS = {
    "abs": abs,
    "amax": lambda x: x.amax((0,)),
    "max": lambda x: x.max(1).values,
    "topk": lambda x: torch.topk(x, 2, 1)[0],
    "quantile": lambda x: x.quantile(0.5, 1),
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: x.log_softmax(1),
    "product": lambda x: x * x,
    "matmul": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("ni,mi->nm", x, x),
    "attention": lambda x: (x @ x.mT * 0.125) @ x,
    "of-a-current": lambda x: F.relu((x @ x.mT).flatten() - 0.5),
    "with-a-trace": lambda x: torch.cat([x.abs(), x]),
    "loss-of-each": lambda x: F.mse_loss(x, torch.ones(2, 3, dtype=torch.float64), reduction="none"),
    "written": lambda x: operator.iadd(torch.ones(2, 3, dtype=torch.float64), x.abs()),
}


@pytest.mark.parametrize("name", CURRENTS)
def test_a_current_without_trace_has_a_value_and_a_spatial_gradient(name):
    fn, s = CURRENTS[name], spiking(2, 3)
    out, expected = fn(s), fn(s.spikes)
    g = torch.rand_like(expected)
    assert type(out) is UntracedCurrent
    assert out.trace is None
    assert_same(out.spikes, expected)
    assert_same(torch.autograd.grad(fastsnn.LIF(tau=4.0)(out), s.spikes, g), lif_gradient(expected, s, g))
    assert type(out.sum()) is torch.Tensor


def lif_gradient(current, s, g):
    return torch.autograd.grad(fastsnn.LIF(tau=4.0)(current), s.spikes, g)


BEHIND_A_CURRENT = {
    "linear": lambda x: nn.Linear(3, 4).double()(x),
    "conv": lambda x: nn.Conv1d(2, 4, 1).double()(x),
    "matmul": lambda x: torch.randn(4, 2).double().requires_grad_() @ x,
    "gain": lambda x: nn.Parameter(torch.ones(3).double()) * x,
    "norm": lambda x: nn.LayerNorm(3).double()(x),
    "further-on": lambda x: nn.Linear(3, 4).double()(x.relu().reshape(2, 3) + 1),
    "beside-a-trace": lambda x: nn.Linear(6, 4).double()(torch.cat([x, spiking(2, 3)], 1)),
}


@pytest.mark.parametrize("name", BEHIND_A_CURRENT)
def test_weights_behind_a_current_without_trace_are_refused(name):
    with pytest.raises(TraceError, match=r"put a neuron before the weights"):
        BEHIND_A_CURRENT[name](spiking(2, 3) * spiking(2, 3))


def test_a_neuron_gives_a_current_its_trace_again():
    q, k, v = (spiking(2, 5, 6) for _ in range(3))
    neuron, linear = fastsnn.LIF.for_rule("ottt", v_threshold=0.1), nn.Linear(6, 4).double()
    s = neuron((q @ k.mT * 0.125) @ v)
    linear(s).sum().backward()
    assert_same(linear.weight.grad, s.trace.sum((0, 1)).expand(4, 6), rtol=1e-12, atol=1e-13)
    for x in (q, k, v):
        assert x.spikes.grad.any()


def test_a_detached_factor_is_a_constant():
    """SEW-ResNet's IAND."""
    x, y = spiking(2, 3), spiking(2, 3)
    out, mask = x * (1 - y).detach(), 1 - y.spikes.detach()
    assert_same((out.spikes, out.trace), (x.spikes * mask, x.trace * mask))
    assert type(x * (1 - y)) is UntracedCurrent


def test_feedback_of_detached_spikes_trains_its_synapse_from_the_trace():
    s, linear = spiking(3, 7), nn.Linear(7, 5).double()
    linear(s.clone().detach()).sum().backward()
    assert_same(linear.weight.grad, s.trace.sum(0).expand(5, 7), rtol=1e-12, atol=1e-13)
    assert s.spikes.grad is None


AGAIN = {
    "as_subclass": lambda s: s.as_subclass(torch.Tensor),
    "Tensor": lambda s: torch.Tensor(s.float()).double(),
    "DoubleTensor": lambda s: torch.DoubleTensor(s.detach()),
    "as_tensor": torch.as_tensor,
    "asarray": lambda s: torch.asarray(s, requires_grad=True),
    "Parameter": lambda s: nn.Parameter(s.detach()),
    "Buffer": lambda s: nn.Buffer(s.detach()),
}


@pytest.mark.parametrize("name", AGAIN)
def test_a_tensor_made_of_traced_spikes_keeps_their_trace(name):
    if name == "as_subclass" and TORCH < (2, 11):
        pytest.skip("torch refuses it by itself")
    s, linear = spiking(3, 7), nn.Linear(7, 5).double()
    again = AGAIN[name](s)
    linear(again).sum().backward()
    expected = s.trace.sum(0).expand(5, 7)
    assert_same(linear.weight.grad, expected, rtol=1e-6, atol=1e-6)
    if again.requires_grad and not again.is_leaf:
        assert_same(s.spikes.grad, linear.weight.detach().sum(0).expand(3, 7), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("unpack", [lambda s: operator.setitem(*s, None), list], ids=["*", "list"])
def test_spikes_and_trace_are_not_unpacked_as_samples(unpack):
    with pytest.raises(TraceError, match=r"`s\.spikes` and `s\.trace`, or s\.unbind\(0\)"):
        unpack(spiking(2, 3))


OUT = {
    "stack": lambda s, out: torch.stack([s, s], out=out),
    "mul": lambda s, out: torch.mul(s, 2.0, out=out),
    "amax": lambda s, out: torch.amax(s, 1, out=out),
    "plain-into-spikes": lambda s, out: torch.add(out, 1, out=s),
    "current": lambda s, out: torch.exp(s.abs(), out=out),
}


@pytest.mark.parametrize("name", OUT)
def test_out_is_refused(name):
    s, out = spiking(2, 3), torch.ones(2, 3).double()
    with pytest.raises(TraceError, match="takes no out="):
        OUT[name](s, out)
    assert_same(out, torch.ones(2, 3).double())


@pytest.mark.parametrize("name", ["shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "layout", "is_cuda"])
def test_properties(name):
    s = spiking(2, 3)
    s = TracedSpikes.of(s.spikes.clone(), s.trace)
    assert getattr(s, name) == getattr(s.spikes, name)


def test_python_protocols():
    s = TracedSpikes.of(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 1.5]]))
    assert (len(s), s.size(1), s.numel(), s.tolist(), s.sum().item()) == (1, 2, 2, [[0.0, 1.0]], 1.0)
    assert "0., 1." in repr(s)
    assert s.numpy().tolist() == [[0.0, 1.0]]


def test_backward_and_hooks():
    s, seen = spiking(3), []
    out = 2 * s
    out.register_hook(seen.append)
    out.backward(torch.ones(3, dtype=torch.float64))
    assert s.spikes.grad.tolist() == [2, 2, 2]


def beneath(s):
    with torch._C.DisableTorchFunctionSubclass():
        return F.linear(s, torch.ones(2, 8).double())


REFUSED = {
    "max_pool2d": nn.MaxPool2d(2),
    "relu": nn.ReLU(),
    "sigmoid": torch.sigmoid,
    "batch_norm": nn.BatchNorm2d(3).double(),
    "layer_norm": nn.LayerNorm(8).double(),
    "max_unpool": lambda s: F.max_unpool2d(s, torch.zeros(2, 3, 8, 8).long(), 2),
    "view-as-another-type": lambda s: s.view(torch.int64),
    "bits": lambda s: s.__dlpack__(),
    "vmap": lambda s: torch.vmap(nn.Linear(8, 4).double())(s),
    "functorch": lambda s: torch.func.grad(lambda x: (x @ torch.ones(8, 2).double()).sum())(s),
    "operator": lambda s: torch.ops.aten.mm.default(s[0, 0], torch.ones(8, 2).double()),
    "beneath": lambda s: beneath(s),
    "square": lambda s: s**2,
    "quotient-by-spikes": lambda s: 1 / s,
    "quotient-of-spikes": lambda s: s / s,
    "floor-quotient": lambda s: torch.div(s, 2, rounding_mode="floor"),
    "product-with-parameter": lambda s: s * nn.Parameter(torch.ones(8).double()),
    "weight-of-linear": lambda s: F.linear(torch.ones(2, 8).double(), s[0, 0]),
    "weight-of-conv": lambda s: F.conv2d(torch.ones(2, 3, 9, 9).double(), s),
    "pad-with-one": lambda s: F.pad(s, (1, 1), value=1.0),
    "in-place-write": lambda s: s.zero_(),
    "complex-type": lambda s: s.to(torch.complex128),
    "complex-factor": lambda s: s * 1j,
    "complex-sum": lambda s: s + torch.ones(8, dtype=torch.complex128),
    "new-tensor": lambda s: s.new_tensor([s[0], s[1]]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_trace_has_no_meaning_for_is_refused_with_the_remedy(name):
    with pytest.raises(TraceError, match=r"s\.spikes"):
        REFUSED[name](spiking(2, 3, 8, 8))


@pytest.mark.parametrize("name", ["max_pool2d", "relu", "batch_norm", "square"])
def test_the_remedy_works(name):
    s = spiking(2, 3, 8, 8)
    assert type(REFUSED[name](s.spikes)) is torch.Tensor


def test_spikes_alone_train_the_synapse_from_the_spikes():
    s, linear = spiking(3, 7), nn.Linear(7, 5).double()
    linear(s.spikes).sum().backward()
    assert_same(linear.weight.grad, s.spikes.sum(0).detach().expand(5, 7))


def test_same_padding_needs_stride_one_as_in_torch():
    with pytest.raises((RuntimeError, ValueError), match="stride"):
        F.conv2d(spiking(2, 3, 8, 8), torch.ones(3, 3, 3, 3).double(), stride=2, padding="same")


def test_an_unknown_padding_is_refused():
    with pytest.raises((RuntimeError, ValueError), match="padding"):
        F.conv2d(spiking(2, 3, 8, 8), torch.ones(3, 3, 3, 3).double(), padding="sam")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))], ids=["copy", "pickle"])
def test_copies_keep_both(duplicate):
    s = spiking(2, 3)
    other = duplicate(s)
    assert_same((other.spikes, other.trace), (s.spikes, s.trace))
    other.trace.zero_()
    assert s.trace.any()
