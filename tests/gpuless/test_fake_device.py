"""The device suite as a device would run it: on one that is not there, in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import toolkit

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers()),
]


def run(*options, plugin="tests.gpuless.fake_device.plugin"):
    """(number, outcome) of every kind of outcome, and all that was said."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", plugin, "-p", "no:cacheprovider", *map(str, options)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)", said)}, said


def test_the_cuda_half_of_the_parity_suite_passes_on_the_device():
    outcomes, said = run("-m", "gpu", "tests/parity")
    assert outcomes.keys() == {"passed"}, said[-4000:]
    assert outcomes["passed"] > 2500


def test_no_host_in_the_loop():
    outcomes, said = run(Path(__file__).with_name("suite_device.py"))
    assert outcomes.keys() == {"passed"}, said[-4000:]


SKIPPED = """
import pytest

@pytest.mark.gpu
def test_planted():
    pytest.skip("no kernels")
"""


def test_a_parity_test_that_a_device_run_skips_has_failed(tmp_path):
    planted = tmp_path / "parity" / "test_planted.py"
    planted.parent.mkdir()
    planted.write_text(SKIPPED)
    outcomes, said = run(planted, plugin="tests.conftest")
    assert outcomes == {"failed": 1}
    assert "skipped on a device" in said
