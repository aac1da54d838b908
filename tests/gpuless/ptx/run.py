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
from .parse import PtxError, parse
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
    unique_sectors: int
    unique_bytes: int

    @property
    def sector_use(self):
        """Share of the touched sectors' bytes that the warp wanted, request by request."""
        return self.useful_bytes / (32 * self.sectors)

    @property
    def unique_sector_use(self):
        """Share of the touched sectors' bytes that some thread of the launch wanted."""
        return self.unique_bytes / (32 * self.unique_sectors)


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


def by_address(tensors):
    """Tensors by address, where each must stand for one tensor. Raises PtxError."""
    buffers = {t.data_ptr(): t.detach() for t in tensors if t.numel()}
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


def pack(params, args):
    """The block of all parameters."""
    if len(args) != len(params):
        raise PtxError(f"the kernel takes {len(params)} arguments, not {len(args)}")
    block = bytearray(params[-1].offset + params[-1].bytes if params else 0)
    for param, value in zip(params, args, strict=True):
        block[param.offset : param.offset + param.bytes] = _pack(param, value)
    return bytes(block)


def _write_job(path, launch):
    places = {address: i for i, address in enumerate(launch.tensors)}
    words = range(0, len(launch.params) - len(launch.params) % 8, 8)
    pointers = [(at, places.get(POINTER.unpack_from(launch.params, at)[0])) for at in words]
    pointers = [(at, place) for at, place in pointers if place is not None]
    sizes = len(launch.params), len(launch.tensors), len(pointers)
    header = [*launch.grid, *launch.block, launch.order, launch.shared, *sizes]
    with open(path, "wb") as file:
        file.write(struct.pack(f"={len(header)}Q", *header) + launch.params)
        for pointer in pointers:
            file.write(struct.pack("=2Q", *pointer))
        for address, tensor in launch.tensors.items():
            file.write(struct.pack("=2Q", tensor.nbytes, address % ALIGNMENT))
            file.write(_content(tensor))


def _read_answer(path, tensors):
    data = path.read_bytes()
    at = 0
    for tensor in tensors.values():
        _content(tensor)[:] = memoryview(data)[at : at + tensor.nbytes]
        at += tensor.nbytes
    return Counts(*struct.unpack_from(f"={len(dataclasses.fields(Counts))}Q", data, at))


def _three(size):
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return (*sizes, 1, 1)[:3]


@functools.cache
def _loaded(text, kernel):
    source, _ = translate(text, kernel)
    return ctypes.CDLL(str(_compiled(source, flags=("-O0", "-shared", "-fPIC")))).ptx_launch


@dataclasses.dataclass(frozen=True)
class Launch:
    """One launch of a kernel of PTX text. `params`: the block of all parameters, in which each aligned word that is
    an address of `tensors` points to that tensor. `shared`: bytes of dynamic shared memory. `order`: of the threads,
    0 ascending, 1 descending, else a shuffle's seed. A pickled launch can only run apart."""

    text: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    params: bytes
    tensors: dict[int, torch.Tensor]
    shared: int = 0
    order: int = 0

    def run(self):
        """In this process, which a failed check aborts. Returns whether there is such a grid and block."""
        size = (ctypes.c_uint * 6)(*self.grid, *self.block)
        return bool(_loaded(self.text, self.kernel)(size, ctypes.c_size_t(self.shared), self.order, self.params))

    def run_apart(self, flavour="plain", count=False):
        """In a child process, each tensor in memory of exactly its size. Returns its Counts, or None without `count`.

        `flavour`: plain, address (AddressSanitizer and UBSan) or thread (ThreadSanitizer).
        Raises PtxError, with what the checker said, if the PTX is unknown or the run fails.
        """
        source, _ = translate(self.text, self.kernel)
        program = _compiled(source, flavour, ["-O0", *(["-DCOUNT"] if count else [])])
        with tempfile.TemporaryDirectory() as folder:
            job, answer = Path(folder) / "job", Path(folder) / "answer"
            _write_job(job, self)
            done = toolkit.execute([program, job, answer])
            if done.returncode != 0:
                raise PtxError(f"{self.kernel} failed with status {done.returncode}: {done.stderr[-8000:]}")
            counts = _read_answer(answer, self.tensors)
        return counts if count else None


def run_ptx(text, kernel, grid, block, args, *, shared=0, order=0, buffers=(), flavour="plain", count=False):
    """Runs the kernel of that name in PTX text in a child process and returns its Counts, or None without `count`.

    `args`: one a parameter; CPU tensors (written in place), None, ints, floats, or bytes for a struct by value, whose
    words may be addresses of tensors of `args` or `buffers`. The rest as `Launch`.
    """
    tensors = by_address([*(a for a in args if isinstance(a, torch.Tensor)), *buffers])
    params = pack(parse(text, kernel).params, args)
    return Launch(text, kernel, _three(grid), _three(block), params, tensors, shared, order).run_apart(flavour, count)
