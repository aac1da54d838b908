"""The CUDA kernels of LIF compiled with other settings, timed in turn."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fastsnn.backends.native.lif import TRACES
from fastsnn.backends.native.operands import DTYPES as CODES
from fastsnn.reference.surrogate import SHAPES

from .clock import in_turn
from .target import DTYPES, Stage

SETTINGS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "halves: 4 a thread, 8 bytes": ("-DFASTSNN_HALF_VECTOR=4",),
    "halves: 8 neighbours a thread": ("-DFASTSNN_PAIRED=0",),
    "128 threads": ("-DFASTSNN_THREADS=128", "-DFASTSNN_BLOCKS_PER_SM=8"),
    "512 threads": ("-DFASTSNN_THREADS=512", "-DFASTSNN_BLOCKS_PER_SM=2"),
    "registers free": ("-DFASTSNN_BLOCKS_PER_SM=1",),
    "all threads resident": ("-DFASTSNN_BLOCKS_PER_SM=8",),
}
FLAGS = ("-std=c++17", "-O3", "-fmad=false", "-cudart=static", "-shared", "-Xcompiler=-fPIC,-ffp-contract=off")
T = 16
Tensors = tuple[torch.Tensor | None, ...]


def sources(csrc: Path) -> list[Path]:
    return [Path(__file__).with_name("variant.cu"), csrc / "cuda" / "lif_forward.cu", csrc / "cuda" / "lif_backward.cu"]


def command(nvcc: str, arch: str, csrc: Path, settings: tuple[str, ...], target: Path) -> list[str]:
    return [nvcc, *FLAGS, f"-arch=sm_{arch}", f"-I{csrc}", *settings, *map(str, sources(csrc)), "-o", str(target)]


def build(stage: Stage, csrc: Path, arch: str) -> dict[str, Path]:
    """name -> library, all compiled at once; a row for one that does not compile."""
    nvcc = shutil.which("nvcc") or ""
    targets = {name: Path(stage.target.out) / f"variant{i}.so" for i, name in enumerate(SETTINGS)}
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = {
        name: subprocess.Popen(command(nvcc, arch, csrc, SETTINGS[name], target), **piped)
        for name, target in targets.items()
    }
    for name, process in running.items():
        said, _ = process.communicate()
        if process.returncode:
            stage.row(case="compilation", variant=name, error=said[-400:])
            del targets[name]
    return targets


def load(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    size, address = ctypes.c_int64, ctypes.c_void_p
    library.variant_forward.argtypes = [ctypes.c_int, ctypes.c_int, size, size, *[address] * 10]
    library.variant_backward.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_bool, size, size, *[address] * 4]
    library.variant_forward.restype = library.variant_backward.restype = ctypes.c_char_p
    return library


def at(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def checked(call: Callable[..., bytes | None], given: tuple[Any, ...]) -> None:
    error = call(*given)
    if error is not None:
        raise RuntimeError(error.decode())


def works(n: int, dtype: torch.dtype, device: str) -> dict[str, tuple[Callable[[Any], object], torch.Tensor]]:
    """mode -> what is timed, given a library, and a tensor that it writes."""
    code, stream = CODES[dtype], torch.cuda.current_stream().cuda_stream if device == "cuda" else None
    x, spikes, g_x = (torch.randn(n, device=device, dtype=dtype) for _ in range(3))
    u, a, e = torch.randn(n, device=device), torch.zeros(n, device=device), torch.ones(n, device=device)
    u_last, a_last, e_last, u_seq = (torch.empty(n, device=device) for _ in range(4))

    def forward(trace: str, steps: int, before: Tensors, after: Tensors) -> Callable[[Any], object]:
        numbers, operands = (code, TRACES[trace], steps, n // steps), (x, *before, spikes, *after)
        return lambda library: checked(library.variant_forward, (*numbers, *map(at, operands), stream))

    def backward(shape: str, through_time: bool, steps: int) -> Callable[[Any], object]:
        numbers, operands = (code, SHAPES.index(shape), through_time, steps, n // steps), (x, u, g_x)
        return lambda library: checked(library.variant_backward, (*numbers, *map(at, operands), stream))

    return {
        "sltt step forward": (forward("none", 1, (u, None, None), (u_last, None, None, None)), u_last),
        "ottt step forward": (forward("ottt", 1, (u, a, None), (u_last, None, a_last, None)), a_last),
        "ndot step forward": (forward("ndot", 1, (u, a, e), (u_last, None, a_last, e_last)), e_last),
        "sltt step backward": (backward("triangle", False, 1), g_x),
        "ottt step backward": (backward("sigmoid", False, 1), g_x),
        f"bptt sequence T={T} forward": (forward("none", T, (None, None, None), (None, u_seq, None, None)), u_seq),
        f"bptt sequence T={T} backward": (backward("sigmoid", True, T), g_x),
    }


def run(stage: Stage) -> None:
    csrc = Path(stage.target.tests).parent / "csrc"
    if not stage.target.is_gpu or not csrc.exists() or not shutil.which("nvcc"):
        why = f"needs nvcc and a clone around {stage.target.tests}" if stage.target.is_gpu else "needs a device"
        stage.row(case="variants", error=why)
        return
    arch = "".join(map(str, torch.cuda.get_device_capability()))
    libraries = {name: load(path) for name, path in build(stage, csrc, arch).items()}
    for dtype in ("float32", "bfloat16"):
        for mode, (work, _) in works(2**26, DTYPES[dtype], stage.target.device).items():

            def measure(mode: str = mode, work: Any = work, dtype: str = dtype) -> None:
                times = in_turn({name: partial(work, library) for name, library in libraries.items()}, 10, 5)
                for name, us in times.items():
                    stage.row(case=mode, variant=name, dtype=dtype, us=us, over=us / times["as it is"])

            stage.attempt(f"{mode} {dtype}", measure)
