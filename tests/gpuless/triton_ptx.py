"""The Triton kernels as a launch compiles them for sm_80, run as PTX on CPU tensors: backend `triton-ptx`.

Needs a process without the interpreter (TRITON_INTERPRET=0).
"""

from contextlib import contextmanager
from unittest import mock

import torch

import fastsnn
from fastsnn import backends

from . import cuda_host, ptx
from .triton_build import compiled, flattened, launches_go_to, specialised

ARCH, WARP = 80, 32


def _launch(kernel, grid, args, options, order):
    variant, bound = specialised(kernel, ARCH, args, options)
    done = compiled(variant, ARCH)
    text, name = done.asm["ptx"], done.metadata.name
    taken = [*flattened(bound, variant.signature).values()]
    scratch = [None, None]  # Triton's own last parameters, which these kernels do not use
    return ptx.Launch(
        text,
        name,
        (*grid, 1, 1)[:3],
        (WARP * done.metadata.num_warps, 1, 1),
        ptx.pack(ptx.parse(text, name).params, [*taken, *scratch]),
        ptx.by_address(argument for argument in taken if isinstance(argument, torch.Tensor)),
        done.metadata.shared,
        order,
    )


class Backend:
    """What the backends' registry holds"""

    refusal = staticmethod(cuda_host.refusal)
    KERNELS = backends.triton.KERNELS


@contextmanager
def running(order=0):
    """Forces the backend, threads in that order; yields the list of its launches."""
    launched = []

    def launch(*asked):
        launched.append(_launch(*asked, order))
        if not launched[-1].run():
            raise ptx.PtxError(f"no such grid or block: {launched[-1].grid} {launched[-1].block}")

    registered = mock.patch.dict(backends.REGISTRY, {"triton-ptx": Backend})
    with registered, fastsnn.use_backend("triton-ptx"), launches_go_to(launch):
        yield launched
