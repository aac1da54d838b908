"""Traced spikes: what runs once, what acts on both, what is refused."""

import copy
import operator
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import fastsnn
from fastsnn import TracedSpikes, TraceError

from ..cases import assert_same

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


@pytest.mark.parametrize("product", [torch.matmul, torch.mm, lambda s, w: s @ w], ids=["matmul", "mm", "@"])
def test_product_with_a_weight_equals_two_passes(product):
    s, weight = spiking(3, 7), torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    y = product(s, weight)
    g_y = torch.randn_like(y)
    actual = (y, *torch.autograd.grad(y, [s.spikes, weight], g_y))
    assert_same(actual, two_passes(lambda x: x @ weight, s, [weight], g_y), rtol=1e-12, atol=1e-13)


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
    "iteration": lambda x: next(iter(x)),
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


@pytest.mark.parametrize(
    "change", [lambda s: s.add_(2), lambda s: s.mul_(2), lambda s: operator.iadd(torch.ones(2, 3), s)]
)
def test_writing_in_place_is_refused_with_the_remedy(change):
    s = spiking(2, 3)
    before = s.spikes.detach().clone(), s.trace.clone()
    with pytest.raises(fastsnn.TraceError, match=r"s = s \+ x"):
        change(s)
    assert_same((s.spikes.detach(), s.trace), before)


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
    "softmax": lambda x: F.softmax(x, 1),
    "log_softmax": lambda x: x.log_softmax(1),
    "cross_entropy": lambda x: F.cross_entropy(x, torch.tensor([0, 2])),
    "mse_loss": lambda x: F.mse_loss(x, torch.ones(2, 3, dtype=torch.float64)),
    "nn.L1Loss": lambda x: nn.L1Loss()(x, torch.ones(2, 3, dtype=torch.float64)),
    "detach": lambda x: x.detach(),
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


REFUSED = {
    "max_pool2d": nn.MaxPool2d(2),
    "relu": nn.ReLU(),
    "sigmoid": torch.sigmoid,
    "batch_norm": nn.BatchNorm2d(3).double(),
    "layer_norm": nn.LayerNorm(8).double(),
    "square": lambda s: s**2,
    "product-of-spikes": lambda s: s * s,
    "quotient-by-spikes": lambda s: 1 / s,
    "quotient-of-spikes": lambda s: s / s,
    "floor-quotient": lambda s: torch.div(s, 2, rounding_mode="floor"),
    "product-with-parameter": lambda s: s * nn.Parameter(torch.ones(8).double()),
    "conv_transpose": nn.ConvTranspose2d(3, 3, 3).double(),
    "weight-of-linear": lambda s: F.linear(torch.ones(2, 8).double(), s[0, 0]),
    "weight-of-conv": lambda s: F.conv2d(torch.ones(2, 3, 9, 9).double(), s),
    "right-of-matmul": lambda s: torch.ones(8, 8).double() @ s,
    "spikes-of-both-sides": lambda s: s @ s,
    "pad-with-one": lambda s: F.pad(s, (1, 1), value=1.0),
    "in-place-write": lambda s: s.zero_(),
    "item-assignment": lambda s: s.__setitem__(0, 1.0),
    ".T": lambda s: s[0, 0].T,
    ".data": lambda s: s.data,
    "einsum": lambda s: torch.einsum("bchw,cd->bdhw", s, torch.ones(3, 2).double()),
    "cumsum": lambda s: s.cumsum(0),
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
