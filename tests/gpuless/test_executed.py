"""What the kernels execute and move, of both sources of PTX: bytes as promised, whole sectors, one launch, no FMA."""

import re
from dataclasses import replace

import pytest
import torch
from fastsnn._bench import roofline

from . import executed, launches, toolkit

pytest.importorskip("triton")

REASON = toolkit.lacks_nvcc() or toolkit.lacks_cuda_headers()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]

T = 16
SIZES = {"float32": 4, "bfloat16": 2}


def moved(size, state=4):
    """(read, written) bytes per neuron and step for inputs of that size; what is per sequence counts 1/T."""
    last = state / T
    return {
        "forward sltt step": (size + state, size + state),  # x, u; s, u
        "forward bptt step": (size + state, size + 2 * state),  # x, v; s, u, v
        "forward ottt step": (size + 2 * state, size + 2 * state),  # x, u, a; s, u, a
        "forward ndot step": (size + 3 * state, size + 3 * state),  # x, u, a, e; s, u, a, e
        "forward ndot_released step": (size + 3 * state, size + 3 * state),
        "forward sltt sequence": (size, size + last),  # x; s and the last u
        "forward ottt sequence": (size, size + state + last),  # x; s, a and the last u
        "forward bptt sequence": (size, size + state + last),  # x; s, u and the last v
        "backward sltt step": (size + state, size),  # g_s, u; g_x
        "backward bptt sequence": (size + state, size),
    }


@pytest.fixture(scope="module")
def rows():
    return executed.rows()


def names(found):
    return [(row.source, row.name, row.dtype) for row in found]


def test_bytes_are_those_of_the_operands(rows):
    expected = {
        (source, name, dtype): moved(size)[name]
        for source in launches.SOURCES
        for dtype, size in SIZES.items()
        for name in moved(size)
    }
    assert {key: (row.bytes_read, row.bytes_written) for key, row in zip(names(rows), rows, strict=True)} == expected


@pytest.mark.parametrize(("rule", "promised"), {"sltt": 16, "ottt": 24, "ndot": 32}.items())
def test_float32_steps_move_what_the_documents_promise(rows, rule, promised):
    steps = [row for row in rows if row.name == f"forward {rule} step" and row.dtype == "float32"]
    assert [row.bytes_read + row.bytes_written for row in steps] == [promised] * len(launches.SOURCES)


def test_every_request_uses_whole_sectors(rows):
    assert {row.dtype for row in rows} == SIZES.keys()
    assert not names(row for row in rows if (row.sector_use, row.unique_sector_use) != (1, 1))


def test_one_launch_forward_and_one_backward(rows):
    assert not names(row for row in rows if row.launches != 1)


def test_steps_are_predicted_at_the_bandwidth_of_an_h100(rows):
    (h100,) = (device for device in roofline.DEVICES if device.name == "H100")
    steps = [row for row in rows if row.name.endswith("step")]
    assert len(steps) >= 2 * len(launches.SOURCES) * len(SIZES)
    for row in steps:
        guess = roofline.predict(h100, 2**21, row.bytes_read + row.bytes_written, row.instructions)
        assert guess.share >= 0.9, row


def test_no_multiply_add_is_fused(rows):
    assert not names(row for row in rows if row.fmas)


def test_a_sequence_executes_less_than_its_steps(rows):
    instructions = {key: row.instructions for key, row in zip(names(rows), rows, strict=True)}
    for source in launches.SOURCES:
        for dtype in SIZES:
            for rule in ("sltt", "ottt", "bptt"):
                step, sequence = (instructions[source, f"forward {rule} {how}", dtype] for how in ("step", "sequence"))
                assert 0 < sequence < step


# planted


@pytest.fixture(scope="module", params=launches.SOURCES)
def counted(request):
    """A count of the OTTT step with changed PTX"""
    operation = launches.Operation("ottt", torch.float32, executed.N)
    ((launch,), _), *_ = launches.launched(request.param, [operation])

    def count(old, new, launches=1):
        text, changes = re.subn(old, new, launch.text)
        assert changes
        return executed.count(request.param, operation, "forward", [replace(launch, text=text)] * launches)

    return count


def test_fused_multiply_adds_show(counted):
    row = counted(r"add(?:\.rn)?\.f32([^,]*),([^,]*),([^;]*);", r"fma.rn.f32\1,\2, 0f3F800000,\3;")
    assert row.fmas == 3  # two of the potential, one of the trace


def test_stores_made_twice_show(counted):
    row = counted(r"([^\n]*st\.global[^;]*;)", r"\1 \1")
    assert (row.bytes_read, row.bytes_written, row.sector_use) == (12, 24, 1)


def test_stores_of_half_a_vector_show(counted):
    row = counted(r"(st\.global\S*)\.v4\.(\w+)([^{]*){([^,]*),([^,]*),[^}]*}", r"\1.v2.\2\3{\4,\5}")
    assert (row.bytes_read, row.bytes_written) == (12, 6)
    assert row.sector_use == row.unique_sector_use == 18 / 24


def test_a_second_launch_shows(counted):
    row = counted("add", "add", launches=2)
    assert (row.launches, row.bytes_read, row.bytes_written) == (2, 24, 24)
