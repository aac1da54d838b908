"""The papers' networks: sizes of their tables, every rule and norm in training, recurrence against one by hand."""

import copy
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import models, online
from fastsnn.models.registry import MODELS
from fastsnn.models.vgg import features, head
from fastsnn.nn.osr import OSR
from fastsnn.types import RULES

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = (8, 8, 12, 16)
ONLINE = [rule for rule, traits in RULES.items() if traits.online]


def count(net, *without):
    """Parameters, those of layers of the classes `without` left out."""
    left_out = {id(p) for m in net.modules() if isinstance(m, without) for p in m.parameters()}
    return sum(p.numel() for p in net.parameters() if id(p) not in left_out)


def made(name, **options):
    with torch.device("meta"):
        return models.create_model(name, **options)


def tiny(name, **options):
    """A network of that name with few channels where it takes widths."""
    taken = inspect.signature(MODELS[name]).parameters
    if "widths" in taken:
        options["widths"] = SMALL[1:] if name == "spiking_resnet19" else SMALL
    if "size" in taken:
        options["size"] = 16
    if "hidden" in taken:
        options["hidden"] = 9
    torch.manual_seed(0)
    return models.create_model(name, **options)


def inputs(name, steps, batch=2):
    rng = torch.Generator().manual_seed(1)
    taken = inspect.signature(MODELS[name]).parameters
    if "in_features" in taken:
        shape = (taken["in_features"].default,)
    else:
        edge = 16 if name.startswith(("vgg", "empf_vgg")) else 8
        edge = 32 if "stem" in taken and taken["stem"].default == "imagenet" else edge
        shape = (taken["in_channels"].default, edge, edge)
    x = torch.randn(steps, batch, *shape, generator=rng)
    return x, torch.randint(5, (batch,), generator=rng)


# float32 bytes over four of the papers' tables, which leave norms out (Hao et al. 2024, table 2; Xiao et al. 2022)
SIZES = [
    ("vgg", {"num_classes": 100}, 9.27e6),
    ("vgg_f", {"num_classes": 100}, 9.57e6),
    ("preact_resnet18", {}, 44.66e6 / 4),
    ("preact_resnet18", {"num_classes": 100}, 44.84e6 / 4),
    ("sew_resnet18", {"num_classes": 100}, 44.84e6 / 4),
    ("spiking_resnet34", {}, 87.12e6 / 4),
    ("nf_resnet34", {}, 87.12e6 / 4),
    ("spiking_resnet19", {}, 50.48e6 / 4),
    ("spiking_resnet19", {"num_classes": 100}, 50.57e6 / 4),
    ("vgg13", {}, 38.02e6 / 4),
    ("vggsnn", {}, 37.05e6 / 4),
]


@pytest.mark.parametrize(("name", "options", "weights"), SIZES, ids=lambda value: str(value))
def test_weights_are_those_of_the_papers_tables(name, options, weights):
    """As many digits as the paper prints."""
    found = count(made(name, **options), OSR, fastsnn.LIF)
    assert found == pytest.approx(weights, rel=1.5e-3)


# bytes at 2 bits a weight of a binary synapse and 4 bytes of the first and the last (Hao et al. 2024, table 2)
STORED = [
    ("empf_resnet18", {}, "2.82"),
    ("empf_resnet18", {"num_classes": 100}, "3.00"),
    ("empf_resnet18", {"in_channels": 2}, "2.81"),
    ("empf_resnet34", {}, "7.40"),
    ("empf_vgg13", {}, "2.77"),
    ("empf_vggsnn", {}, "2.49"),
]


@pytest.mark.parametrize(("name", "options", "megabytes"), STORED, ids=lambda value: str(value))
def test_stored_bytes_are_those_of_the_papers_table(name, options, megabytes):
    net = made(name, **options)
    synapses = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    stored = sum(
        m.weight.numel() * (0.25 if isinstance(m, fastsnn.BinaryConv2d) else 4)
        + 4 * (m.bias is not None and len(m.bias))
        for m in synapses
    )
    assert f"{stored / 1e6:.2f}" == megabytes


def test_seca_adds_its_kernels_alone():
    plain, attended = made("empf_resnet18"), made("empf_resnet18", version="II", seca="II")
    layers = [m for m in attended.modules() if isinstance(m, fastsnn.SECA)]
    assert len(layers) == 8 + 5  # second convolutions, and first ones that keep the shape
    assert count(attended, fastsnn.EMPF) == count(plain, fastsnn.EMPF) + sum(count(m) for m in layers)
    assert all(count(m) == 3 for m in layers)


def kinds():
    """Every network with every norm it takes."""
    for name, make in MODELS.items():
        taken = inspect.signature(make).parameters
        yield from ((name, norm) for norm in (models.NORMS if "norm" in taken else [None]))


