"""What the triton backend refuses, and what it says."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import fastsnn
from fastsnn import backends
from fastsnn.functional import lif_step

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def a_gpu(monkeypatch):
    """Pretends that device 0 is a GPU of a given compute capability."""

    def pretend(capability):
        monkeypatch.setattr(backends.triton, "_core", SimpleNamespace(INTERPRETED=False))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")

    return pretend


def test_without_triton_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(backends.triton, "_core", None)
    monkeypatch.setattr(backends.triton, "_import_error", "No module named 'triton'", raising=False)
    with (
        fastsnn.use_backend("triton"),
        pytest.raises(fastsnn.BackendError, match=r"No module named 'triton'.*pip install triton"),
    ):
        lif_step(torch.ones(3))


def test_an_old_triton_is_named(monkeypatch):
    monkeypatch.setattr(backends.triton, "_version", (3, 3))
    sentence = "triton 3.3 is installed and the kernels need 3.4, which torch 2.8 brings"
    assert backends.triton.refusal(CUDA) == backends.triton.refusal(CPU) == sentence


def test_a_cpu_tensor_needs_the_interpreter(monkeypatch):
    monkeypatch.setattr(backends.triton, "_core", SimpleNamespace(INTERPRETED=False))
    assert "set TRITON_INTERPRET=1 before Python starts" in backends.triton.refusal(CPU)
    monkeypatch.setattr(backends.triton, "_core", SimpleNamespace(INTERPRETED=True))
    assert backends.triton.refusal(CPU) is None


def test_other_devices_are_named():
    assert "takes CUDA tensors and this one is on meta" in backends.triton.refusal(torch.device("meta"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_machine_without_a_device_is_named():
    assert "torch finds no CUDA device" in dict(backends.explain("lif", "cuda"))["triton"]


def test_an_old_device_is_named(a_gpu):
    a_gpu((7, 0))
    assert backends.triton.refusal(CUDA) == "Old GPU has compute capability 7.0 and the triton backend needs 7.5"


@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (12, 0)], ids=str)
def test_newer_devices_run(a_gpu, capability):
    a_gpu(capability)
    assert backends.triton.refusal(CUDA) is None
    assert ("triton", "runs") in backends.explain("standardize", CUDA)


def python(code, **environment):
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT_TRITON = """
import sys, torch
for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
    del sys.modules[name]
sys.modules["triton"] = None
import fastsnn
print(fastsnn.backends.available()["triton"])
print(fastsnn.LIF()(torch.ones(2)))
"""


def test_fastsnn_imports_and_runs_without_triton():
    out = python(WITHOUT_TRITON)
    assert "pip install triton" in out
    assert "tensor([0., 0.])" in out


def test_info_names_the_triton_backend():
    out = python("from fastsnn.cli import main\nmain(['info'])", TRITON_INTERPRET="0")
    (line,) = [line for line in out.splitlines() if "backend triton" in line]
    assert "available" in line if torch.cuda.is_available() else "torch finds no CUDA device" in line
