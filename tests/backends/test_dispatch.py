"""Which backend runs, and what is said where one cannot."""

import asyncio
import os
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fastsnn
from fastsnn import backends
from fastsnn.functional import lif_step, standardize

from ..gpuless import cuda_host, toolkit

X = torch.ones(3)


@pytest.fixture
def no_core(monkeypatch):
    """An installation whose native core did not build."""
    monkeypatch.setattr(backends.cpu, "_cpu", None)
    monkeypatch.setattr(backends.cpu, "_import_error", "No module named 'fastsnn._cpu'", raising=False)
    monkeypatch.setattr(backends, "_warned", set())
    fastsnn.use_backend(None)


def test_the_core_runs_by_default():
    fastsnn.use_backend(None)
    neuron = fastsnn.LIF()
    neuron(X)
    assert neuron.explain() == "last call: cpu\ncpu: runs\nreference: not reached"


def test_an_unknown_family_is_an_error_that_names_those_there_are():
    with pytest.raises(fastsnn.BackendError, match=r"family is 'lief'; registered are: .*\blif\b"):
        backends.explain("lief", "cpu")


@pytest.mark.parametrize("line", ["import fastsnn", "from fastsnn import backends; import fastsnn"])
def test_families_are_registered_for_who_asks_for_the_registry_first(line):
    program = f"{line}; print(fastsnn.backends.explain('lif', 'cpu')[-1])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "('reference', 'not reached')\n"


def test_a_forced_backend_runs():
    neuron = fastsnn.LIF()
    with fastsnn.use_backend("reference"):
        neuron(X)
        assert neuron.explain() == "last call: reference\nreference: runs"


def test_the_context_restores_what_was_before():
    fastsnn.use_backend("reference")
    with fastsnn.use_backend("cpu"), fastsnn.use_backend(None):
        pass
    assert backends.explain("lif", "cpu") == [("reference", "runs")]


def test_an_error_in_the_context_restores_as_well():
    fastsnn.use_backend("cpu")
    with pytest.raises(KeyError), fastsnn.use_backend("reference"):
        raise KeyError
    assert backends.explain("lif", "cpu") == [("cpu", "runs")]


@pytest.mark.parametrize("name", ["opencl", "", "CPU"])
def test_an_unknown_backend_is_refused_at_once(name):
    before = backends.explain("lif", "cpu")
    with pytest.raises(fastsnn.BackendError, match=rf"backend is '{name}'; allowed: cuda, triton, cpu, reference"):
        fastsnn.use_backend(name)
    assert backends.explain("lif", "cpu") == before


@pytest.mark.parametrize("name", ["cuda", "triton"])
@pytest.mark.parametrize(
    "call",
    [lambda: lif_step(X.to("meta")), lambda: standardize(torch.ones(3, 4, device="meta"), X.to("meta"))],
    ids=["lif", "standardize"],
)
def test_a_forced_backend_that_cannot_run_raises_with_reason_and_remedy(call, name):
    with (
        fastsnn.use_backend(name),
        pytest.raises(fastsnn.BackendError, match=rf"'{name}' is forced and cannot run .*{name}.*use_backend\(None\)"),
    ):
        call()


def test_a_refused_call_leaves_the_state():
    neuron = fastsnn.LIF.for_rule("ottt")
    neuron(X)
    before = neuron.state
    with fastsnn.use_backend("cuda"), pytest.raises(fastsnn.BackendError):
        neuron(X)
    assert torch.equal(neuron.state.potential, before.potential)


def test_the_core_takes_cpu_tensors_only():
    with (
        fastsnn.use_backend("cpu"),
        pytest.raises(fastsnn.BackendError, match="cpu backend takes CPU tensors and this one is on meta"),
    ):
        lif_step(X.to("meta"))


CUDA = torch.device("cuda", 0)


def test_without_the_cuda_core_the_reason_names_the_remedy(monkeypatch):
    monkeypatch.setattr(backends.cuda, "_cuda", None)
    monkeypatch.setattr(backends.cuda, "_import_error", "No module named 'fastsnn._cuda'", raising=False)
    reason = backends.refusal("lif", "cuda", CUDA)
    assert "No module named 'fastsnn._cuda'" in reason
    assert "reinstall fastsnn where nvcc is on PATH" in reason


@pytest.fixture
def no_gpu_backend(monkeypatch):
    """An installation without the CUDA core and without Triton."""
    monkeypatch.setattr(backends.cuda, "_cuda", None)
    monkeypatch.setattr(backends.cuda, "_import_error", "No module named 'fastsnn._cuda'", raising=False)
    monkeypatch.setattr(backends.triton, "_core", None)
    monkeypatch.setattr(backends.triton, "_import_error", "No module named 'triton'", raising=False)
    fastsnn.use_backend(None)


