"""Weight-standardised layers and Scale."""

import copy
import pickle
from functools import partial
from unittest import mock

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn.functional import standardize
from fastsnn.nn.weights import standardized_once
from fastsnn.ops import standardize as op

from ..cases import DTYPES, assert_same, dtype_id

LAYERS = {
    "linear": (lambda: fastsnn.WSLinear(7, 5), (3, 7)),
    "conv": (lambda: fastsnn.WSConv2d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 8, 8)),
    "conv-no_bias": (lambda: fastsnn.WSConv2d(4, 6, 3, bias=False, padding="same"), (3, 4, 8, 8)),
    "conv-circular": (lambda: fastsnn.WSConv2d(4, 6, 3, padding=1, padding_mode="circular"), (3, 4, 8, 8)),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    make, shape = LAYERS[request.param]
    layer = make().double()
    nn.init.uniform_(layer.gain)
    layer.example = torch.randn(shape, dtype=torch.float64)
    return layer


@pytest.fixture
def computed():
    """Counts how often a standardised weight is computed."""
    with mock.patch.object(op, "compute", wraps=op.compute) as compute:
        yield compute


def plain_of(layer):
    """The torch layer that has the standardised weight."""
    weight = {"weight": standardize(layer.weight, layer.gain).detach()}
    bases = {fastsnn.WSLinear: nn.Linear, fastsnn.WSConv2d: nn.Conv2d}
    plain = copy.deepcopy(layer)
    plain.__class__ = bases[type(layer)]
    del plain.gain
    plain.load_state_dict(weight | ({} if layer.bias is None else {"bias": layer.bias}))
    return plain


def test_is_the_plain_layer_with_the_standardised_weight(layer):
    assert_same(layer(layer.example), plain_of(layer)(layer.example))


def test_gradients(layer):
    plain = plain_of(layer)
    layer(layer.example).sum().backward()
    plain(layer.example).sum().backward()
    expected = torch.autograd.grad(standardize(layer.weight, layer.gain), (layer.weight, layer.gain), plain.weight.grad)
    assert_same((layer.weight.grad, layer.gain.grad), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_every_dtype_trains(dtype):
    layer = fastsnn.WSLinear(7, 5).to(dtype)
    layer(torch.ones(3, 7, dtype=dtype)).sum().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {dtype}


def test_the_rows_are_centred_and_scaled():
    weight = fastsnn.WSConv2d(4, 6, 3).double().standardized_weight().flatten(1)
    assert_same(weight.sum(1), torch.zeros(6, dtype=torch.float64), atol=1e-12)
    assert_same(weight.square().sum(1), torch.full((6,), 35 / 36, dtype=torch.float64), rtol=1e-3)


def test_gain_starts_at_one_and_is_saved():
    layer = fastsnn.WSConv2d(4, 6, 3)
    assert layer.state_dict().keys() == {"weight", "bias", "gain"}
    assert_same(layer.gain.detach(), torch.ones(6, 1, 1, 1))


@pytest.mark.parametrize("make", [lambda: fastsnn.WSLinear(1, 5), lambda: fastsnn.WSConv2d(4, 4, 1, groups=4)])
def test_fan_in_of_one_is_refused(make):
    with pytest.raises(ValueError, match=r"weight has shape \([45], 1.*fan-in of 1 has no variance.*plain layer"):
        make()


def test_computed_once_for_all_steps_of_a_sequence(layer, computed):
    for _ in range(3):
        layer(layer.example).sum().backward()
    assert computed.call_count == 1


def _step(layer):
    layer(layer.example).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1).step()


def _to(layer):
    layer.to(torch.bfloat16).to(torch.float64)


