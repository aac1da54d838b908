"""The native kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import subprocess
from pathlib import Path

import pytest

from ..safety import sanitized

SOURCE = Path(__file__).with_name("sanitize.cpp")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(sanitized.lacks()), reason=sanitized.lacks())]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("sanitize") / "sanitize"
    subprocess.run(["g++", *sanitized.FLAGS, str(SOURCE), str(sanitized.kernels()), "-o", str(path)], check=True)
    return path


def execute(program, *arguments):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


def test_kernels_stay_inside_their_buffers(program):
    done = execute(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("runs\n")


def test_the_sanitizer_sees_a_planted_overrun(program):
    done = execute(program, "plant")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
