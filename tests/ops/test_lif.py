"""The functional LIF: what its arguments may be."""

import math

import pytest
import torch

import fastsnn
from fastsnn.functional import lif_sequence, lif_step

X = torch.ones(3, 4)

REFUSED = {
    "integer": ({"x": X.long()}, TypeError, r"x has dtype torch\.int64; allowed: torch\.float32, .*x\.float\(\)"),
    "number": ({"x": 1.0}, TypeError, r"x is float; it must be a torch\.Tensor"),
    "none": ({"x": None}, TypeError, r"x is NoneType; it must be a torch\.Tensor"),
    "v-shape": (
        {"v": torch.ones(5)},
        ValueError,
        r"\(5,\), torch\.float32 on cpu .*needs \(4,\)",
    ),
    "v-broadcast": ({"v": torch.ones(1)}, ValueError, r"\(1,\).*needs \(4,\)"),
    "v-dtype": ({"v": torch.ones(4).double()}, ValueError, r"\(4,\), torch\.float64.*needs \(4,\), torch\.float32"),
    "v-half": ({"v": torch.ones(4).half()}, ValueError, r"torch\.float16.*needs \(4,\), torch\.float32"),
    "v-device": ({"v": torch.ones(4, device="meta")}, ValueError, "on meta .*needs .* on cpu"),
    "v-number": ({"v": 0.5}, TypeError, "v is .*float"),
    "trace-shape": ({"trace": torch.ones(3)}, ValueError, r"state trace is \(3,\)"),
    "trace-list": ({"trace": [1.0]}, TypeError, "trace is .*list"),
    "ratio-dtype": ({"ratio": torch.ones(4).double()}, ValueError, r"state ratio is \(4,\), torch\.float64"),
    "keep-shape": ({"keep": torch.ones(3, 4)}, ValueError, r"state keep is \(3, 4\)"),
    "keep-bool": ({"keep": torch.ones(4, dtype=torch.bool)}, ValueError, r"state keep is \(4,\), torch\.bool"),
    "tau": ({"tau": 1}, ValueError, "tau is 1; it must be > 1"),
    "tau-zero": ({"tau": 0.0}, ValueError, r"tau is 0\.0; it must be > 1"),
    "tau-tensor": ({"tau": torch.tensor([2.0, 3.0])}, TypeError, r"tau is tensor.*\(Tensor\); it must be a number"),
    "threshold": ({"v_threshold": math.nan}, ValueError, "v_threshold is NaN"),
    "rule": ({"rule": "OTTT"}, ValueError, "rule is 'OTTT'; allowed: bptt, sltt, ottt, ndot, ndot_released"),
    "ndot": ({"rule": "ndot"}, ValueError, r"rule 'ndot' needs soft reset and v_reset is 0\.0"),
    "surrogate": ({"surrogate_function": torch.sigmoid}, TypeError, "surrogate_function is .*allowed are"),
    "unhashable": ({"surrogate_function": []}, TypeError, r"surrogate_function is \[\]"),
}


@pytest.mark.parametrize("sequence", [False, True], ids=["step", "sequence"])
@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_do_not_fit(case, sequence):
    given, error, message = REFUSED[case]
    arguments = {"x": X if sequence else X[0], **given}
    with pytest.raises(error, match=message):
        (lif_sequence if sequence else lif_step)(**arguments)


def test_the_state_names_in_the_message_are_the_arguments():
    with pytest.raises(ValueError, match=r"\bv is \(5,\)"):
        lif_step(X[0], torch.ones(5))


@pytest.mark.parametrize("x", [torch.ones(0, 4), torch.tensor(1.0)], ids=["T=0", "no-time"])
def test_a_sequence_needs_time(x):
    with pytest.raises(ValueError, match=r"x has shape .*needs \[T, N, \*\] with T >= 1"):
        lif_sequence(x)


@pytest.mark.parametrize("x", [torch.ones(3, 0), torch.ones(3, 0, 5)], ids=["N=0", "C=0"])
def test_a_sequence_of_no_neurons_is_empty(x):
    out = lif_sequence(x, rule="ottt")
    assert out.spikes.shape == out.trace.shape == x.shape
    assert out.v.shape == x.shape[1:]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("rule", ["sltt", "ottt"])
def test_an_online_rule_cuts_v_and_trace_out_of_the_graph(rule, backend):
    v, trace = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    with fastsnn.use_backend(backend):
        out = lif_step(X[0], v, trace if rule == "ottt" else None, rule=rule)
    assert not any(t is not None and t.requires_grad for t in out)


@pytest.mark.parametrize("rule", ["bptt", "ottt"])
def test_the_given_state_is_not_written_to(rule):
    v, trace = torch.rand(40_000), torch.rand(40_000)
    values = v.clone(), trace.clone()
    for _ in range(2):
        lif_step(torch.rand(40_000), v, trace if rule == "ottt" else None, rule=rule)
    assert torch.equal(v, values[0])
    assert torch.equal(trace, values[1])


def test_a_spikingjelly_like_surrogate_with_spiking_off_is_refused():
    relaxed = type("ATan", (), {"alpha": 2.0, "spiking": False})()
    with pytest.raises(ValueError, match=r"has spiking=False.*set spiking=True"):
        lif_step(X, surrogate_function=relaxed)
