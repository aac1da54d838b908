"""Derivatives and tracers beyond a plain backward: right, or refused with a reason; never dropped."""

import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import fastsnn
from fastsnn.functional import empf_norm_step, empf_sequence, empf_step, lif_sequence, lif_step
from fastsnn.nn import plain

from ..cases import ONLINE, RULES, assert_same, current

CONSTANT = {"leak": torch.tensor(0.5), "threshold": torch.tensor(0.3)}
NORM = {**CONSTANT, "alpha": torch.tensor(1.0), "beta": torch.tensor(0.5)}
SOFT = {"decay_input": False, "v_reset": None}


def frozen(layer):
    return layer.requires_grad_(False)


# of an input [6, 5] with gradient, twice differentiable or not
LAYERS = {
    **{f"step {rule}": lambda x, rule=rule: lif_step(x, **SOFT, rule=rule).spikes for rule in RULES},
    **{f"sequence {rule}": lambda x, rule=rule: lif_sequence(x, **SOFT, rule=rule).spikes for rule in RULES},
    "v of bptt": lambda x: lif_step(x, **SOFT).v,
    "ots": lambda x: fastsnn.LIF.for_rule("sltt", threshold="ots")(x),
    "mpdr": lambda x: fastsnn.LIF.for_rule("sltt", mpdr=fastsnn.online.MPDR(0, 1, 1, propagate=True))(x),
    "osr": lambda x: frozen(fastsnn.OSR1d(5, 2))(x),
    "osrlif": lambda x: frozen(fastsnn.OSRLIF.for_rule("ottt", 5, 2))(x),
    "osrlif ots": lambda x: frozen(fastsnn.OSRLIF.for_rule("ottt", 5, 2, threshold="ots"))(x),
    "empf I": lambda x: empf_step(x, **CONSTANT).spikes,
    "empf I sequence": lambda x: empf_sequence(x, leak=torch.full((6,), 0.5), threshold=torch.ones(6)).spikes,
    "empf II": lambda x: empf_norm_step(x, **NORM, weight=torch.ones(5), bias=torch.zeros(5)).spikes,
    "empf III": lambda x: empf_step(x, leak=None, threshold=torch.tensor(0.3)).spikes,
    "standardize": lambda x: fastsnn.functional.standardize(x, torch.ones(6, 1)),
    "binarize": lambda x: fastsnn.functional.binarize(x),
}


