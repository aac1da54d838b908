"""The packed product of every instruction set between guard pages, under Address- and UndefinedBehaviorSanitizer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fastsnn import backends

HERE = Path(__file__).parent
SOURCE = HERE / "sanitize_binary.cpp"
FLAGS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
}
ISAS = [] if backends.cpu._cpu is None else backends.cpu._cpu.isas()

compiler = shutil.which("g++")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler is None or not (HERE.parents[1] / "csrc").exists(), reason="needs g++ and the sources"),
]


@pytest.fixture(scope="module", params=ISAS)
def program(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("sanitize") / "sanitize"
    flags = ["-std=c++17", "-O1", "-g", "-fopenmp", "-ffp-contract=off", f"-DFASTSNN_ISA={request.param}"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", *FLAGS[request.param]]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(path)], check=True)
    return path


def execute(program, *arguments):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "2"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


def test_products_stay_inside_their_buffers(program):
    done = execute(program)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "runs\n"


def test_a_guard_page_sees_words_that_are_too_few(program):
    done = execute(program, "plant")
    assert done.returncode != 0
    assert "SEGV" in done.stderr
