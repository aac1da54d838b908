"""One launch a layer and step, forward and backward; and the counter sees what others start."""

import pytest

from . import launch_counts, toolkit

pytestmark = pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers())


@pytest.fixture(scope="module")
def rows():
    return launch_counts.rows()


def test_one_launch_forward_and_one_backward(rows):
    ours = {row.case: (row.forward, row.backward) for row in rows if row.provider == "fastsnn"}
    assert ours == dict.fromkeys((*launch_counts.STEPS, "bptt_sequence"), (1, 1))


def test_plain_torch_starts_many(rows):
    theirs = {row.case: row for row in rows if row.provider == "fastsnn-reference"}
    assert theirs.keys() == {*launch_counts.STEPS}
    assert all(row.forward > 5 and row.backward > 5 for row in theirs.values())
