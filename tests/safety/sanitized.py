"""The CPU core under AddressSanitizer and UndefinedBehaviorSanitizer: its kernels, and as a module; see `preload`."""

import functools
import hashlib
import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = CSRC / "cpu" / "kernels.cpp"
SOURCES = [CSRC / name for name in ("bindings/cpu.cpp", "cpu/dispatch.cpp")]
FLAGS = (
    "-std=c++17 -O1 -g1 -fPIC -fopenmp -fvisibility=hidden -ffp-contract=off -fno-omit-frame-pointer "
    "-fsanitize=address,undefined -fno-sanitize-recover=undefined -DFASTSNN_ISA=generic"
).split()


def lacks():
    """Why it cannot be built; empty where it can."""
    return "" if shutil.which("g++") and KERNELS.exists() else "needs g++ and the sources"


def _built(name, *options):
    """Path of what g++ makes with these options, once for these sources and this Python: other processes wait for the
    one that builds it."""
    import fcntl

    files = [*sorted(CSRC.rglob("*.h")), KERNELS, *SOURCES]
    fingerprint = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"fastsnn-cpu-address-{fingerprint}"
    folder.mkdir(exist_ok=True)
    built, scratch = folder / name, folder / f"new-{name}"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            subprocess.run(["g++", *FLAGS, *map(str, options), "-o", str(scratch)], check=True)
            scratch.replace(built)
    return built


@functools.cache
def kernels():
    """Path of the kernels' object file, for the module and for programs."""
    return _built("kernels.o", "-c", KERNELS)


@functools.cache
def library():
    """Path of the extension."""
    import pybind11

    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    name = f"_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"
    return _built(name, "-shared", '-DFASTSNN_VERSION="address"', *includes, *SOURCES, kernels())


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
