"""NDOT's ratio traces at the edges that equations/ndot.md settles."""

import pytest
import torch

from fastsnn.functional import lif_sequence

from ..cases import assert_same, current, keep_of, on_reference

LAM = 0.5


def run(x, rule, **kwargs):
    x = torch.tensor(x, dtype=torch.float64).unsqueeze(-1) if isinstance(x, list) else x
    config = {"rule": rule, "tau": 2.0, "decay_input": False, "v_reset": None, "store_v_seq": True}
    return on_reference(lif_sequence, x, **config, **kwargs)


def ndot_trace(v, s, keep):
    """a[t] = e[t-1]*a[t-1] + s[t], e[t] = clamp(r[t]/r[t-1]), element by element."""
    r_prev, e, a, rows = 1.0, 0.0, 0.0, []
    for r, fired in zip(v.tolist(), s.tolist(), strict=True):
        a = e * a + fired * keep
        e = LAM if r_prev == 0 else min(max(r / r_prev, -LAM), LAM)
        r_prev = r
        rows.append(a)
    return rows, e


def released_trace(v, s, keep):
    """a[t] = e[t]*a[t-1] + s[t], e from v[t] - th*s[t] of this and the last step, all with the dropout's s."""
    den, a, rows = 0.0, 0.0, []
    for v_t, fired in zip(v.tolist(), s.tolist(), strict=True):
        num = v_t - fired * keep  # the released code has the masked, scaled spike
        e = LAM if den == 0 else min(max(num / den, -LAM), LAM)
        a = e * a + fired * keep
        den = num
        rows.append(a)
    return rows, None


@pytest.mark.parametrize(("rule", "scalar"), [("ndot", ndot_trace), ("ndot_released", released_trace)])
def test_trace_equals_the_scalar_recurrence(rule, scalar):
    x = current(8, 300, dtype=torch.float64)
    keep = keep_of(x[0])
    out = run(x, rule, keep=keep)
    fired = run(x, rule).spikes
    expected = [scalar(*column) for column in zip(out.v.T, fired.T, keep.tolist(), strict=True)]
    assert_same(out.trace.T, torch.tensor([rows for rows, _ in expected], dtype=torch.float64), atol=1e-14)
    if rule == "ndot":
        assert_same(out.ratio, torch.tensor([e for _, e in expected], dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("rule", ["ndot", "ndot_released"])
def test_the_first_trace_is_the_spike(rule):
    out = run(current(1, 300, dtype=torch.float64), rule)
    assert out.spikes.any()
    assert_same(out.trace, out.spikes)


def test_a_silent_neuron_decays_as_ottt_does():
    state = dict(zip(("v", "trace", "ratio"), torch.tensor([[0.0], [1.0], [LAM]], dtype=torch.float64), strict=True))
    assert run([0.0, 0.0, 0.0], "ndot", **state).trace.flatten().tolist() == [0.5, 0.25, 0.125]


def test_r_of_zero_gives_lam():
    # r[1] = 0.5, r[2] = 0, so e[2] = 0 and e[3] = lam
    out = run([1.5, -0.25, 1.25, 1.0], "ndot")
    assert out.v.flatten().tolist() == [0.5, 0.0, 0.25, 0.125]
    assert out.trace.flatten().tolist() == [1.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(("x", "ratio"), [([1.5, 3.0], LAM), ([1.5, -3.0], -LAM), ([1.5, -0.125], 0.25)])
def test_the_ratio_is_clamped(x, ratio):
    assert run(x, "ndot").ratio.item() == ratio


@pytest.mark.parametrize("start", [torch.inf, -torch.inf, torch.nan], ids=str)
def test_released_falls_back_to_lam_where_the_quotient_is_not_finite(start):
    state = {"v": torch.tensor([start], dtype=torch.float64), "trace": torch.ones(1, dtype=torch.float64)}
    out = run([0.0], "ndot_released", **state)
    assert out.trace.item() == LAM + out.spikes.item()


def test_released_subtracts_the_threshold_twice():
    # v = 0.5, 0.5: num = -0.5 where it fired, den = -0.5, so e = clamp(1) = lam
    out = run([1.5, 1.25, 0.5], "ndot_released")
    assert out.v.flatten().tolist() == [0.5, 0.5, 0.75]
    assert out.trace.flatten().tolist() == [1.0, 1.5, -0.75]