@pytest.mark.parametrize("loss_too", [False, True], ids=["penalty", "loss and penalty"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_penalty_on_a_gradient_is_refused_where_nothing_told_of_it(name, loss_too):
    """Incoming gradients are constants, and the derivative is asked for x alone."""
    x = (0.3 * current(6, 5)).requires_grad_()
    y = plain(LAYERS[name](x))
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert g.grad_fn is not None
    with pytest.raises(RuntimeError, match=r"first order \(once_differentiable\).*gradient penalty"):
        torch.autograd.grad(g.square().sum() + (y.sum() if loss_too else 0), x)


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_a_penalty_is_refused_for_weights_and_in_networks(rule):
    net = nn.Sequential(nn.Linear(7, 9), fastsnn.LIF.for_rule(rule), nn.Linear(9, 4))
    x = current(3, 7).requires_grad_()
    loss = plain(net(x)).square().sum()
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    for wanted in (net[0].weight, net[2].weight):
        with pytest.raises(RuntimeError, match="once_differentiable"):
            torch.autograd.grad(loss + g.square().sum(), wanted, retain_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.square().sum().backward()


@pytest.mark.parametrize("rule", ["ottt", "ndot", "ndot_released"])
@pytest.mark.parametrize("synapse", [nn.Linear(8, 5), nn.Conv2d(2, 3, 2)], ids=["linear", "conv"])
def test_a_penalty_on_a_weights_gradient_is_refused_for_the_neurons_below(synapse, rule):
    x = current(3, 8) if isinstance(synapse, nn.Linear) else current(3, 2, 4, 4)
    below = nn.Parameter(torch.ones(()))
    loss = synapse(fastsnn.LIF.for_rule(rule)(below * x)).sum()
    (g,) = torch.autograd.grad(loss, synapse.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.grad(loss + g.square().sum(), below)


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_create_graph_alone_changes_no_gradient(rule):
    x, grads = current(3, 7), []
    for graph in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(7, 9), fastsnn.LIF.for_rule(rule), nn.Linear(9, 4))
        loss = net(x).square().sum()
        grads.append([g.detach() for g in torch.autograd.grad(loss, [*net.parameters()], create_graph=graph)])
    assert_same(grads[1], grads[0])


DUAL = {
    **{f"lif {rule}": lambda d, rule=rule: lif_step(d, **SOFT, rule=rule).spikes for rule in RULES},
    "v of lif": lambda d: lif_step(torch.zeros_like(d), d).v,
    "empf": lambda d: empf_step(d, **CONSTANT).spikes,
    "osr": lambda d: fastsnn.OSR1d(5, 2)(d),
    "osr in evaluation": lambda d: fastsnn.OSR1d(5, 2).eval()(d),
    "ots": lambda d: fastsnn.LIF.for_rule("sltt", threshold="ots")(d),
    "binarize": lambda d: fastsnn.functional.binarize(d),
    "standardize": lambda d: fastsnn.functional.standardize(d, torch.ones(6, 1)),
}


@pytest.mark.parametrize("grad", [False, True], ids=["no_grad", "grad"])
@pytest.mark.parametrize("name", DUAL)
def test_tangents_are_refused(name, grad):
    x = current(6, 5)
    with torch.set_grad_enabled(grad), forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(RuntimeError, match=r"jvp"):
            DUAL[name](dual)


def test_a_level_of_forward_mode_without_tangents_is_in_nobodys_way():
    x = current(6, 5)
    with forward_ad.dual_level():
        assert_same(lif_step(x).spikes, lif_step(x).spikes)


TAKEN = {
    "lif": lambda x: lif_step(x).spikes,
    "layer": lambda x: plain(fastsnn.LIF.for_rule("ottt")(x)),
    "empf": lambda x: empf_step(x, **CONSTANT).spikes,
    "osr": lambda x: fastsnn.OSR1d(5, 2)(x),
    "ots": lambda x: fastsnn.LIF.for_rule("sltt", threshold="ots")(x),
    "binarize": lambda x: fastsnn.functional.binarize(x),
}


@pytest.mark.parametrize("name", TAKEN)
def test_transforms_and_layouts_are_refused(name):
    x, layer = current(4, 6, 5), TAKEN[name]
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(layer)(x)
    with pytest.raises(RuntimeError, match="jvp"):
        torch.func.jvp(layer, (x[0],), (x[0],))
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda q: layer(q).sum())(x[0])
    with pytest.raises(RuntimeError, match=r"layout torch\.sparse_coo.*to_dense"):
        layer(x[0].to_sparse())
    with pytest.raises(RuntimeError, match=r"layout torch\._mkldnn"):
        layer(x[0].to_mkldnn())


@pytest.mark.parametrize("synapse", [fastsnn.WSLinear(5, 3), fastsnn.BinaryLinear(5, 3)], ids=["ws", "binary"])
def test_transforms_of_inputs_alone_are_refused_by_synapses_with_kernels(synapse):
    """Their weights are not transformed, and what a kernel allocates is."""
    x = current(6, 5)
    for transformed in (
        lambda: torch.vmap(synapse)(x),
        lambda: torch.func.jvp(synapse, (x,), (x,)),
        lambda: torch.func.grad(lambda x: synapse(x).sum())(x),
    ):
        with pytest.raises(RuntimeError, match=r"no rule for vmap, jvp and other torch\.func"):
            transformed()


@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_tensors_are_refused(layout):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = torch.nested.nested_tensor([torch.ones(2, 5), torch.ones(3, 5)], layout=layout)
    with pytest.raises(RuntimeError, match=r"nested \(jagged\).*pad it"):
        lif_step(x)


@pytest.mark.parametrize("rule", ONLINE)
def test_batches_of_gradients_are_refused(rule):
    x = current(3, 7).requires_grad_()
    y = plain(fastsnn.LIF.for_rule(rule)(x))
    with pytest.raises(RuntimeError, match="one gradient at a time"):
        torch.autograd.grad(y, x, torch.randn(5, 3, 7), is_grads_batched=True)


def test_a_tensor_whose_sign_is_a_bit_is_read_right():
    x = torch.complex(torch.zeros(4), torch.tensor([2.0, -2.0, 0.5, -0.5])).conj().imag
    assert x.is_neg()
    for values in (x, torch._neg_view(torch.tensor([-2.0, 2.0]))):
        assert_same(lif_step(values, **SOFT).spikes, lif_step(values.clone(), **SOFT).spikes)


def network(rule="ottt", steps=None):
    torch.manual_seed(0)
    mode = {} if steps is None else {"step_mode": "m"}
    return nn.Sequential(nn.Linear(7, 9), fastsnn.LIF.for_rule(rule, v_threshold=0.3, **mode), nn.Linear(9, 4))


@pytest.mark.parametrize("tracing", ["real", "fake"])
@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_make_fx_sees_the_kernels(rule, tracing):
    net = network(rule, 4)

    def gradients(x):
        fastsnn.reset(net)
        return torch.autograd.grad(plain(net(x)).square().sum(), [*net.parameters()])

    program = make_fx(gradients, tracing_mode=tracing, _allow_non_fake_inputs=True)(current(4, 3, 7))
    x = 3 * current(4, 3, 7)
    assert_same(program(x), gradients(x), rtol=1e-5, atol=1e-6)
    names = {str(node.target) for node in program.graph.nodes}
    assert {"fastsnn.lif_forward.default", "fastsnn.lif_backward.default"} <= names


@pytest.mark.parametrize(
    "make",
    [
        lambda: fastsnn.LIF.for_rule("ndot").eval(),
        lambda: fastsnn.EMPF(2, "II", 5),
        lambda: fastsnn.OSR1d(5, 2),
        lambda: fastsnn.OSRLIF.for_rule("sltt", 5, 2),
        lambda: fastsnn.OSRLIF.for_rule("sltt", 5, 2, threshold="ots"),
        lambda: fastsnn.LIF.for_rule("sltt", threshold="ots"),
        lambda: fastsnn.WSLinear(5, 5),
        lambda: fastsnn.BinaryLinear(5, 5),
    ],
    ids=["lif", "empf", "osr", "osrlif", "osrlif-ots", "ots", "ws", "binary"],
)
def test_fake_tensors_run_without_memory(make):
    with FakeTensorMode():
        y = plain(make()(torch.randn(6, 5)))
        assert type(y).__name__ == "FakeTensor"
        assert y.shape == (6, 5)


def test_a_state_of_fake_tensors_meets_no_kernel():
    layer = fastsnn.LIF.for_rule("sltt")
    with FakeTensorMode():
        layer(torch.randn(6, 5))
    with pytest.raises(Exception, match=r"[Ff]ake"):
        layer(torch.randn(6, 5))
    layer.reset()
    assert layer(torch.randn(6, 5)).shape == (6, 5)


@pytest.mark.parametrize("rule", RULES)
def test_counters_of_operations_leave_training_as_it_is(rule):
    x, grads = current(3, 7), []
    for counting in (False, True):
        net = network(rule)
        if counting:
            with FlopCounterMode(display=False) as counter:
                net(x).square().sum().backward()
            assert counter.get_total_flops() >= 2 * 3 * (7 * 9 + 9 * 4)
        else:
            net(x).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    assert_same(grads[1], grads[0], rtol=1e-6, atol=1e-7)


TRACED = {
    "LIF": (lambda: fastsnn.LIF(step_mode="m"), (4, 2, 7)),
    "EMPF": (lambda: fastsnn.EMPF(4, step_mode="m"), (4, 2, 7)),
    "OSR1d": (lambda: fastsnn.OSR1d(7, 2), (4, 7)),
    "WSLinear": (lambda: fastsnn.WSLinear(7, 5), (4, 7)),
    "BinaryLinear": (lambda: fastsnn.BinaryLinear(7, 5), (4, 7)),
    "packed": (lambda: fastsnn.deploy.pack(nn.Sequential(fastsnn.BinaryLinear(7, 5)).eval()), (4, 7)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRACED)
def test_jit_trace_makes_the_program(name):
    make, shape = TRACED[name]
    layer = make().eval()
    with torch.no_grad():
        program = torch.jit.trace(layer, 3 * torch.randn(shape), check_trace=False)
        fastsnn.reset(layer)
        x = 3 * torch.randn(shape)
        assert_same(program(x), layer(x), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_jit_trace_refuses_what_keeps_state_between_calls():
    with pytest.raises(RuntimeError, match="starts every call at t = 1 and keeps no state"):
        torch.jit.trace(fastsnn.LIF().eval(), torch.randn(4, 7))


def test_steps_of_mode_o_under_autocast_run_on_their_own_weights():
    """As with autocast around each forward, which is torch's documented use."""
    x, y, weights = current(4, 5, 8), torch.tensor([0, 1, 2, 0, 1]), []
    for by_hand in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), fastsnn.LIF.for_rule("ottt"), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(net.parameters(), 0.5)
        if by_hand:
            for x_t in x:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = fastsnn.online.loss(net(x_t), y, 4)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        else:
            with torch.autocast("cpu", torch.bfloat16):
                fastsnn.online.train_batch(net, x, y, optimizer)
        weights.append([p.detach() for p in net.parameters()])
    assert_same(weights[1], weights[0])
