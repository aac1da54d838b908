"""Runs PTX on CPU tensors: each kernel becomes a program of its own, compiled once and run in a child process."""

import ctypes
import dataclasses
import functools
import hashlib
import os
import struct
import tempfile
from pathlib import Path

import torch

from .. import toolkit
from .parse import PtxError
from .translate import translate

KERNEL_FLAGS = ["-fno-strict-aliasing", "-w"]
POINTER = struct.Struct("=Q")
ALIGNMENT = 256


@dataclasses.dataclass
class Counts:
    """What a launch executed, and how it touched global memory. A sector has 32 bytes."""

    threads: int
    instructions: int
    fmas: int
    bytes_read: int
    bytes_written: int
    requests: int
    sectors: int
    useful_bytes: int

    @property
    def sector_use(self):
        """Share of the touched sectors' bytes that the warp wanted."""
        return self.useful_bytes / (32 * self.sectors)


def _cache():
    folder = Path(tempfile.gettempdir(), f"fastsnn-gpuless-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _compiled(source, flavour="plain", flags=()):
    """The compiled program, from the cache where its source is the same."""
    headers = "".join(path.read_text() for path in sorted(toolkit.INCLUDE.glob("*.h")))
    digest = hashlib.sha256("\0".join([source, headers, flavour, *flags]).encode()).hexdigest()[:24]
    program = _cache() / digest
    if not program.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as folder:
            (Path(folder) / "kernel.cpp").write_text(source)
            toolkit.compile_cpp(
                [Path(folder) / "kernel.cpp"], Path(folder) / "kernel", flavour, [*KERNEL_FLAGS, *flags]
            )
            (Path(folder) / "kernel").replace(program)
    return program


@functools.cache
def load(text, kernel):
    """The kernel as a C function of this process: ptx_launch(grid and block, dynamic shared bytes, order, parameters).

    Addresses in the parameters are this process's, and a failed check aborts it.
    """
    source, _ = translate(text, kernel)
    return ctypes.CDLL(str(_compiled(source, flags=("-O0", "-shared", "-fPIC")))).ptx_launch


def _pack(param, value):
    """The bytes of one argument."""
    if isinstance(value, torch.Tensor):
        value = value.data_ptr()
    if isinstance(value, bytes):
        packed = value
    elif isinstance(value, float):
        packed = struct.pack("=d" if param.bytes == 8 else "=f", value)
    else:
        packed = (int(value or 0) % 2 ** (8 * param.bytes)).to_bytes(param.bytes, "little")
    if len(packed) != param.bytes:
        raise PtxError(f"{param.name} has {param.bytes} bytes, the argument {len(packed)}")
    return packed


def _buffers(tensors):
    """Tensors by address; each address must stand for one tensor."""
    buffers = {t.data_ptr(): t for t in tensors if t.numel()}
    end = 0
    for address, tensor in sorted(buffers.items()):
        if not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise PtxError("tensors must be contiguous and on the CPU")
        if address < end:
            raise PtxError("tensors overlap")
        end = address + tensor.nbytes
    return buffers


def _content(tensor):
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def _write_job(path, params, args, buffers, grid, block, shared, order):
    if len(args) != len(params):
        raise PtxError(f"the kernel takes {len(params)} arguments, not {len(args)}")
    memory = bytearray(params[-1].offset + params[-1].bytes if params else 0)
    for param, value in zip(params, args, strict=True):
        memory[param.offset : param.offset + param.bytes] = _pack(param, value)
    places = {address: i for i, address in enumerate(buffers)}
    words = range(0, len(memory) - len(memory) % 8, 8)
    pointers = [(at, places.get(POINTER.unpack_from(memory, at)[0])) for at in words]
    pointers = [(at, place) for at, place in pointers if place is not None]
    header = [*grid, *block, order, shared, len(memory), len(buffers), len(pointers)]
    with open(path, "wb") as file:
        file.write(struct.pack(f"={len(header)}Q", *header) + memory)
        for pointer in pointers:
            file.write(struct.pack("=2Q", *pointer))
        for address, tensor in buffers.items():
            file.write(struct.pack("=2Q", tensor.nbytes, address % ALIGNMENT))
            file.write(_content(tensor))


def _read_answer(path, buffers):
    data = path.read_bytes()
    at = 0
    for tensor in buffers.values():
        _content(tensor)[:] = memoryview(data)[at : at + tensor.nbytes]
        at += tensor.nbytes
    return Counts(*struct.unpack_from("=8Q", data, at))


def _three(size):
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return (*sizes, 1, 1)[:3]


def run_ptx(text, kernel, grid, block, args, *, shared=0, order=0, buffers=(), flavour="plain", count=False):
    """Runs the kernel of that name in PTX text and returns its Counts, or None without `count`.

    `args`: one a parameter; CPU tensors (written in place), None, ints, floats, or bytes for a struct by value, in
    which each aligned word that is the address of a tensor of `args` or `buffers` points to that tensor.
    `shared`: bytes of dynamic shared memory. `order`: of the threads, 0 ascending, 1 descending, else a shuffle's
    seed. `flavour`: plain, address (AddressSanitizer and UBSan) or thread (ThreadSanitizer).
    Raises PtxError, with what the checker said, if the PTX is unknown or the run fails.
    """
    tensors = _buffers([*(a for a in args if isinstance(a, torch.Tensor)), *buffers])
    source, params = translate(text, kernel)
    program = _compiled(source, flavour, ["-O1", *(["-DCOUNT"] if count else [])])
    with tempfile.TemporaryDirectory() as folder:
        job, answer = Path(folder) / "job", Path(folder) / "answer"
        _write_job(job, params, args, tensors, _three(grid), _three(block), shared, order)
        done = toolkit.execute([program, job, answer])
        if done.returncode != 0:
            raise PtxError(f"{kernel} failed with status {done.returncode}: {done.stderr[-8000:]}")
        counts = _read_answer(answer, tensors)
    return counts if count else None
