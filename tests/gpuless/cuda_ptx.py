"""The CUDA core's host code with the PTX that nvcc makes of its kernels, as backend `cuda-ptx` on CPU tensors."""

import ctypes
import functools
import importlib.util
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

import fastsnn
from fastsnn import backends

from . import cuda_host, ptx, toolkit

SIZE, BYTES = ctypes.POINTER(ctypes.c_uint), ctypes.c_size_t
HOOK = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_char_p, SIZE, BYTES, ctypes.c_void_p, BYTES)
FLAGS = ["-O0", "-fPIC", "-c", "-fvisibility=default", "-Wno-attributes"]  # launches find kernels by their symbols


@functools.cache
def texts():
    """PTX of each CUDA source"""
    with tempfile.TemporaryDirectory() as folder:
        sources = [source for source in cuda_host.SOURCES if source.suffix == ".cu"]
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda source: toolkit.compile_ptx(source, Path(folder) / source.stem), sources))


class Core:
    """The extension whose launches run PTX: a core, and what the backends' registry holds. `launched` holds the
    launches; `order` is that of the threads."""

    refusal = staticmethod(cuda_host.refusal)

    def __init__(self, folder):
        self.order, self.launched, self._operands = 0, [], []
        self.module = _extension(folder)
        self.__name__, self.rules, self.kernels = self.module.__name__, self.module.rules, self.module.kernels
        self._hook = HOOK(self._launch)
        ctypes.CDLL(self.module.__file__).gpuless_launch_hook(self._hook)

    def __getattr__(self, name):
        """A function of the extension, which notes the operands of its launch."""
        function = getattr(self.module, name)

        def call(*arguments, **named):
            operands = [*named.values(), *(slot for value in named.values() if type(value) is tuple for slot in value)]
            self._operands = [operand for operand in operands if isinstance(operand, torch.Tensor)]
            return function(*arguments, **named)

        return call

    def _launch(self, symbol, size, shared, params, param_bytes):
        kernel = symbol.decode()
        text = next(text for text in texts() if kernel in ptx.entry_names(text))
        params, operands = ctypes.string_at(params, param_bytes), ptx.by_address(self._operands)
        launch = ptx.Launch(text, kernel, tuple(size[:3]), tuple(size[3:6]), params, operands, shared, self.order)
        self.launched.append(launch)
        return launch.run()

    @functools.cached_property
    def KERNELS(self):
        core = backends.cuda.CORE._replace(name="cuda-ptx", module=self, where=lambda _: (0, 0))
        return {family: backends.FAMILIES[family](core) for family in ("lif", "standardize")}


@functools.cache
def core():
    with tempfile.TemporaryDirectory() as folder:
        return Core(Path(folder))


@contextmanager
def running(order=0):
    """Forces the backend, threads in that order; yields the list of its launches."""
    core().order, core().launched = order, []
    with mock.patch.dict(backends.REGISTRY, {"cuda-ptx": core()}), fastsnn.use_backend("cuda-ptx"):
        yield core().launched


def _extension(folder):
    import pybind11

    defines = ["-DFASTSNN_MODULE=_cuda_ptx", '-DFASTSNN_CUDA_ARCHS="ptx"', '-DFASTSNN_VERSION="ptx"']
    defines.append("-DFASTSNN_DEVICE=fastsnn::bindings::dlpack::kCpu")
    includes = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    objects = [folder / f"{source.stem}.o" for source in cuda_host.SOURCES]
    with ThreadPoolExecutor() as pool:
        jobs = zip([[source] for source in cuda_host.SOURCES], objects, strict=True)
        list(pool.map(lambda job: toolkit.compile_cuda(*job, flags=[*FLAGS, *defines, *includes]), jobs))
    library = folder / f"_cuda_ptx{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(["g++", "-shared", *map(str, objects), "-o", str(library)], check=True)
    spec = importlib.util.spec_from_file_location("_cuda_ptx", library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