def test_a_cuda_tensor_without_cuda_core_and_triton_is_refused_with_both_and_the_remedy(no_gpu_backend):
    assert backends.running("lif", "cuda") is None
    with pytest.raises(fastsnn.BackendError, match=r"no backend can run lif on cuda:0 ") as refused:
        backends._select("lif", CUDA)
    for part in ("No module named 'fastsnn._cuda'", "No module named 'triton'", "pip install triton", "nvcc"):
        assert part in str(refused.value)
    with fastsnn.use_backend("reference"):
        assert backends.running("lif", "cuda") == "reference"


def test_a_family_without_gpu_kernels_runs_the_reference_on_cuda_after_a_warning(monkeypatch):
    monkeypatch.setitem(backends.reference.KERNELS, "new", object())
    monkeypatch.setattr(backends, "_warned", set())
    fastsnn.use_backend(None)
    with pytest.warns(RuntimeWarning, match="the cuda backend has no new kernels; triton: the triton backend has no"):
        backends._select("new", CUDA)


class OldDriver:
    """A core that finds no machine code or driver that fits."""

    archs = "80;90"

    @staticmethod
    def driver_version():
        return 12040

    @staticmethod
    def refusal(device):
        return f"no kernel image is available for device {device} of compute capability 6.1"


def test_a_device_that_the_cuda_core_does_not_fit_is_refused_with_both_sides_and_the_remedy(monkeypatch):
    monkeypatch.setattr(backends.cuda, "_cuda", OldDriver)
    reason = backends.refusal("lif", "cuda", CUDA)
    for part in (
        "cuda:0",
        "compute capability 6.1",
        "machine code for 80;90",
        "FASTSNN_CUDA_ARCHS",
        "update the driver",
    ):
        assert part in reason


@pytest.mark.slow  # the short suite has no CUDA core
@pytest.mark.skipif(backends.cuda._cuda is None or torch.cuda.is_available(), reason="needs the core and no driver")
def test_the_core_finds_no_driver():
    assert backends.cuda._cuda.driver_version() == 0
    assert re.search(r"driver for CUDA 0\.0, core built with CUDA \d+\.\d+", backends.cuda._cuda.refusal(0))


def test_without_a_driver_the_reason_says_so_and_advises_no_update(monkeypatch):
    monkeypatch.setattr(backends.cuda, "_cuda", OldDriver)
    monkeypatch.setattr(OldDriver, "driver_version", staticmethod(lambda: 0))
    reason = backends.refusal("lif", "cuda", CUDA)
    assert "no NVIDIA driver is there" in reason
    assert "update" not in reason


@pytest.fixture
def machine(monkeypatch):
    """machine(load, policy): two cores and two threads."""

    def make(load, policy):
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        monkeypatch.setattr(backends, "_warned", set())
        torch.set_num_threads(2)
        fastsnn.use_backend(None)

    return make


needs_core = pytest.mark.skipif(backends.cpu._cpu is None, reason="needs the native core")


