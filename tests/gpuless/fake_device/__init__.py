"""A device that is not there, `fake`: tensors in CPU memory that refuse to mix with CPU tensors, the CUDA core's own
sources behind it as backend `cuda`, and counts of what a GPU would make the host wait for (fake.cpp)."""

import functools
import hashlib
import importlib.util
import sysconfig
import tempfile
import types
from pathlib import Path
from typing import NamedTuple

import torch

from fastsnn import backends

from .. import cuda_host

NAME = "fake"
SOURCE = Path(__file__).with_name("fake.cpp")
DLPACK_TYPE = 12  # kDLExtDev, as torch calls a device that came by an extension


class Counts(NamedTuple):
    """So far: values that the host waited for, blocking copies to the device, kernels of torch, kernels of ours."""

    reads: int
    copies: int
    kernels: int
    own: int


def counts():
    return Counts(*_core().counts(), cuda_host.controls().gpuless_launches())


@functools.cache
def _core():
    """The back end, built once for this torch."""
    from torch.utils import cpp_extension

    key = torch.__version__.encode() + SOURCE.read_bytes() + sysconfig.get_config_var("EXT_SUFFIX").encode()
    folder = Path(tempfile.gettempdir()) / f"fastsnn-fake-device-{hashlib.sha256(key).hexdigest()[:16]}"
    built = folder / "_fake_device.so"
    if not built.exists():
        folder.mkdir(exist_ok=True)
        options = {"build_directory": str(folder), "is_python_module": False}
        cpp_extension.load("_fake_device", [str(SOURCE)], extra_cflags=["-O1", "-w"], **options)
    spec = importlib.util.spec_from_file_location("_fake_device", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _device_module():
    """What torch asks of `torch.fake`."""
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = lambda: False
    module._lazy_init = lambda: None
    module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    module.get_amp_supported_dtype = lambda: [torch.float16, torch.bfloat16]
    module.synchronize = lambda device=None: None
    return module


class Backend:
    """The CUDA core's kernels on the fake device."""

    @staticmethod
    def refusal(device):
        return None if device.type == NAME else f"the cuda backend takes {NAME} tensors and this one is on {device}"

    @functools.cached_property
    def KERNELS(self):
        kernels = cuda_host.Backend().KERNELS
        cuda_host.controls().gpuless_device(DLPACK_TYPE)
        for family in kernels.values():
            family.NAME = "cuda"
        return kernels


def register():
    """There is a fake device in this process from now on."""
    _core()
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _device_module())
    torch.utils.generate_methods_for_privateuse1_backend()
    backends.REGISTRY["cuda"], backends.ORDER[NAME] = Backend(), ("cuda",)


def is_there():
    return hasattr(torch, NAME)
