"""The native kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = [HERE / "sanitize.cpp", HERE.parents[1] / "csrc" / "cpu" / "kernels.cpp"]

compiler = shutil.which("g++")
pytestmark = pytest.mark.skipif(compiler is None or not SOURCES[1].exists(), reason="needs g++ and the sources")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("sanitize") / "sanitize"
    flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-ffp-contract=off"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    subprocess.run([compiler, *flags, *map(str, SOURCES), "-o", str(path)], check=True)
    return path


def execute(program, *arguments):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_kernels_stay_inside_their_buffers(program):
    done = execute(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.endswith("runs\n")


@pytest.mark.slow
def test_the_sanitizer_sees_a_planted_overrun(program):
    done = execute(program, "plant")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
