"""The CUDA sources on the CPU under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

import pytest

from . import cuda_host, toolkit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers()),
]

RUN_APART = {"binary"}  # by test_binary_sanitizers.py
KERNELS = [source for source in sorted(cuda_host.CSRC.glob("cuda/*.cu")) if source.stem not in RUN_APART]
SOURCES = [toolkit.INCLUDE.parent / "sanitize.cpp", *KERNELS]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """path of the runner in a build flavour"""
    folder, built = tmp_path_factory.mktemp("sanitize"), {}

    def get(flavour):
        if flavour not in built:
            built[flavour] = toolkit.compile_cuda(SOURCES, folder / flavour, flavour)
        return built[flavour]

    return get


@pytest.mark.parametrize(("flavour", "sizes"), [("address", "ragged"), ("thread", "tiny")])
def test_kernels_run_clean(program, flavour, sizes):
    done = toolkit.execute([program(flavour), sizes])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    assert int(done.stdout.removesuffix(" runs\n")) > 40


def test_a_missing_element_is_seen(program):
    done = toolkit.execute([program("address"), "plant"])
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
