"""Tensors that end, or begin, at a page which nothing may touch: one element too far is a signal."""

import ctypes
import mmap

import torch

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(tensor, at_end=True):
    """A copy of a dense tensor in pages of its own between two that are closed."""
    size = tensor.numel() * tensor.element_size()
    if size == 0:
        return tensor.clone()
    pages = -(-size // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for closed in (start, start + (pages + 1) * PAGE):
        if _libc.mprotect(ctypes.c_void_p(closed), ctypes.c_size_t(PAGE), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (pages * PAGE - size if at_end else 0)
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
    copy = flat.as_strided(tensor.shape, tensor.stride()) if tensor.numel() > 1 else flat.reshape(tensor.shape)
    return copy.copy_(tensor.detach())