CHANGES = {
    "optimizer": _step,
    "gain": lambda layer: nn.init.constant_(layer.gain, 3.0),
    "in_place": lambda layer: layer.weight.detach().mul_(-1),
    "data": lambda layer: layer.weight.data.mul_(-1),
    "new_data": lambda layer: setattr(layer.weight, "data", -layer.weight.data),
    "new_parameter": lambda layer: setattr(layer, "weight", nn.Parameter(-layer.weight.detach())),
    "load": lambda layer: layer.load_state_dict(layer.state_dict() | {"weight": -layer.weight}),
    "cast": _to,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_computed_again(layer, change):
    before = layer(layer.example)
    CHANGES[change](layer)
    after = layer(layer.example)
    assert not torch.equal(after, before)
    assert_same(after, plain_of(layer)(layer.example))


def test_memory_that_is_used_again_is_not_taken_for_the_same_weight():
    layer, x, gain = fastsnn.WSLinear(7, 5), torch.randn(3, 7), torch.ones(5, 1)

    def run(seed):
        weight = torch.empty(5, 7).normal_(generator=torch.Generator().manual_seed(seed))
        return torch.func.functional_call(layer, {"weight": weight, "gain": gain}, x).sum().item()

    assert len({run(seed) for seed in range(40)}) == 40


def test_an_update_before_backward_raises(layer):
    out = layer(layer.example)
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_are_independent(layer, duplicate):
    out = layer(layer.example)
    other = duplicate(layer)
    assert_same(other(layer.example), out)
    nn.init.zeros_(other.gain)
    assert_same(layer(layer.example), out)


@pytest.mark.parametrize(
    ("weight", "gain", "error", "message"),
    [
        (torch.ones(3, 4, dtype=torch.int64), torch.ones(3), TypeError, r"weight has dtype torch\.int64; allowed"),
        (torch.ones(3), torch.ones(3), ValueError, r"weight has shape \(3,\)"),
        (torch.ones(3, 1), torch.ones(3), ValueError, r"weight has shape \(3, 1\).*at least 2"),
        (torch.ones(3, 4), torch.ones(4), ValueError, r"gain has shape \(4,\).*\(3\) of weight's"),
        (torch.ones(3, 4), torch.ones(3).double(), ValueError, r"gain .*torch\.float64.*weight's dtype torch\.float32"),
    ],
    ids=["integer", "vector", "fan_in", "gain_shape", "gain_dtype"],
)
def test_operands_that_do_not_fit(weight, gain, error, message):
    with pytest.raises(error, match=message):
        standardize(weight, gain)


def test_scale():
    assert_same(fastsnn.Scale()(torch.ones(3)), torch.full((3,), 2.74))
    assert repr(fastsnn.Scale(3)) == "Scale(factor=3.0)"


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_factor_in_the_weights_is_a_scale_before_the_layer(kind):
    make = partial(fastsnn.WSLinear, 5, 3) if kind == "linear" else partial(fastsnn.WSConv2d, 5, 3, 3, padding=1)
    scaled, folded = make().double(), make(factor=2.74).double()
    nn.init.uniform_(scaled.gain)
    folded.load_state_dict(scaled.state_dict())
    x = torch.randn(2, 5, dtype=torch.float64) if kind == "linear" else torch.randn(2, 5, 4, 4, dtype=torch.float64)
    results = []
    for layers in ((fastsnn.Scale(), scaled), (folded,)):
        net, current = nn.Sequential(fastsnn.LIF.for_rule("ottt"), *layers), x.clone().requires_grad_()
        for _ in range(3):
            out = fastsnn.nn.plain(net(current))
            out.square().sum().backward()
        results.append([out, current.grad, *(p.grad for p in net.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_factor_is_shown_and_copied():
    layer = fastsnn.WSLinear(5, 3, factor=2.74)
    assert repr(layer).endswith(", factor=2.74)")
    assert "factor" not in repr(fastsnn.WSLinear(5, 3))
    assert pickle.loads(pickle.dumps(layer)).factor == copy.deepcopy(layer).factor == 2.74


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_is_finite(factor):
    with pytest.raises(ValueError, match=f"factor is {factor}; it must be a finite number"):
        fastsnn.WSLinear(5, 3, factor=factor)


def test_what_is_computed_in_inference_mode_serves_training_with_a_factor():
    layer, x = fastsnn.WSLinear(5, 3, factor=2.74), torch.randn(2, 5)
    with torch.inference_mode():
        expected = layer(x)
    out = layer(x)
    out.sum().backward()
    assert_same(out.detach(), expected.clone())
    assert layer.weight.grad is not None
    assert layer.gain.grad is not None


def test_a_pickle_from_before_factors_has_none():
    state = fastsnn.WSLinear(5, 3).__getstate__()
    del state["factor"]
    layer = fastsnn.WSLinear.__new__(fastsnn.WSLinear)
    layer.__setstate__(state)
    assert layer.factor == 1


def test_what_is_handed_out_is_not_what_the_layer_computes_with(layer):
    before = layer(layer.example)
    plain = nn.Parameter(layer.standardized_weight().detach())
    with torch.no_grad():
        plain.mul_(0.5)
        layer.standardized_weight().zero_()
    assert_same(layer(layer.example), before)
    assert_same(layer.standardized_weight(), standardize(layer.weight, layer.gain))


def test_a_weight_computed_under_inference_mode_trains(layer):
    with torch.inference_mode():
        expected = layer(layer.example).clone()
    out = layer(layer.example)
    assert_same(out.detach(), expected)
    out.sum().backward()
    assert layer.weight.grad.any()


def three_steps(layer, before_each=lambda t: None):
    """Gradients of weight and gain after three backwards."""
    layer.zero_grad()
    for t in range(3):
        before_each(t)
        layer((t + 1) * layer.example).square().sum().backward()
    return gradients_of(layer)


def gradients_of(layer):
    return tuple(p.grad for name, p in layer.named_parameters() if name != "bias")


def once(layer, before_each=lambda t: None):
    with standardized_once(nn.ModuleList([layer])):
        three_steps(layer, before_each)
    return gradients_of(layer)


@pytest.fixture
def gradients():
    """Counts how often a gradient of a standardisation is computed, for one call or several."""
    for_one, for_several = op.Standardize.backward, op.gradient
    counted = mock.Mock()

    def count(fn):
        return lambda *given: (counted(), fn(*given))[1]

    patch = partial(mock.patch.object, op)
    with mock.patch.object(op.Standardize, "backward", count(for_one)), patch("gradient", count(for_several)):
        yield counted


@pytest.mark.parametrize("factor", [1.0, 2.74])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_standardised_once_for_all_steps_of_a_batch(layer, computed, gradients, factor, layout):
    layer.factor = factor
    layer.to(memory_format=layout) if layer.weight.dim() == 4 else None
    expected = three_steps(layer)
    gradients.reset_mock()
    with torch.no_grad():
        layer.weight.mul_(1)  # seen by its version alone
    assert_same(once(layer), expected, rtol=1e-12, atol=1e-12)
    assert computed.call_count == gradients.call_count == 1
    assert layer.weight.grad.stride() == layer.weight.stride()
    assert layer._once is None


def test_a_layer_that_is_not_called_in_a_batch_computes_nothing(layer, computed):
    with standardized_once(layer):
        pass
    computed.assert_not_called()
    assert layer.weight.grad is None


def test_of_a_batch_gradients_that_were_there_are_added_to(layer):
    layer(layer.example).square().sum().backward()
    grads = gradients_of(layer)
    layer.weight.grad, layer.gain.grad = torch.ones_like(layer.weight), torch.ones_like(layer.gain)
    kept = layer.weight.grad
    with standardized_once(layer):
        layer(layer.example).square().sum().backward()
    assert layer.weight.grad is kept
    assert_same((layer.weight.grad - 1, layer.gain.grad - 1), grads, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("frozen", ["weight", "gain"])
def test_of_a_batch_what_is_frozen_has_no_gradient(layer, frozen):
    getattr(layer, frozen).requires_grad_(False)
    expected = three_steps(layer)
    assert_same(once(layer), expected, rtol=1e-12, atol=1e-12)
    assert getattr(layer, frozen).grad is None


def in_place(layer, t):
    with torch.no_grad():
        layer.weight.mul_(1 + t)


def by_data(layer, t):
    layer.weight.data = layer.weight.data * (1 + t)


def another_gain(layer, t):
    if t == 1:
        layer.gain = nn.Parameter(torch.rand_like(layer.gain))


@pytest.mark.parametrize("change", [in_place, by_data])
def test_of_a_batch_weights_that_change_are_standardised_anew(layer, change):
    before = layer.weight.detach().clone()
    expected = three_steps(layer, partial(change, layer))
    layer.weight.data = before
    assert_same(once(layer, partial(change, layer)), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["weight", "gain"])
def test_of_a_batch_a_write_through_data_is_refused(layer, name):
    def write(t):
        if t == 1:
            getattr(layer, name).data.mul_(1.5)

    with pytest.raises(RuntimeError, match=r"written through \.data between the steps"):
        once(layer, write)
    assert layer._once is None
    assert layer.weight.grad is None
    assert_same(three_steps(layer), once(layer), rtol=1e-12, atol=1e-12)


def test_of_a_batch_weights_that_are_not_numbers_are_no_write(layer):
    with torch.no_grad():
        layer.weight.flatten()[0] = float("nan")
    once(layer)
    assert layer.gain.grad.isnan().any()


def test_of_a_batch_another_gain_has_its_own_gradient(layer):
    first = layer.gain
    once(layer, partial(another_gain, layer))
    assert layer.gain is not first
    layer.gain, second = first, layer.gain
    of_first, of_second = first.grad.clone(), second.grad.clone()
    layer.zero_grad()
    layer(layer.example).square().sum().backward()
    assert_same(of_first, layer.gain.grad)
    layer.gain = second
    layer.zero_grad()
    for t in (2, 3):
        layer(t * layer.example).square().sum().backward()
    assert_same(of_second, layer.gain.grad)


@pytest.mark.parametrize("name", ["register_hook", "register_post_accumulate_grad_hook"])
def test_of_a_batch_hooks_of_weights_see_every_step(layer, name):
    seen = []
    getattr(layer.weight, name)(lambda *_: seen.append(1))
    once(layer)
    assert len(seen) == 3


def test_of_a_batch_that_raises_nothing_is_left(layer):
    def fail(t):
        if t == 2:
            raise ArithmeticError("no")

    layer.zero_grad()
    with pytest.raises(ArithmeticError):
        once(layer, fail)
    assert layer._once is None
    assert layer.weight.grad is None
    assert_same(three_steps(layer), once(layer), rtol=1e-12, atol=1e-12)


def test_of_a_batch_parametrized_weights_have_their_gradient(layer):
    torch.nn.utils.parametrizations.weight_norm(layer)
    expected = three_steps(layer)
    assert_same(once(layer), expected, rtol=1e-12, atol=1e-12)
