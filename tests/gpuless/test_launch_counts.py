"""One launch a layer and step, forward and backward; and the counter sees what others start."""

import pytest
import torch

from fastsnn import backends

from . import launch_counts, toolkit

pytestmark = pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers())


@pytest.fixture(scope="module")
def rows():
    return launch_counts.rows()


def test_one_launch_forward_and_one_backward(rows):
    ours = {row.case: (row.forward, row.backward) for row in rows if row.provider == "fastsnn"}
    assert ours == dict.fromkeys((*launch_counts.STEPS, "bptt_sequence"), (1, 1))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("max_ratio", "forward"), [(20.0, 3), (None, 2)], ids=["default", "running"])
@pytest.mark.parametrize("backend", launch_counts.COUNTERS)
def test_osr_and_the_neuron_behind_it_start_six_at_most(backend, max_ratio, forward, steps):
    """A pass, the merge of its sums and, where the step's own statistics may normalise, another pass; sums, their merge
    and the gradient. Nothing of torch's, at the step that folds neither."""
    needs(backend)
    assert launch_counts.osr_lif(backend, steps, max_ratio=max_ratio) == [(forward, 3)] * steps


@pytest.mark.parametrize("max_ratio", [20.0, None], ids=["default", "running"])
@pytest.mark.parametrize("backend", launch_counts.COUNTERS)
def test_under_ots_three_fewer_start_than_of_the_two_layers(backend, max_ratio):
    """No pass for y alone, and nothing to fill: it charges the neuron where it is computed, and its gradient is summed
    where it is."""
    needs(backend)
    fused = launch_counts.osr_lif(backend, 3, max_ratio=max_ratio, threshold="ots")
    apart = launch_counts.osr_and_ots(backend, 3, max_ratio)
    assert [(forward + 2, backward + 1) for forward, backward in fused] == apart
    assert {backward for _, backward in fused} == {3}


def needs(backend):
    if backend == "triton":
        pytest.importorskip("triton")
        if backends.refusal("osr", "triton", torch.device("cpu")):
            pytest.skip(backends.refusal("osr", "triton", torch.device("cpu")))


def test_plain_torch_starts_many(rows):
    theirs = {row.case: row for row in rows if row.provider == "fastsnn-reference"}
    assert theirs.keys() == {*launch_counts.STEPS}
    assert all(row.forward > 5 and row.backward > 5 for row in theirs.values())
