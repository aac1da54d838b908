"""The CUDA kernels of binary synapses on the CPU under Address-, UndefinedBehavior- and ThreadSanitizer."""

import pytest

from . import cuda_host, toolkit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers()),
]

BINARY = cuda_host.CSRC / "cuda" / "binary.cu"
# without the barriers between a word's spikes and their use, and between the places of a tap and theirs
RACY = {
    "cells": ("cells + half);\n      __syncthreads();", "cells + half);"),
    "places": ("tap) : -1;\n    __syncthreads();", "tap) : -1;"),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """path of the runner in a build flavour, of these sources or of changed ones"""
    folder, built = tmp_path_factory.mktemp("sanitize"), {}

    def get(flavour, source=BINARY):
        if (flavour, source) not in built:
            sources = [toolkit.INCLUDE.parent / "sanitize_binary.cpp", source]
            target = folder / f"{flavour}-{source.stem}"
            include = [f"-I{BINARY.parent}"]
            built[flavour, source] = toolkit.compile_cuda(sources, target, flavour, include)
        return built[flavour, source]

    return get


@pytest.mark.parametrize(("flavour", "sizes"), [("address", "ragged"), ("thread", "tiny")])
def test_kernels_run_clean(program, flavour, sizes):
    done = toolkit.execute([program(flavour), sizes])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    assert done.stdout == "runs\n"


def test_a_missing_word_is_seen(program):
    done = toolkit.execute([program("address"), "plant"])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize("barrier", RACY)
def test_a_missing_barrier_is_seen(program, tmp_path, barrier):
    whole, without = RACY[barrier]
    text = BINARY.read_text()
    assert whole in text
    changed = tmp_path / f"{barrier}.cu"
    changed.write_text(text.replace(whole, without).replace('"../core', f'"{BINARY.parents[1]}/core'))
    done = toolkit.execute([program("thread", changed), "tiny"])
    assert done.returncode != 0
    assert "data race" in done.stderr
