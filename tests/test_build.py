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
def sdist(request, tmp_path_factory):
    """The source distribution, unpacked."""
    out = request.config.option.distribution
    if out is None:
        out = tmp_path_factory.mktemp("sdist")
        done = build("sdist", ROOT, out)
        assert done.returncode == 0, done.stderr[-2000:]
        (archive,) = out.glob("*.tar.gz")
        subprocess.run(["tar", "-xzf", str(archive), "-C", str(out)], check=True)
    return next(path for path in Path(out).iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def wheel(request, sdist, tmp_path_factory):
    """Path of the wheel that the source distribution builds, and the names in it."""
    out = request.config.option.distribution
    if out is None:
        out = tmp_path_factory.mktemp("wheel")
        done = build("wheel", sdist, out, **({"FASTSNN_CUDA_ARCHS": "90"} if NVCC else {}))
        assert done.returncode == 0, done.stderr[-2000:]
    (path,) = Path(out).glob("*.whl")
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


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def toolkit(folder, known, then="exit 1"):
    """CUDA_HOME of an nvcc that knows these architectures and does no more."""
    said = "".join(f"echo compute_{arch};" for arch in known.split(";"))
    script(folder / "bin" / "nvcc", f'case "$1" in --list-gpu-arch) {said} exit 0;; esac; {then}')
    return str(folder)


def cuda_of(**environment):
    """What setup.py would build of the CUDA core, as (architectures or None, what it said)."""
    program = (
        "import runpy, setuptools; setuptools.setup = lambda **_: None; "
        "cuda = runpy.run_path('setup.py')['CUDA']; print(cuda and ';'.join(cuda[1]))"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("FASTSNN_", "CUDA_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env={**clean, **environment}
    )
    return done.stdout.strip(), done.stderr.strip()


DRIVER = """
static const int major[] = {MAJORS}, minor[] = {MINORS};
extern "C" int cuInit(unsigned) { return 0; }
extern "C" int cuDeviceGetCount(int* count) { *count = sizeof(major) / sizeof(int); return 0; }
extern "C" int cuDeviceGet(int* device, int index) { *device = index; return 0; }
extern "C" int cuDeviceGetAttribute(int* value, int which, int device) {
  *value = which == 75 ? major[device] : minor[device];
  return 0;
}
"""


@pytest.fixture
def driver(tmp_path):
    """driver("9.0", "8.6"): LD_LIBRARY_PATH of a driver library that shows these GPUs."""
    if sys.platform != "linux" or not shutil.which("g++"):
        pytest.skip("needs Linux and g++")

    def make(*capabilities):
        majors, minors = zip(*(capability.split(".") for capability in capabilities), strict=True)
        source = DRIVER.replace("MAJORS", ",".join(majors)).replace("MINORS", ",".join(minors))
        command = ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", str(tmp_path / "libcuda.so.1")]
        subprocess.run(command, input=source, text=True, check=True)
        return str(tmp_path)

    return make


ALL = "75;80;86;89;90;100;120"


@pytest.fixture
def no_driver(driver, tmp_path):
    """LD_LIBRARY_PATH where the driver's library is not one, as without a GPU."""
    (tmp_path / "libcuda.so.1").write_text("")
    return str(tmp_path)


def test_without_a_gpu_the_cuda_core_is_left_out_and_a_line_says_how_to_have_it(tmp_path, no_driver):
    archs, said = cuda_of(CUDA_HOME=toolkit(tmp_path, ALL), LD_LIBRARY_PATH=no_driver)
    assert archs == "None"
    (line,) = said.splitlines()
    for part in ("no NVIDIA GPU is visible", "FASTSNN_CUDA=1", "FASTSNN_CUDA_ARCHS"):
        assert part in line


@pytest.mark.parametrize(
    ("gpus", "known", "archs"),
    [
        (["9.0"], ALL, "90"),
        (["8.6", "9.0", "8.6"], ALL, "86;90"),
        (["12.0"], ALL, "120"),
        (["10.3"], ALL, "100"),  # the newest before it
        (["12.0"], "80;90;90a", "90"),
    ],
)
def test_with_a_gpu_its_architecture_alone_is_built(gpus, known, archs, driver, tmp_path):
    assert cuda_of(CUDA_HOME=toolkit(tmp_path, known), LD_LIBRARY_PATH=driver(*gpus)) == (archs, "")


def test_a_gpu_that_cannot_be_built_for_is_named(driver, tmp_path):
    path = driver("6.1")
    archs, said = cuda_of(CUDA_HOME=toolkit(tmp_path, ALL), LD_LIBRARY_PATH=path)
    assert archs == "None"
    assert "compute capability 61 is visible and" in said
    assert "is too new for it" in said
    archs, said = cuda_of(CUDA_HOME=str(tmp_path / "nowhere"), LD_LIBRARY_PATH=path)
    assert archs == "None"
    assert "there is no nvcc" in said


@pytest.mark.parametrize("gpus", [[], ["9.0"]])
def test_the_environment_decides(gpus, driver, no_driver, tmp_path):
    home = {"CUDA_HOME": toolkit(tmp_path, "75;80;90;100"), "LD_LIBRARY_PATH": driver(*gpus) if gpus else no_driver}
    assert cuda_of(**home, FASTSNN_CUDA="1") == ("75;80;90;100", "")
    assert cuda_of(**home, FASTSNN_CUDA_ARCHS="8.0, 90") == ("80;90", "")
    assert cuda_of(**home, FASTSNN_CUDA="0", FASTSNN_CUDA_ARCHS="80") == ("None", "")


REFUSED = {
    "no nvcc": (
        {"FASTSNN_CUDA": "1", "CUDA_HOME": "/nowhere"},
        "FASTSNN_CUDA=1 asks for the CUDA core and there is no nvcc: install the CUDA toolkit",
    ),
    "no nvcc for architectures": (
        {"FASTSNN_CUDA_ARCHS": "90", "CUDA_HOME": "/nowhere"},
        "FASTSNN_CUDA_ARCHS asks for the CUDA core and there is no nvcc: install the CUDA toolkit",
    ),
    "not a choice": ({"FASTSNN_CUDA": "yes"}, "FASTSNN_CUDA is 'yes'; allowed: 1"),
    "unknown architecture": ({"FASTSNN_CUDA_ARCHS": "90;zz"}, "FASTSNN_CUDA_ARCHS is '90;zz' and"),
    "nvcc that does not run": ({"FASTSNN_CUDA": "1"}, "mend the CUDA toolkit, name another"),
    "no architecture": ({"FASTSNN_CUDA_ARCHS": ";"}, "choose from these"),
    "nvcc that names no architecture": ({"FASTSNN_CUDA": "1"}, "names no architecture that it compiles for: mend"),
    "nvcc that is too old": ({"FASTSNN_CUDA": "1"}, "knows 35;52 and none of 75;80"),
    "no core and one": ({"FASTSNN_CUDA": "1", "FASTSNN_PURE_PYTHON": "1"}, "asks for no core and FASTSNN_CUDA"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_cuda_core_that_cannot_be_built_is_refused_in_a_sentence(case, tmp_path):
    environment, message = REFUSED[case]
    if case == "nvcc that does not run":
        script(tmp_path / "bin" / "nvcc", "exit 3")
    else:
        known = {"nvcc that names no architecture": "", "nvcc that is too old": "35;52"}
        toolkit(tmp_path, known.get(case, ALL))
    _, said = cuda_of(**{"CUDA_HOME": str(tmp_path), **environment})
    assert message in said.splitlines()[-1]
    assert len(said.splitlines()) == 1 or "FASTSNN_PURE_PYTHON" in environment  # which is loud


FAILING = {
    "no compiler": ({"CXX": "no-such-compiler"}, "install one (on Debian and Ubuntu: apt install g++), set CXX"),
    "a compiler that fails": ({"CXX": "exit 1"}, "could not compile the CPU core, see its messages above: use g++ 9"),
    "a full disk": ({"CXX": "exec cat /dev/zero > /dev/full"}, "the disk is full: free some space in"),
    "an nvcc that fails": (
        {"FASTSNN_CUDA": "1", "CUDA_HOME": "exit 1", "CXX": 'for last; do :; done; : > "$last"'},
        "could not compile the CUDA core, see its messages above: mend the CUDA toolkit",
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="compilers are shell scripts")
@pytest.mark.parametrize("case", FAILING)
def test_a_failed_build_says_why_in_a_sentence_and_installs_nothing(sdist, case, tmp_path):
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(sdist, source, ignore=shutil.ignore_patterns("build"))
    environment, message = FAILING[case]
    environment = dict(environment)
    if " " in environment.get("CXX", ""):
        environment["CXX"] = script(tmp_path / "c++", environment["CXX"])
    if "CUDA_HOME" in environment:
        environment["CUDA_HOME"] = toolkit(tmp_path / "cuda", "90", environment["CUDA_HOME"])
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", str(target)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert not target.exists() or not [*target.iterdir()]


@pytest.mark.slow
def test_without_cuda_only_the_cpu_core_is_built(sdist, wheel, tmp_path):
    for built in (sdist / "build").glob("lib*"):  # what is compiled stays: a CPU core needs no second time
        shutil.rmtree(built)
    done = build("wheel", sdist, tmp_path, FASTSNN_CUDA="0")
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("*.whl")
    assert [name.split(".")[0] for name in zipfile.ZipFile(path).namelist() if name.endswith(".so")] == ["fastsnn/_cpu"]


@pytest.fixture(scope="module")
def pure(sdist, tmp_path_factory):
    """What the build of a wheel without the native core said, and the wheel."""
    out = tmp_path_factory.mktemp("pure")
    done = build("wheel", sdist, out, CXX="no-such-compiler", FASTSNN_PURE_PYTHON="1")
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return done.stdout + done.stderr, path


@pytest.mark.slow
def test_pure_python_is_asked_for_and_loud(pure):
    said, path = pure
    assert "the native core is NOT built" in said
    assert path.name.endswith("py3-none-any.whl")


@pytest.mark.slow
def test_a_build_warns_of_nothing_and_holds_every_text(pure):
    said, path = pure
    assert "Warning" not in said
    texts = {*ROOT.glob("fastsnn/**/*.md"), *ROOT.glob("fastsnn/**/*.yaml"), *ROOT.glob("fastsnn/**/*.pyi")}
    assert texts
    assert {text.relative_to(ROOT).as_posix() for text in texts} <= {*zipfile.ZipFile(path).namelist()}


@pytest.fixture
def clone(tmp_path):
    """The source folder without cores, and beside it `site`, where the package with its cores is installed."""
    source, site = tmp_path / "clone", tmp_path / "site"
    shutil.copytree(ROOT / "fastsnn", source / "fastsnn", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (source / "setup.py").touch()
    shutil.copytree(Path(fastsnn._cpu.__file__).parent, site / "fastsnn", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "fastsnn-9.9.dist-info").mkdir()
    (site / "fastsnn-9.9.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: fastsnn\nVersion: 9.9\n")
    return source, site


@pytest.mark.parametrize("first", ["", "torch, "])
def test_python_started_in_the_source_folder_imports_the_installed_package(clone, first):
    source, site = clone
    options = {"capture_output": True, "text": True, "check": True, "cwd": source}
    options["env"] = {**os.environ, "PYTHONPATH": str(site)}
    program = f"import {first}fastsnn; print(fastsnn.__version__, fastsnn.__file__, fastsnn.backends.cpu._cpu.__file__)"
    version, *files = subprocess.run([sys.executable, "-c", program], **options).stdout.split()
    assert version == "9.9"
    assert all(Path(file).parent == site / "fastsnn" for file in files)
    info = subprocess.run([sys.executable, "-m", "fastsnn", "info"], **options).stdout
    assert "backend cpu        available" in info


def test_a_source_folder_that_is_not_installed_says_what_to_do(clone):
    source, _ = clone
    program = (
        "import importlib.metadata as found, sys; found.distributions = lambda **_: []; "
        "found.distribution = lambda name: (_ for _ in ()).throw(found.PackageNotFoundError(name)); import fastsnn"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=source)
    assert done.stderr.splitlines()[-1] == f"ImportError: fastsnn is not installed: run `pip install .` in {source}"


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


@pytest.mark.slow  # the short suite has no CUDA core
@pytest.mark.skipif(backends.cuda._cuda is None, reason="fastsnn was built without its CUDA core")
def test_the_cuda_core_needs_no_torch_and_no_driver():
    core = backends.cuda._cuda
    assert load_alone("fastsnn._cuda", core.__file__, "core.archs") == [core.archs, "False"]
    linked = subprocess.run(["ldd", core.__file__], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked
    assert "cuda" not in linked.replace(core.__file__, "")
