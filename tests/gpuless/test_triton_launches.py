"""Launches that skip Triton's binder reach the driver as its own do: the same kernel, grid, stream and arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.slow
def test_launches_are_tritons_own():
    program = Path(__file__).with_name("triton_launches.py")
    env = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])["launches"]
    assert len(counts) >= 21
    assert all(counts.values())
