"""The compiled kernels of both sources under AddressSanitizer, in memory of exactly their operands' sizes, and their
barriers under ThreadSanitizer."""

import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import pytest
import torch

from . import launches, toolkit
from .launches import Operation
from .ptx import PtxError

pytest.importorskip("triton")

REASON = toolkit.lacks_nvcc() or toolkit.lacks_cuda_headers()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]

N = 1031  # no vector divides it
RAGGED = {
    "step": Operation("ottt", torch.float32, N),
    "sequence": Operation("ndot", torch.bfloat16, N, 3),
    "bptt": Operation("bptt", torch.float32, N, 3),
    "row": Operation("standardize", torch.float32, 39),
}
WHOLE = Operation("standardize", torch.float32, 64)


@pytest.fixture(scope="module", params=launches.SOURCES)
def launched(request):
    """Launches of each of RAGGED and of `whole` rows, by name"""
    operations = RAGGED | {"whole": WHOLE}
    return dict(zip(operations, launches.launched(request.param, list(operations.values())), strict=True))


def run_all(flavour, launches):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda launch: launch.run_apart(flavour), launches))


def test_ragged_sizes_stay_in_bounds(launched):
    ways = [launched["step"].forward, launched["sequence"].forward, launched["bptt"].backward, *launched["row"]]
    assert [len(way) for way in ways] == [1] * 5
    run_all("address", chain(*ways))


def test_one_neuron_too_many_is_seen(launched):
    launch, before, after = launched["step"].forward[0], struct.pack("<q", N), struct.pack("<q", N + 1)
    assert launch.params.count(before) == 1
    with pytest.raises(PtxError, match="heap-buffer-overflow"):
        replace(launch, params=launch.params.replace(before, after)).run_apart("address")


def test_a_changed_bounds_comparison_is_seen(launched):
    (launch,) = launched["step"].forward
    assert "setp.lt.s64" in launch.text
    with pytest.raises(PtxError, match="heap-buffer-overflow"):
        replace(launch, text=launch.text.replace("setp.lt.s64", "setp.le.s64")).run_apart("address")


def test_barriers_order_what_threads_share(launched):
    run_all("thread", chain(*launched["whole"]))


def test_a_missing_barrier_is_seen(launched):
    (launch,) = launched["whole"].forward
    assert "bar.sync" in launch.text
    with pytest.raises(PtxError, match="data race"):
        replace(launch, text=launch.text.replace("bar.sync", "// bar.sync", 1)).run_apart("thread")
