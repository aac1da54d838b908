"""The checker of CUDA sources must catch one planted bug of every class, and let its clean twin pass."""

import re

import pytest

from . import toolkit

pytestmark = pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers())

ORDERS = {"ascending": "0", "descending": "1", "shuffled": "7"}

# the build that must see the bug, and what it must say
CONTROLS = {
    "global_overrun": ("address", "heap-buffer-overflow"),
    "shared_overrun": ("address", "heap-buffer-overflow"),
    "misaligned": ("address", "misaligned address"),
    "offset_overflow": ("address", "signed integer overflow"),
    "missing_barrier": ("thread", "data race"),
    "race_in_block": ("thread", "data race"),
    "race_between_blocks": ("thread", "data race"),
    "wrong_tail": ("plain", "unwritten or uninitialised: out[96]"),
    "uninitialised_shared": ("plain", "unwritten or uninitialised: out[63]"),
    "divergent_barrier": ("plain", "divergent barrier: a thread ended"),
    "different_barriers": ("plain", "divergent barrier: threads wait at"),
    "absent_lane": ("plain", "absent lane: mask ffffffff names lane"),
    "wrong_mask": ("plain", "bad mask: mask"),
    "deadlock": ("plain", "deadlock: lanes"),
}


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """path of the controls in a build flavour; each is compiled once"""
    folder, built = tmp_path_factory.mktemp("controls"), {}

    def get(flavour, *flags):
        key = (flavour, *flags)
        if key not in built:
            source, output = toolkit.INCLUDE.parent / "controls.cu", folder / "-".join(key)
            built[key] = toolkit.compile_cuda([source], output, flavour, flags)
        return built[key]

    return get


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", CONTROLS)
def test_planted_bug_is_caught(program, name, order):
    flavour, message = CONTROLS[name]
    done = toolkit.execute([program(flavour), name, "planted"], GPULESS_ORDER=ORDERS[order])
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flavour", toolkit.FLAVOURS)
@pytest.mark.parametrize("name", CONTROLS)
def test_clean_twin_passes(program, name, flavour, order):
    done = toolkit.execute([program(flavour), name, "clean"], GPULESS_ORDER=ORDERS[order])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""


@pytest.mark.parametrize("order", ORDERS)
def test_message_names_block_and_thread(program, order):
    done = toolkit.execute([program("plain"), "divergent_barrier", "planted"], GPULESS_ORDER=ORDERS[order])
    block, thread = map(int, re.search(r"\(block (\d+),0,0 thread (\d+),0,0\)", done.stderr).groups())
    assert block in (0, 1)
    assert 16 <= thread < 64  # one of those that skip the barrier


@pytest.mark.parametrize("name", CONTROLS)
def test_ucontext_runs_them_too(program, name):
    done = toolkit.execute([program("plain", "-DGPULESS_UCONTEXT"), name, "clean"])
    assert done.returncode == 0, done.stderr[-3000:]
