"""The EM-PF reference against autograd of the formulas of equations/empf.md, and Theorem 4.2 of Hao et al. 2024."""

import pytest
import torch
import torch.nn.functional as F

from fastsnn.functional import empf_norm_step, empf_sequence, empf_step

from ..cases import assert_same, on_reference

T, C, EPS = 4, 3, 1e-5
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def double(*shape, low=None):
    return torch.randn(shape, dtype=torch.float64) if low is None else low + torch.rand(shape, dtype=torch.float64)


def leaves(**tensors):
    return {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}


def beside(parameter, x):
    """A parameter [] or [C] beside x [N, C, *]."""
    return parameter.view(-1, *[1] * (x.dim() - 2)) if parameter.dim() else parameter


def float_spikes(m, threshold):
    """s = (m - th)*f and v = m - s, with no gradient through the step function f."""
    f = (m >= threshold).to(m)
    s = (m - threshold) * f
    return s, m - s


def explicit(x, leak, threshold, online=True, extra=None):
    """Spikes of every step and v in differentiable torch operations; extra: alpha, beta, weight, bias (II)."""
    v, rows = torch.zeros_like(x[0]), []
    for t, x_t in enumerate(x):
        m = x_t if leak is None else beside(leak[t], x_t) * (v.detach() if online else v) + x_t
        if extra:
            normed = F.batch_norm(m, None, None, extra["weight"][t], extra["bias"][t], training=True, eps=EPS)
            m = beside(extra["alpha"][t], m) * m + beside(extra["beta"][t], m) * normed
        s, v = float_spikes(m, beside(threshold[t], x_t))
        rows.append(s)
    return torch.stack(rows), v


def sequence_ii(x, leak, threshold, extra):
    v, rows = None, []
    for t, x_t in enumerate(x):
        step = {name: value[t] for name, value in {"leak": leak, "threshold": threshold, **extra}.items()}
        out = empf_norm_step(x_t, v, **step, eps=EPS)
        v = out.v
        rows.append(out.spikes)
    return torch.stack(rows), v


def gradients(spikes, g, tensors):
    return torch.autograd.grad(spikes, [*tensors.values()], g)


@pytest.mark.parametrize(
    ("shape", "threshold_shape"),
    [((T,), (T,)), ((T, C), (T, C)), ((T,), (T, C))],
    ids=["shared", "per_channel", "mixed"],
)
@pytest.mark.parametrize("version", ["I", "II", "III"])
def test_forward_and_hand_derived_backward_equal_autograd(version, shape, threshold_shape):
    given = leaves(x=double(T, 5, C, 2, 2), leak=double(*shape, low=0.3), threshold=double(*threshold_shape, low=0.1))
    extra = {}
    if version == "II":
        extra = leaves(alpha=double(*shape), beta=double(*shape), weight=double(T, C), bias=double(T, C))
    if version == "III":
        del given["leak"]
    g = double(T, 5, C, 2, 2)
    leak = given.get("leak")
    if version == "II":
        actual = on_reference(sequence_ii, given["x"], leak, given["threshold"], extra)
    else:
        actual = on_reference(empf_sequence, given["x"], leak=leak, threshold=given["threshold"])
    spikes, v = explicit(given["x"], leak, given["threshold"], extra=extra)
    assert_same(actual[0], spikes, **CLOSE)
    if leak is not None:
        assert_same(actual[1], v.detach(), **CLOSE)
    every = {**given, **extra}
    assert_same(gradients(actual[0], g, every), gradients(spikes, g, every), **CLOSE)
    assert 0.1 < (spikes > 0).double().mean() < 0.9


@pytest.mark.parametrize("shape", [(), (C,)], ids=["shared", "per_channel"])
def test_gradcheck_of_a_step(shape):
    """All steps are smooth away from the threshold, where v[t-1] is given."""
    v, leak, threshold = double(4, C, 2), double(*shape, low=0.3), double(*shape, low=0.1)
    x, *parameters = leaves(x=double(4, C, 2), leak=leak, threshold=threshold).values()
    vanilla = lambda x, a, b: on_reference(empf_step, x, v, leak=a, threshold=b).spikes  # noqa: E731
    assert torch.autograd.gradcheck(vanilla, (x, *parameters))
    names = ("alpha", "beta", "weight", "bias")
    extra = leaves(alpha=double(*shape), beta=double(*shape), weight=double(C), bias=double(C))
    for running in (None, (double(C), double(C, low=0.5))):

        def normed(x, a, b, *rest, running=running):
            named = dict(zip(names, rest, strict=True))
            return on_reference(empf_norm_step, x, v, leak=a, threshold=b, **named, running=running).spikes

        assert torch.autograd.gradcheck(normed, (x, *parameters, *extra.values()))


def test_v_is_the_smaller_of_potential_and_threshold():
    x, leak, threshold = double(T, 50), double(T, low=0.3), double(T, low=0.1)
    out = on_reference(empf_sequence, x[:1], leak=leak[:1], threshold=threshold[:1])
    assert torch.equal(out.v, torch.minimum(x[0], threshold[0]))


def separable_input(case, leak, threshold):
    """Input current under which every neuron fires at all t (case i of the theorem) or at none (case ii)."""
    above = double(T, 5, C, low=0.01)
    if case == "all":
        before = torch.cat([torch.zeros(1, dtype=torch.float64), threshold[:-1]])
        return (threshold - leak * before)[:, None, None] + above
    rows, v = [], torch.zeros(5, C, dtype=torch.float64)
    for t in range(T):
        rows.append(threshold[t] - leak[t] * v - above[t])
        v = leak[t] * v + rows[-1]
    return torch.stack(rows)


def through_time_and_online(x, leak, threshold, g):
    x = x.detach().requires_grad_()
    (online,) = torch.autograd.grad(on_reference(empf_sequence, x, leak=leak, threshold=threshold).spikes, x, g)
    (through_time,) = torch.autograd.grad(explicit(x, leak, threshold, online=False)[0], x, g)
    return online, through_time


@pytest.mark.parametrize("case", ["all", "none"])
def test_theorem_4_2_online_gradient_is_that_of_bptt(case):
    leak, threshold = double(T, low=0.3), double(T, low=0.5)
    x = separable_input(case, leak, threshold)
    fired = on_reference(empf_sequence, x, leak=leak, threshold=threshold).spikes > 0
    assert fired.all() if case == "all" else not fired.any()
    online, through_time = through_time_and_online(x, leak, threshold, double(T, 5, C))
    assert_same(online, through_time, **CLOSE)
    assert online.any() == (case == "all")


def test_outside_the_two_cases_the_gradients_differ():
    leak, threshold = double(T, low=0.3), double(T, low=0.5)
    x = separable_input("all", leak, threshold)
    x[1, 0] = threshold[1] - leak[1] * threshold[0] - 0.005  # silent at t = 2 alone
    online, through_time = through_time_and_online(x, leak, threshold, double(T, 5, C))
    differs = ((online - through_time).abs() > 1e-9).any(0)
    assert differs[0].all()
    assert not differs[1:].any()
