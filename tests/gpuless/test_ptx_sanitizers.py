"""The compiled kernels of both sources under AddressSanitizer, in memory of exactly their operands' sizes, and their
barriers under ThreadSanitizer."""

import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from . import launches, toolkit
from .launches import Operation
from .ptx import PtxError

pytest.importorskip("triton")

REASON = toolkit.lacks_nvcc() or toolkit.lacks_cuda_headers()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]

N = 1031  # no vector divides it
RAGGED = [
    Operation("ottt", torch.float32, N),
    Operation("ndot", torch.bfloat16, N, 3),
    Operation("bptt", torch.float32, N, 3),
    Operation("standardize", torch.float32, 39),
]


@pytest.fixture(scope="module", params=launches.SOURCES)
def ragged(request):
    """Launches of RAGGED"""
    return launches.launched(request.param, RAGGED)


def run_all(found, flavour):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda launch: launch.run_apart(flavour), found))


def test_ragged_sizes_stay_in_bounds(ragged):
    found = [launch for both in ragged for way in both for launch in way]
    assert len(found) == 2 * len(RAGGED)
    run_all(found, "address")


def replaced(launch, old, new):
    assert old in launch.text
    return replace(launch, text=launch.text.replace(old, new))


def test_one_neuron_too_many_is_seen(ragged):
    launch, before, after = ragged[0].forward[0], struct.pack("<q", N), struct.pack("<q", N + 1)
    assert launch.params.count(before) == 1
    with pytest.raises(PtxError, match="heap-buffer-overflow"):
        replace(launch, params=launch.params.replace(before, after)).run_apart("address")


def test_a_changed_bounds_comparison_is_seen(ragged):
    launch = ragged[0].forward[0]
    with pytest.raises(PtxError, match="heap-buffer-overflow"):
        replaced(launch, "setp.lt.s64", "setp.le.s64").run_apart("address")


@pytest.fixture(scope="module", params=launches.SOURCES)
def standardize(request):
    (found,) = launches.launched(request.param, [Operation("standardize", torch.float32, 64)])
    return found


def test_barriers_order_what_threads_share(standardize):
    run_all([*standardize.forward, *standardize.backward], "thread")


def test_a_missing_barrier_is_seen(standardize):
    (launch,) = standardize.forward
    text = launch.text.replace("bar.sync", "// bar.sync", 1)
    with pytest.raises(PtxError, match="data race"):
        replace(launch, text=text).run_apart("thread")
