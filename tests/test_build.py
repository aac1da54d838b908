"""What is built and installed: sdist, wheel, no compiler, no native core."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fastsnn
from fastsnn import backends

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")

NVCC = shutil.which("nvcc")
PACKAGES = ("fastsnn", "fastsnn/backends", "fastsnn/data", "fastsnn/models", "fastsnn/nn", "fastsnn/online")
PACKAGES += ("fastsnn/ops", "fastsnn/reference", "fastsnn/_triton", "fastsnn/_bench")


def build(kind, source, out, **environment):
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out), str(source)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, unpacked."""
    out = tmp_path_factory.mktemp("sdist")
    done = build("sdist", ROOT, out)
    assert done.returncode == 0, done.stderr[-2000:]
    (archive,) = out.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(out)], check=True)
    return next(path for path in out.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Names in the wheel that the source distribution builds."""
    out = tmp_path_factory.mktemp("wheel")
    done = build("wheel", sdist, out, FASTSNN_CUDA_ARCHS="90")
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return path, zipfile.ZipFile(path).namelist()


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    _, names = wheel
    top = {name.split("/")[0] for name in names}
    assert top == {"fastsnn", next(n for n in top if n.endswith(".dist-info"))}
    assert {f"{package}/__init__.py" for package in PACKAGES} <= set(names)
    assert "fastsnn/py.typed" in names
    assert "fastsnn/_cpu.pyi" in names
    native = sorted(name.split(".")[0] for name in names if name.endswith((".so", ".pyd")))
    assert native == ["fastsnn/_cpu", *(["fastsnn/_cuda"] if NVCC else [])]
    assert not [name for name in names if name.endswith((".cpp", ".cu", ".h", ".o", ".ninja"))]


@pytest.mark.slow
def test_the_source_distribution_holds_what_the_tests_need(sdist):
    for name in (
        "csrc/core/lif.h",
        "csrc/cpu/kernels.cpp",
        "csrc/cuda/lif_forward.cu",
        "tests/golden/ottt.npz",
        "triton_kernels/__init__.py",
    ):
        assert (sdist / name).exists(), name


@pytest.mark.slow
def test_without_a_compiler_the_build_says_so_in_a_sentence(sdist, tmp_path):
    done = build("wheel", sdist, tmp_path, CXX="no-such-compiler")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "fastsnn needs a C++17 compiler" in said
    assert "FASTSNN_PURE_PYTHON=1" in said
    assert not list(tmp_path.glob("*.whl"))


REFUSED = {
    "no nvcc": (
        {"FASTSNN_CUDA": "1", "CUDA_HOME": "/nowhere"},
        "FASTSNN_CUDA=1 asks for the CUDA core and there is no nvcc",
    ),
    "not a choice": ({"FASTSNN_CUDA": "yes"}, "FASTSNN_CUDA is 'yes'; allowed: 1"),
}
if NVCC:
    REFUSED["unknown architecture"] = ({"FASTSNN_CUDA_ARCHS": "6;zz"}, "FASTSNN_CUDA_ARCHS is '6;zz' and")


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_a_cuda_core_that_cannot_be_built_is_refused_in_a_sentence(sdist, tmp_path, case):
    environment, message = REFUSED[case]
    done = build("wheel", sdist, tmp_path, **environment)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.slow
def test_without_cuda_only_the_cpu_core_is_built(sdist, wheel, tmp_path):
    for built in (sdist / "build").glob("lib*"):  # what is compiled stays: a CPU core needs no second time
        shutil.rmtree(built)
    done = build("wheel", sdist, tmp_path, FASTSNN_CUDA="0")
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("*.whl")
    assert [name.split(".")[0] for name in zipfile.ZipFile(path).namelist() if name.endswith(".so")] == ["fastsnn/_cpu"]


@pytest.mark.slow
def test_pure_python_is_asked_for_and_loud(sdist, tmp_path):
    done = build("wheel", sdist, tmp_path, CXX="no-such-compiler", FASTSNN_PURE_PYTHON="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the native core is NOT built" in done.stdout + done.stderr
    (path,) = tmp_path.glob("*.whl")
    assert path.name.endswith("py3-none-any.whl")


PROGRAM = """
import sys, warnings
sys.modules["fastsnn._cpu"] = None
warnings.simplefilter("always")
import torch, fastsnn
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    layer = fastsnn.LIF()
    for _ in range(2):
        layer(torch.ones(3))
print(len(caught), caught[0].message)
print(layer.explain())
fastsnn.use_backend("cpu")
try:
    layer(torch.ones(3))
except fastsnn.BackendError as error:
    print(error)
"""


def test_without_the_core_the_reference_runs_after_one_warning(tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("1 fastsnn runs the slow PyTorch reference (cpu: the native core is not installed")
    assert "last call: reference" in lines
    assert "FASTSNN_PURE_PYTHON" in lines[-1]
    assert "'cpu' is forced and cannot run lif" in lines[-1]


def load_alone(name, path, then):
    program = f"""
import sys
from importlib import util
spec = util.spec_from_file_location({name!r}, {path!r})
core = util.module_from_spec(spec)
spec.loader.exec_module(core)
print({then}, "torch" in sys.modules)
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_the_native_core_needs_no_torch():
    assert load_alone("fastsnn._cpu", fastsnn._cpu.__file__, "core.isa()") == [fastsnn._cpu.isa(), "False"]


@pytest.mark.skipif(backends.cuda._cuda is None, reason="fastsnn was built without its CUDA core")
def test_the_cuda_core_needs_no_torch_and_no_driver():
    core = backends.cuda._cuda
    assert load_alone("fastsnn._cuda", core.__file__, "core.archs") == [core.archs, "False"]
    linked = subprocess.run(["ldd", core.__file__], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked
    assert "cuda" not in linked.replace(core.__file__, "")
