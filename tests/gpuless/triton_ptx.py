"""The Triton kernels as a launch compiles them for sm_80, run as PTX on CPU tensors: backend `triton-ptx`.

Needs a process without the interpreter (TRITON_INTERPRET=0).
"""

from contextlib import contextmanager

import torch

from . import ptx
from .triton_build import compiled, launches_go_to, specialised

ARCH, WARP = 80, 32


def _launch(kernel, grid, args, options, order):
    variant, bound = specialised(kernel, ARCH, args, options)
    done = compiled(variant, ARCH)
    text, name = done.asm["ptx"], done.metadata.name
    taken = [bound[argument] for argument, kind in variant.signature.items() if kind != "constexpr"]
    scratch = [None, None]  # Triton's own last parameters, which these kernels do not use
    return ptx.Launch(
        text,
        name,
        (*grid, 1, 1)[:3],
        (WARP * done.metadata.num_warps, 1, 1),
        ptx.pack(ptx.parse(text, name).params, [*taken, *scratch]),
        tuple(argument for argument in taken if isinstance(argument, torch.Tensor)),
        done.metadata.shared,
        order,
    )


@contextmanager
def running(order=0):
    """Inside this context Triton's launches run on CPU tensors, threads in that order; yields the list of them."""
    launched = []

    def launch(*asked):
        launched.append(_launch(*asked, order))
        assert launched[-1].run()

    with launches_go_to(launch):
        yield launched
