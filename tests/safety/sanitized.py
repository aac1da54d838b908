"""The CPU core under AddressSanitizer and UndefinedBehaviorSanitizer, as a module; see `preload`."""

import functools
import hashlib
import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
SOURCES = [CSRC / name for name in ("bindings/cpu.cpp", "cpu/dispatch.cpp", "cpu/kernels.cpp")]
FLAGS = (
    "-std=c++17 -O1 -g1 -fPIC -shared -fopenmp -fvisibility=hidden -ffp-contract=off -fno-omit-frame-pointer "
    "-fsanitize=address,undefined -fno-sanitize-recover=undefined -DFASTSNN_ISA=generic"
).split()


def lacks():
    """Why it cannot be built; empty where it can."""
    return "" if shutil.which("g++") and SOURCES[0].exists() else "needs g++ and the sources"


@functools.cache
def library():
    """Path of the extension, built once for these sources and this Python."""
    import pybind11

    files = sorted(CSRC.rglob("*.h")) + SOURCES
    fingerprint = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"fastsnn-cpu-address-{fingerprint}"
    built = folder / f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not built.exists():
        built.parent.mkdir(exist_ok=True)
        includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
        defines = ['-DFASTSNN_VERSION="address"']
        scratch = built.with_suffix(".new")
        subprocess.run(["g++", *FLAGS, *defines, *includes, *map(str, SOURCES), "-o", str(scratch)], check=True)
        scratch.replace(built)
    return built


def core():
    """The extension as a module."""
    spec = importlib.util.spec_from_file_location("_cpu", library())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def preload():
    """The environment of a process that loads it."""
    # with the library of exceptions, which the sanitizer asks for when it starts
    names = ("libasan.so", "libstdc++.so.6")
    found = [subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip() for name in names]
    return {"LD_PRELOAD": " ".join(found), "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1"}