@needs_core
def test_a_load_above_the_cores_is_said_once_with_the_remedy(machine):
    machine(6.0, "active")
    with pytest.warns(RuntimeWarning, match=r"load is 6.0 on 2 cores: 2 threads .* OMP_WAIT_POLICY=passive"):
        lif_step(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastsnn.use_backend(None)
        lif_step(X)


@needs_core
@pytest.mark.parametrize(("load", "policy", "threads"), [(2.5, "active", 2), (6.0, "passive", 2), (6.0, "active", 1)])
def test_no_word_of_the_load_where_threads_do_not_spin_against_others(machine, load, policy, threads):
    machine(load, policy)
    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lif_step(X)


def test_state_on_another_device_is_refused():
    with pytest.raises(ValueError, match=r"state v is .* on meta and x \(torch.float32\) needs .* on cpu.*reset"):
        lif_step(X, X.to("meta"))


def test_without_the_core_the_reference_runs_after_one_warning(no_core):
    with pytest.warns(RuntimeWarning, match="slow PyTorch reference .*native core is not installed.*C\\+\\+17"):
        spikes = lif_step(X).spikes
    assert torch.equal(spikes, torch.zeros(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lif_step(X)
        fastsnn.use_backend(None)
        lif_step(X)


def test_without_the_core_forcing_it_raises(no_core):
    with (
        fastsnn.use_backend("cpu"),
        pytest.raises(fastsnn.BackendError, match=r"native core is not installed .*reinstall fastsnn"),
    ):
        lif_step(X)


HOLDS = {
    "reference": {"lif", "mpdr", "standardize", "empf", "binary", "osr", "ots"},
    "cpu": {"lif", "mpdr", "standardize", "empf", "binary", "osr", "ots", "stgr"},
    "cuda": {"lif", "mpdr", "standardize", "empf", "binary", "osr", "ots"},
    "triton": {"lif", "mpdr", "standardize", "empf", "binary", "osr", "ots"},
}


@pytest.mark.parametrize("name", HOLDS)
def test_a_backend_holds_these_families(name):
    """Where a family is missing, the parity suite skips: this says where it may."""
    assert backends.REGISTRY[name].KERNELS.keys() == HOLDS[name]


def test_available_names_every_backend():
    assert backends.available().keys() == {"cuda", "triton", "cpu", "reference"}
    assert backends.available()["reference"] == "available"


def python(code, **environment):
    command = [sys.executable, "-I", "-c", f"import torch, fastsnn\n{code}"]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_the_environment_variable_forces_a_backend():
    run = python("print(fastsnn.LIF().explain())", FASTSNN_BACKEND="reference")
    assert run.stdout == "last call: none yet\nreference: runs\n"


def test_threads_and_tasks_force_each_their_own_backend():
    async def task(name, turns):
        with fastsnn.use_backend(name):
            for _ in range(turns):
                await asyncio.sleep(0)
                assert backends.running("lif", "cpu") == name
        return backends.running("lif", "cpu")

    async def tasks():
        return await asyncio.gather(*(task(name, turns) for turns in (3, 9, 5) for name in ("reference", "cpu")))

    def thread(_):
        return asyncio.run(tasks())

    fastsnn.use_backend("reference")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(thread, range(16))) == [["cpu"] * 6] * 16
    assert backends.running("lif", "cpu") == "reference"


def test_what_the_environment_forces_stays_beneath_a_context():
    code = "with fastsnn.use_backend('cpu'): pass\nwith fastsnn.use_backend(None): print(fastsnn.LIF().explain())"
    assert python(code, FASTSNN_BACKEND="reference").stdout == "last call: none yet\nreference: runs\n"


def test_osr_in_evaluation_and_stgr_obey_a_forced_backend():
    p = torch.nn.Parameter(torch.ones(3))
    stgr = fastsnn.optim.STGR(torch.optim.SGD([p], 0.1, momentum=0.9))
    p.grad = torch.ones(3)
    with fastsnn.use_backend("cuda"):
        with pytest.raises(fastsnn.BackendError, match="'cuda' is forced and cannot run osr on cpu"):
            fastsnn.OSR1d(4, steps=2).eval()(torch.randn(3, 4))
        with pytest.raises(fastsnn.BackendError, match="'cuda' is forced and cannot run stgr on cpu"):
            stgr.step()
    assert torch.equal(p, torch.ones(3))


def test_an_unknown_name_in_the_environment_is_refused():
    run = python("", FASTSNN_BACKEND="gpu")
    assert run.returncode != 0
    assert "FASTSNN_BACKEND is 'gpu'; allowed: cuda, triton, cpu, reference" in run.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_one_openmp_runtime_is_loaded():
    code = "fastsnn.functional.lif_step(torch.ones(9))\nprint(open('/proc/self/maps').read())"
    mapped = {line.split()[-1] for line in python(code).stdout.splitlines() if "omp" in line.split("/")[-1]}
    runtimes = {path for path in mapped if path.rsplit("/")[-1].startswith(("libgomp", "libomp", "libiomp"))}
    assert len(runtimes) == 1


@pytest.mark.skipif(backends.cpu._cpu is None, reason="needs the CPU core")
@pytest.mark.parametrize("operand", [4096, [1.0], "x"])
def test_a_core_takes_tensors_alone(operand):
    weight = torch.ones(2, 3)
    sizes = {"where": 1, "rows": 2, "cols": 3, "dtype": 0}
    with pytest.raises(TypeError, match=r"binarize_backward: g_weight is .*; it must be a torch\.Tensor"):
        backends.cpu._cpu.binarize_backward(**sizes, weight=weight, g_out=weight, g_weight=operand)
    with pytest.raises(ValueError, match="g_weight is None; needed: 6 elements of float32 on cpu"):
        backends.cpu._cpu.binarize_backward(**sizes, weight=weight, g_out=weight, g_weight=None)


@pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers())
def test_the_cuda_core_refuses_more_steps_than_it_counts():
    core, x = cuda_host.core(), torch.empty(2**31, dtype=torch.float16)  # nothing touches it
    numbers = dict.fromkeys(("leak", "gain", "bias", "threshold", "v_reset", "reset_grad", "height", "slope"), 1.0)
    p = core.LifParams(**numbers, reset=0, rule=0, surrogate=0, of_rule=())
    sizes = {"where": (0, 0), "T": 2**31, "n": 1, "dtype": 3, "first": True, "potential_is_v": True}
    optional = dict.fromkeys(("potential", "keep", "u_last", "u_seq", "v_last", "v_seq"))
    with pytest.raises(ValueError, match=r"T is 2147483648 steps; allowed on CUDA: at most 2147483647"):
        core.lif_forward(p=p, **sizes, **optional, x=x, spikes=x, slots=(), slots_out=())
