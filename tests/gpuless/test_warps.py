"""Warp operations, barriers and launches: CUDA sources on fibres, and the PTX nvcc makes of them, against the rules."""

import ctypes

import pytest
import torch

from . import toolkit
from .ptx import run_ptx

SOURCE = toolkit.INCLUDE.parent / "samples.cu"
ORDERS = [0, 1, 7]
INVALID_CONFIGURATION = 9


def wanted(x):
    """Rows of results for x of [blocks, warps, 32]."""
    lane = torch.arange(32)
    segment = lane // 8 * 8
    down, up, near = lane + 3, lane - 3, lane + 3
    ballot = ((x > 0).long() << lane).sum(-1, keepdim=True).expand_as(x)
    rows = [
        x[..., lane ^ 5],
        x[..., torch.where(down > 31, lane, down)],
        x[..., torch.where(up < 0, lane, up)],
        x[..., segment + 3],
        x[..., torch.where(near > segment + 7, lane, near)],
        x[..., lane ^ 1],
        ballot,
        (x > 90).any(-1, keepdim=True).expand_as(x),
        (x > -90).all(-1, keepdim=True).expand_as(x),
        x[..., lane ^ 31],
        x.flatten(1).flip(1).view_as(x),
    ]
    return torch.stack([row.to(torch.int32).flatten() for row in rows])


@pytest.fixture
def x():
    return torch.randint(-100, 100, (3, 2, 32), dtype=torch.int32)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if reason := toolkit.lacks_cuda_headers():
        pytest.skip(reason)
    output = tmp_path_factory.mktemp("warps") / "libsamples.so"
    loaded = ctypes.CDLL(str(toolkit.compile_cuda([SOURCE], output, flags=["-shared", "-fPIC"])))
    loaded.gpuless_launches.restype = loaded.gpuless_barriers.restype = ctypes.c_ulong
    return loaded


def launch(library, x, width=16):
    out = torch.full((11, x.numel()), -1, dtype=torch.int32)
    status = library.launch_warp_operations(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), width)
    return status, out


@pytest.mark.parametrize("order", ORDERS)
def test_source(library, x, order):
    library.gpuless_order(order)
    status, out = launch(library, x)
    assert status == 0
    assert torch.equal(out, wanted(x))


def test_launches_and_barriers_are_counted(library, x):
    before = library.gpuless_launches(), library.gpuless_barriers()
    launch(library, x)
    assert (library.gpuless_launches(), library.gpuless_barriers()) == (before[0] + 1, before[1] + 3)


@pytest.mark.parametrize("width", [0, 257])
def test_impossible_block_is_refused(library, x, width):
    status, out = launch(library, x, width)
    assert status == INVALID_CONFIGURATION
    assert (out == -1).all()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    if reason := toolkit.lacks_nvcc():
        pytest.skip(reason)
    return toolkit.compile_ptx(SOURCE, tmp_path_factory.mktemp("warps") / "samples.ptx")


@pytest.mark.parametrize("flavour", toolkit.FLAVOURS)
@pytest.mark.parametrize("order", ORDERS)
def test_ptx(text, x, order, flavour):
    out = torch.full((11, x.numel()), -1, dtype=torch.int32)
    run_ptx(text, "warp_operations", (1, 3), (16, 4), [x, out], order=order, flavour=flavour)
    assert torch.equal(out, wanted(x))
