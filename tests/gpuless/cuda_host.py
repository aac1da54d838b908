"""The CUDA core's own sources, compiled for the CPU, as backend `cuda-host`."""

import ctypes
import functools
import hashlib
import importlib.util
import os
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from fastsnn import backends
from fastsnn.backends import cuda

from . import toolkit

CSRC = Path(__file__).parents[2] / "csrc"
SOURCES = [*sorted(CSRC.glob("cuda/*.cu")), CSRC / "bindings" / "cuda.cpp"]
ORDERS = {"ascending": 0, "descending": 1, "shuffled": 7}


def refusal(device):
    return None if device.type == "cpu" else f"the cuda-host backend takes CPU tensors and this one is on {device}"


def _fingerprint(flavour):
    files = [*toolkit.INCLUDE.glob("*.h"), *CSRC.rglob("*.h"), *SOURCES]
    flags = f"{toolkit.FLAVOURS[flavour]} {torch.__version__}"
    parts = [flags.encode(), *(file.read_bytes() for file in sorted(files))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _compile(source, folder, flavour):
    import pybind11

    defines = ["-DFASTSNN_MODULE=_cuda_host", '-DFASTSNN_CUDA_ARCHS="host"', '-DFASTSNN_VERSION="host"']
    defines += ["-include", "device_type.h", "-DFASTSNN_DEVICE=gpuless_device_type"]
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    target = folder / f"{source.stem}.o"
    toolkit.compile_cuda([source], target, flavour, ["-c", "-fPIC", *defines, *includes])
    return target


@functools.cache
def library(flavour="plain"):
    """Path of the extension, built once for these sources: other processes wait for the one that builds it."""
    import fcntl

    folder = Path(tempfile.gettempdir()) / f"fastsnn-cuda-host-{_fingerprint(flavour)}"
    built = folder / f"_cuda_host{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            _build(built, flavour)
    return built


def _build(built, flavour):
    with tempfile.TemporaryDirectory(dir=built.parent) as scratch, ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = [*threads.map(lambda source: _compile(source, Path(scratch), flavour), SOURCES)]
        linked = Path(scratch) / built.name
        subprocess.run(["g++", *toolkit.FLAVOURS[flavour], "-shared", *map(str, objects), "-o", linked], check=True)
        linked.replace(built)


@functools.cache
def core(flavour="plain"):
    """The extension as a module."""
    spec = importlib.util.spec_from_file_location("_cuda_host", library(flavour))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def controls():
    """The scheduler of the threads: gpuless_order(n), gpuless_launches(), gpuless_barriers(); and
    gpuless_device(type), DLPack's, on which operands must be."""
    core()
    return ctypes.CDLL(str(library()))


def _where(_):
    return 0, 0


class Backend:
    """What the registry holds; built at first use."""

    refusal = staticmethod(refusal)

    @functools.cached_property
    def KERNELS(self):
        host = cuda.CORE._replace(name="cuda-host", module=core(), where=_where)
        return {family: backends.FAMILIES[family](host) for family in cuda.KERNELS}
