"""Every variant of the Triton kernels that the parity suite asks for, compiled for one architecture."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import machine_code

pytest.importorskip("triton")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(machine_code.lacks_tools()), reason=machine_code.lacks_tools()),
]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite_variants")
    file = folder / "rows.json"
    options = ("-p", "tests.gpuless.suite_variants", "-p", "no:cacheprovider", "-k", "triton", "--variants", str(file))
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "pytest", "-q", "tests/parity", *options]
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert file.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(file.read_text())


def test_all_of_them_compile(rows):
    assert len(rows) > 500
    assert not [row for row in rows if "error" in row]


def test_no_registers_spill_at_any_size_with_any_operands(rows):
    assert not [row for row in rows if row["stack"]]


def test_neurons_need_no_shared_memory_at_any_size(rows):
    moments = {"workspace_p", "moments_p"}  # of MPDR, one value a program and step
    neurons = [row for row in rows if row["name"].startswith("lif") and not moments & {*row["given"]}]
    assert neurons
    assert not [row for row in neurons if row["shared"]]
