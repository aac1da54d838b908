"""What reaches the driver when Triton's kernels are launched, with a driver that only writes it down.

    python tests/gpuless/triton_launches.py       (without TRITON_INTERPRET)

prints, as JSON, how many launches of every family were compared: by Triton's own path, and by fastsnn's for kernels
that are compiled. Exits with 1 where they differ.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from types import SimpleNamespace

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

LAUNCHED: list[tuple] = []
KEPT: list[torch.Tensor] = []  # alive, so that no other operand gets their address


class Launcher:
    """In place of the launcher that Triton compiles against the driver."""

    def __init__(self, source, metadata):
        self.name = source.fn.__name__

    def __call__(self, *arguments):
        # grid, stream, function, packed metadata, launch metadata, two hooks, then the kernel's arguments
        x, y, z, stream, function, _, _, _, _, *own = arguments
        LAUNCHED.append((self.name, (x, y, z), stream, function, *map(told, own)))


class Tuple(list):
    """A tuple of arguments."""


def told(argument):
    if isinstance(argument, torch.Tensor):
        KEPT.append(argument)
        if argument.is_floating_point():
            argument.data.zero_()  # what no kernel wrote could be NaN, which a weight's scale may not be
        return str(argument.dtype), argument.data_ptr()
    return Tuple(map(told, argument)) if isinstance(argument, tuple) else argument


class Driver:
    launcher_cls = Launcher
    handles = iter(range(1 << 30))

    def __init__(self):
        limits = {"max_shared_mem": 232448}
        self.utils = SimpleNamespace(get_device_properties=lambda device: limits, load_binary=self.load)

    def load(self, *_):
        """A handle of its own for every kernel that is loaded, registers, spills, threads."""
        handle = next(self.handles)
        return handle, handle, 32, 0, 1024

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 7

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


class Here(contextlib.nullcontext):
    """The CPU, as torch.cuda.device_of tells it."""

    idx = -1


driver.set_active(Driver())
torch.cuda.device_of = lambda tensor: Here()

from fastsnn._triton import kernel as kernels  # noqa: E402

import fastsnn  # noqa: E402
from fastsnn import backends  # noqa: E402
from fastsnn.nn import plain  # noqa: E402
from fastsnn.ops import standardize  # noqa: E402

backends.triton.refusal = lambda device: None


def packed(layer):
    return fastsnn.deploy.pack(torch.nn.Sequential(layer).eval())


class Standardized(torch.nn.Linear):
    """A weight that is standardised at every call."""

    def forward(self, x):
        gain = torch.ones(len(self.weight), 1, requires_grad=True)
        return x @ standardize.standardize(self.weight, gain).t()


def cases():
    """name -> (layer, input)"""
    found = {}
    for rule in ("bptt", "ottt", "ndot"):
        for n in (1, 64, 77):
            found[f"lif {rule} {n}"] = fastsnn.LIF.for_rule(rule), torch.randn(n)
    found["lif unaligned"] = fastsnn.LIF.for_rule("ottt"), torch.randn(65)[1:]
    found["lif bfloat16"] = fastsnn.LIF.for_rule("ottt"), torch.randn(64).bfloat16()
    found["lif sequence"] = fastsnn.LIF(step_mode="m"), torch.randn(3, 64)
    image = torch.randn(2, 16, 4, 4)
    found["mpdr"] = fastsnn.LIF.for_rule("sltt", mpdr=fastsnn.online.MPDR(0.0, 1.0, 0.1)), torch.randn(64)
    found["ots"] = fastsnn.LIF.for_rule("sltt", threshold="ots"), image
    found["osr"] = fastsnn.OSR2d(16, 1 << 20, max_ratio=None), image
    found["osrlif"] = fastsnn.OSRLIF.for_rule("ottt", 16, 1 << 20, max_ratio=None), image
    found["osrlif ots"] = fastsnn.OSRLIF.for_rule("ottt", 16, 1 << 20, max_ratio=None, threshold="ots"), image
    found["empf I"] = fastsnn.EMPF(1 << 10, "I", 16), image
    found["standardize"] = Standardized(64, 5), torch.randn(2, 64)
    found["binarize"] = fastsnn.BinaryLinear(64, 5), torch.randn(2, 64)
    found["packed few"] = packed(fastsnn.BinaryLinear(64, 5)), torch.randn(1, 64)
    found["packed tile"] = packed(fastsnn.BinaryConv2d(16, 8, 3, padding=1)), image.half()
    return found


def launches(layer, x):
    """Names and arguments of one call and its backward; addresses by the order in which they come."""
    LAUNCHED.clear()
    KEPT.clear()
    torch.manual_seed(0)
    fastsnn.reset(layer)
    with fastsnn.use_backend("triton"), torch.set_grad_enabled(layer.training):
        out = plain(layer(x.requires_grad_(layer.training)))
        if out.requires_grad:
            torch.autograd.grad(out.sum(), (x, *layer.parameters()), allow_unused=True)
    places: dict[int, int] = {}

    def placed(value):
        if isinstance(value, Tuple):
            return [*map(placed, value)]
        return (value[0], places.setdefault(value[1], len(places))) if isinstance(value, tuple) else value

    return [(name, grid, stream, function, *map(placed, own)) for name, grid, stream, function, *own in LAUNCHED]


def main():
    mine, counts, wrong = kernels.Kernel.__getitem__, Counter(), []
    for name, (layer, x) in cases().items():
        for _ in range(2):
            launches(layer, x)  # compiled, and found
        found = launches(layer, x)
        kernels.Kernel.__getitem__ = JITFunction.__getitem__
        expected = launches(layer, x)
        kernels.Kernel.__getitem__ = mine
        counts[name] += len(found)
        wrong += [name] * (found != expected or not found)
    print(json.dumps({"launches": counts, "wrong": wrong}))
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