@pytest.mark.parametrize(("name", "norm"), list(kinds()))
def test_every_network_trains_online(name, norm):
    steps, taken = 2, inspect.signature(MODELS[name]).parameters
    options = {} if norm is None else {"norm": norm}
    options |= {"steps": steps} if "steps" in taken else {}
    net = tiny(name, num_classes=5, **options)
    x, y = inputs(name, steps)
    result = online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 0.0), mode="A")
    assert result.samples == 2
    fastsnn.reset(net)
    for x_t in x:
        online.loss(fastsnn.nn.plain(net(x_t)), y, steps).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["vgg_f", "preact_resnet18", "sew_resnet18", "ms_resnet18", "nf_resnet18", "r400"])
def test_every_rule_trains(name, rule):
    options = {"norm": "bn", "steps": 2} if name.endswith("resnet18") and name != "nf_resnet18" else {}
    net = tiny(name, rule=rule, num_classes=5, **options)
    before = copy.deepcopy(net.state_dict())
    x, y = inputs(name, 2)
    online.train_batch(net, x, y, torch.optim.SGD(net.parameters(), 0.1), mode="A")
    assert any(not torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(value.isfinite().all() for value in net.state_dict().values())


def two_pass(cell, x, y, lam):
    """Weight gradients of Recurrent + readout, by hand: values on spikes, weight gradients on traces."""
    layer, readout = cell[1], cell[2]
    spikes = trace = v = None
    for x_t in x:
        current = layer.input(x_t)
        if spikes is not None:
            value = layer.recurrent(spikes)
            on_trace = layer.recurrent(trace)
            current = current + value.detach() + on_trace - on_trace.detach()
        u = current + (0 if v is None else lam * v)
        fired = (u >= 1).to(u.dtype)
        q = torch.sigmoid(4 * (u - 1))
        s = fired + q - q.detach()
        v = (u - fired).detach()
        trace = (fired if trace is None else lam * trace + fired).detach()
        # the readout's weight takes the trace, its input the spikes
        value = torch.nn.functional.linear(s, readout.weight.detach())
        on_trace = torch.nn.functional.linear(trace, readout.weight, readout.bias)
        logits = value - value.detach() + on_trace - on_trace.detach() + readout(fired).detach()
        online.loss(logits, y, len(x)).backward()
        spikes = fired


def test_recurrent_spikes_are_a_traced_input():
    style = models.Style("ottt", "none")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Identity(), models.Recurrent(7, 11, style), nn.Linear(11, 4)).double()
    by_hand = copy.deepcopy(net)
    x, y = 2 * torch.randn(5, 6, 7).double(), torch.randint(4, (6,))
    for x_t in x:
        online.loss(net(x_t), y, len(x)).backward()
    two_pass(by_hand, x, y, 0.5)
    assert net[1].recurrent.weight.grad.abs().max() > 0
    for (name, p), q in zip(net.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("rule", RULES)
def test_a_delay_passes_gradients_back_under_rules_through_time_alone(rule):
    cell = models.Recurrent(3, 4, models.Style(rule, "none"))
    cell(torch.rand(2, 3, requires_grad=True))
    assert fastsnn.nn.plain(cell.delay.last).requires_grad is not RULES[rule].online


def test_feedback_starts_at_the_second_step_and_ends_with_the_sequence():
    net = models.create_model("vgg_f", num_classes=5, v_threshold=0.1).eval()
    plain = nn.Sequential(net.first, *net.rest, *net.head)
    nn.init.normal_(net.feedback.weight)
    x = torch.randn(2, 2, 3, 8, 8)
    with torch.no_grad():
        first, second = net(x[0]), net(x[1])
        fastsnn.reset(net)
        assert torch.equal(net(x[0]), first)
        fastsnn.reset(net)
        assert torch.equal(plain(x[0]), first)
        assert not torch.equal(plain(x[1]), second)


def test_single_samples_of_a_recurrent_network_start_anew():
    cell = models.Recurrent(3, 4, models.Style("ottt", "none", neuron={"v_threshold": 0.3}))
    x, mask = torch.randn(3, 5, 3), torch.tensor([True, False, False, True, False])
    cell(x[0]), cell(x[1])
    fastsnn.reset(cell, mask)
    mixed = fastsnn.nn.plain(cell(x[2]))
    fastsnn.reset(cell)
    assert torch.equal(mixed[mask], fastsnn.nn.plain(cell(x[2]))[mask])
    fastsnn.reset(cell)
    cell(x[0]), cell(x[1])
    assert torch.equal(mixed[~mask], fastsnn.nn.plain(cell(x[2]))[~mask])
    with pytest.raises(ValueError, match="mask has 2 samples"):
        fastsnn.reset(cell, mask[:2])


@pytest.mark.parametrize(("name", "shape"), [("r400", (784,)), ("shd", (700,)), ("vgg_f", (3, 8, 8))])
@pytest.mark.parametrize(("first", "then"), [(4, 1), (1, 4), (4, 2)])
def test_a_forgotten_reset_is_refused_before_samples_are_broadcast(name, shape, first, then):
    net = models.create_model(name)
    net(torch.randn(first, *shape))
    with pytest.raises(ValueError, match=f"had {first} samples and this one has {then}: call fastsnn.reset"):
        net(torch.randn(then, *shape))
    fastsnn.reset(net)
    assert fastsnn.nn.plain(net(torch.randn(then, *shape))).shape[0] == then


@pytest.mark.parametrize("rule", ["ottt", "bptt"])
def test_delay_is_copied_without_its_graph(rule):
    cell = models.Recurrent(3, 4, models.Style(rule, "none"))
    cell(torch.randn(2, 3, requires_grad=True) + 2)
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert torch.equal(other.delay.state.spikes, cell.delay.state.spikes)
        assert not other.delay.state.spikes.requires_grad
    saved = fastsnn.states(cell)
    fastsnn.reset(cell)
    assert cell.delay.last is None
    fastsnn.load_states(cell, saved)
    assert cell.delay.last is not None


@pytest.mark.parametrize("rule", ["ottt", "ndot_released"])
def test_golden_network_of_these_parts(rule):
    """The authors' released code, built from `models.Style` and the VGG's features."""
    data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{rule}.npz").items()}
    style = models.Style(rule, "sws")
    body = features((8, "A", 10, "A"), style, 3)
    net = nn.Sequential(*body, *head(style, nn.Identity(), 40, 5)).double()
    synapses = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for synapse, name in zip(synapses, ("conv1", "conv2", "fc"), strict=True):
        synapse.load_state_dict({key: data[f"param/{name}.{key}"] for key in synapse.state_dict()})
    x, y = data["x"][0], data["y"][0]
    for t, x_t in enumerate(x):
        logits = fastsnn.nn.plain(net(x_t))
        torch.testing.assert_close(logits.detach(), data[f"logits/{t}"], rtol=0, atol=1e-10)
        online.loss(logits, y, len(x)).backward()
    for synapse, name in zip(synapses, ("conv1", "conv2", "fc"), strict=True):
        for key, p in synapse.named_parameters():
            torch.testing.assert_close(p.grad, data[f"grad/{name}.{key}"], rtol=0, atol=1e-10)


def test_normalisation_free_variance_restarts_after_a_transition():
    net = tiny("nf_resnet34")
    betas = [block.beta**2 for block in net if isinstance(block, models.NFBlock)]
    grown = [1 + 0.04 * i for i in range(7)]
    stages = [grown[:3], [grown[3], *grown[1:4]], [grown[4], *grown[1:6]], [grown[6], *grown[1:3]]]
    assert betas == pytest.approx([beta for stage in stages for beta in stage])
    assert all(block.skip_gain.item() == 0 for block in net if isinstance(block, models.NFBlock))


def test_names_are_listed_and_matched():
    assert models.list_models("vgg*") == ["vgg", "vgg11", "vgg13", "vgg_f", "vggsnn"]
    assert set(models.list_models()) == set(MODELS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vg11", {}, "model is 'vg11'; .*Did you mean vgg11"),
        ("vgg", {"num_class": 3}, "num_class is no option of vgg.*Did you mean num_classes"),
        ("vgg", {"v_treshold": 2.0}, "v_treshold is no option of vgg.*Did you mean v_threshold"),
        ("vgg", {"rule": "stdp"}, "rule is 'stdp'; allowed"),
        ("vgg", {"norm": "ln"}, "norm is 'ln'; allowed"),
        ("vgg", {"norm": "osr"}, "needs steps"),
        ("vgg", {"norm": "osr+ots", "steps": 4, "rule": "ndot"}, "takes rule 'sltt' or 'ottt'"),
        ("preact_resnet18", {"stem": "mnist"}, "stem is 'mnist'; allowed"),
        ("preact_resnet18", {"widths": (8, 8, 8)}, r"widths is \(8, 8, 8\); it must be 4 whole numbers of at least 1"),
        ("spiking_resnet19", {"widths": 8}, "widths is 8; it must be 3 whole numbers of at least 1"),
        ("empf_resnet18", {"widths": (8, 8, 8, 0)}, "it must be 4 whole numbers of at least 1"),
        ("vgg", {"num_classes": 0}, "num_classes is 0; it must be a whole number of at least 1"),
        ("vgg", {"norm": "osr", "steps": 2.5}, "steps is 2.5; it must be a whole number of at least 1"),
        ("vgg", {"norm": "osr", "steps": True}, "steps is True; it must be a whole number of at least 1"),
        ("nf_resnet18", {"in_channels": -3}, "in_channels is -3; it must be a whole number of at least 1"),
        ("shd", {"layers": 0}, "layers is 0; it must be a whole number of at least 1"),
        ("r400", {"hidden": "many"}, "hidden is 'many'; it must be a whole number of at least 1"),
        ("spikformer", {"heads": 0}, "heads is 0; it must be a whole number of at least 1"),
        ("spikformer", {"poolings": -1}, "poolings is -1; it must be a whole number of at least 0"),
        ("vggsnn", {"size": 8}, "size is 8; it must be at least 16"),
        ("empf_vggsnn", {"size": 8}, "size is 8; it must be at least 16"),
        ("empf_resnet18", {"weights": "ternary"}, "weights is 'ternary'; allowed"),
    ],
)
def test_what_does_not_fit_is_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create_model(name, **options)
