import os
from pathlib import Path

# read where torch loads OpenMP: the threads of several workers must not spin against each other
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

# read where a kernel is defined: without a GPU, Triton's kernels run on CPU tensors
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

import torch._dynamo  # before a fixture makes other functions of torch's; imports Triton

import fastsnn
from fastsnn import backends

from . import operations, selection
from .cases import BACKENDS, DEVICE, ON_DEVICE, VARIANTS
from .gpuless import cuda_host

CUDA_HOST = cuda_host.Backend()
# of devices that are not there, torch.manual_seed would note who asked: a millisecond a test
SEED = torch.manual_seed if ON_DEVICE else torch.default_generator.manual_seed
# cached by the first call, for `torch.set_default_device`: not what a fixture makes of them
torch.utils._device._device_constructors()

if "triton" in BACKENDS:
    from .gpuless import triton_interpreter

    triton_interpreter.repair()


@pytest.fixture(autouse=True)
def _defaults():
    """Every test starts from one seed and leaves the thread count, the backend and the instruction set as they were."""
    threads, isa = torch.get_num_threads(), backends.cpu._cpu and backends.cpu._cpu.isa()
    SEED(0)
    with fastsnn.use_backend(None):
        yield
    torch.set_default_device(None)
    torch.set_num_threads(threads)
    if isa:
        backends.cpu._cpu.choose_isa(isa)


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="every case, not the short suite")
    parser.addoption("--rest", action="store_true", help="the cases that the short suite leaves out")
    parser.addoption("--operations", metavar="FILE", help="write which operation ran on which backend with which type")
    built = "holds the source distribution, unpacked, and the wheel that it built: test_build.py builds none"
    parser.addoption("--distribution", metavar="FOLDER", help=built)


def pytest_configure(config):
    config.operations_ran = set()
    if config.option.operations:
        operations.record(config.operations_ran)


def _is_divided(config):
    """Tests that are named (a path, -k, -m) all run. A worker's arguments are not those of the command."""
    if hasattr(config, "workerinput"):
        return config.workerinput["divided"]
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword or config.option.markexpr
    return config.option.rest or not (config.option.exhaustive or named)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["divided"] = _is_divided(node.config)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["operations"] = sorted(session.config.operations_ran)
    elif session.config.option.operations:
        Path(session.config.option.operations).write_text(operations.table(session.config.operations_ran))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.operations_ran.update(map(tuple, node.workeroutput.get("operations", ())))


def pytest_collection_modifyitems(config, items):
    """What runs on a device carries the mark `gpu`: `pytest -m gpu` is all of it. Files with slow tests come first:
    workers take files in turn, and would wait for a slow one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    if _is_divided(config):
        short = {*selection.short(items)}
        left_out = [item for item in items if (item in short) == config.option.rest]
        items[:] = [item for item in items if (item in short) != config.option.rest]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: item.path not in slow)
    for item in items:
        parameters = getattr(item, "callspec", None)
        if parameters and {parameters.params.get("backend"), parameters.params.get("variant")} & {*ON_DEVICE}:
            item.add_marker(pytest.mark.gpu)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A parity test that a device run skips has failed: every family has its kernels there."""
    report = yield
    if report.skipped and item.get_closest_marker("gpu") and "parity" in item.path.parts:
        report.outcome, report.longrepr = "failed", f"skipped on a device: {report.longrepr}"
    return report


def _force(variant, monkeypatch):
    name, _, choice = variant.partition(":")
    if choice == "device":
        torch.set_default_device(DEVICE)  # where the tests then make their tensors
    if name == "cpu":
        backends.cpu._cpu.choose_isa(choice)
    if name == "cuda-host":
        monkeypatch.setitem(backends.REGISTRY, name, CUDA_HOST)
        cuda_host.controls().gpuless_order(cuda_host.ORDERS[choice])
    fastsnn.use_backend(name)
    return variant


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Each backend that runs here is forced in turn."""
    return _force(request.param, monkeypatch)


@pytest.fixture(params=VARIANTS)
def variant(request, monkeypatch):
    """Each backend that runs here is forced in turn, under each of its instruction sets or thread orders."""
    return _force(request.param, monkeypatch)


@pytest.fixture
def no_graphs():
    """torch.compile starts anew."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.fixture
def poisoned(monkeypatch):
    """Uninitialised memory is NaN (numbers that have one), so that an element no kernel wrote shows."""

    def filled(tensor):
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    torch.utils._device._device_constructors()  # cached at its first use: before torch.empty is another function
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        allocate = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, _f=allocate, **kwargs: filled(_f(*args, **kwargs)))
