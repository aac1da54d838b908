"""A saved-tensor hook may lay out anew, or move, what a backward reads: the gradient stays the same."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

import fastsnn
from fastsnn.functional import standardize
from fastsnn.types import RULES

from ..cases import assert_same, current

T, N, C = 3, 4, 6


def contiguous(tensor):
    return tensor.clone(memory_format=torch.contiguous_format)


def reversed_order(tensor):
    """In the opposite order of dimensions: dense, and other strides for every tensor of several."""
    order = tuple(reversed(range(tensor.dim())))
    return contiguous(tensor.permute(order)).permute(order)


def gapped(tensor):
    """Not dense: an element of memory between any two."""
    return torch.stack([tensor, tensor.new_full((), 9).expand_as(tensor)], -1)[..., 0]


def one_of_a_kind(tensor):
    """Other orders for tensors that lay alike."""
    one_of_a_kind.count += 1
    return (contiguous, reversed_order, gapped)[one_of_a_kind.count % 3](tensor)


one_of_a_kind.count = 0
PACK = {f.__name__: f for f in (contiguous, reversed_order, gapped, one_of_a_kind)}


def lif(rule, **kwargs):
    return fastsnn.LIF.for_rule(rule, v_threshold=0.4, **kwargs)


def empf(version, mode):
    return fastsnn.EMPF(T, version, channels=C, per_channel=True, threshold=0.1, step_mode=mode)


LAYERS = {
    **{f"{rule}-{mode}": lambda r=rule, m=mode: lif(r, step_mode=m, dropout=0.3) for rule in RULES for mode in "sm"},
    "v_seq": lambda: fastsnn.LIF(step_mode="m", store_v_seq=True),
    "ots": lambda: lif("ottt", threshold="ots", dropout=0.3),
    **{f"empf-{v}-{mode}": lambda v=v, m=mode: empf(v, m) for v in ("I", "II", "III") for mode in "sm"},
    "osr": lambda: fastsnn.OSR2d(C, T),
    "osrlif": lambda: fastsnn.OSRLIF.for_rule("ottt", C, T, dropout=0.3),
    "osrlif-ots": lambda: fastsnn.OSRLIF.for_rule("ottt", C, T, dropout=0.3, threshold="ots"),
    "binary": lambda: fastsnn.BinaryConv2d(C, 5, 3),
    "ws": lambda: fastsnn.WSConv2d(C, 5, 3),
    "ws-linear": lambda: nn.Sequential(nn.Flatten(), fastsnn.WSLinear(C * 20, 5)),
}


def gradients(make, hook, channels_last):
    torch.manual_seed(0)
    one_of_a_kind.count = 0
    layer, x = make(), current(T, N, C, 5, 4)
    if channels_last:
        x = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    x = x.requires_grad_()
    sequence = getattr(layer, "step_mode", "s") == "m"
    with hook:
        rows = [layer(x_t) for x_t in ([x] if sequence else x)]
    loss = sum(((1 + t) * fastsnn.nn.plain(s)).square().sum() for t, s in enumerate(rows))
    if isinstance(layer, fastsnn.LIF) and not RULES[layer.rule].online:
        loss = loss + layer.v.square().sum()
    learned = [p for p in layer.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, [x, *learned])


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_do_not_depend_on_how_a_hook_lays_out(name, pack, channels_last):
    expected = gradients(LAYERS[name], saved_tensors_hooks(lambda t: t, lambda t: t), channels_last)
    got = gradients(LAYERS[name], saved_tensors_hooks(PACK[pack], lambda t: t), channels_last)
    assert_same(got, expected, rtol=1e-4, atol=1e-5)
    unpacked = gradients(LAYERS[name], saved_tensors_hooks(lambda t: t, PACK[pack]), channels_last)
    assert_same(unpacked, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_saved_on_the_cpu(name):
    expected = gradients(LAYERS[name], saved_tensors_hooks(lambda t: t, lambda t: t), True)
    assert_same(gradients(LAYERS[name], save_on_cpu(), True), expected, rtol=1e-4, atol=1e-5)


def test_parameters_in_any_layout():
    x, table = current(N, C, 5, 4), torch.rand(2, C, 4)
    leak, threshold = table[0, :, 1], table[1, :, 2]
    expected = fastsnn.functional.empf_step(x, x, leak=leak.contiguous(), threshold=threshold.contiguous())
    assert_same(fastsnn.functional.empf_step(x, x, leak=leak, threshold=threshold), expected)
    weight = torch.rand(5, 7, 2)[..., 0]
    assert_same(standardize(weight, torch.ones(5, 2)[:, :1]), standardize(weight.contiguous(), torch.ones(5, 1)))
