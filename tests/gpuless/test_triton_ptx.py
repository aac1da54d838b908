"""The PTX that Triton makes of its kernels, against the reference: suite_triton_ptx.py, where no interpreter is on."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import toolkit

pytest.importorskip("triton")

SUITE = Path(__file__).with_name("suite_triton_ptx.py")
HALVES = "float32 or float64", "not (float32 or float64)"  # of the tests, in processes of their own

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(toolkit.lacks_gxx()), reason=toolkit.lacks_gxx()),
]


def run(*options):
    # without the current folder in the path, so that fastsnn is the installed one
    start = "import sys; sys.path.pop(0); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-c", start, "-q", "-p", "no:cacheprovider", str(SUITE), *options]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=SUITE.parents[2])


def test_suite():
    collected = run("--collect-only").stdout
    wanted = len(re.findall(r"::test_", collected))
    with ThreadPoolExecutor() as pool:
        halves = list(pool.map(lambda half: run("-k", half), HALVES))
    for done in halves:
        assert done.returncode == 0, done.stdout[-8000:]
    passed = [re.search(r"^(\d+) passed, \d+ deselected in .*$", done.stdout, re.MULTILINE) for done in halves]
    assert sum(int(summary[1]) for summary in passed) == wanted > 300
