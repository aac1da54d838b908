"""Kernels far beyond the L2 cache, as a share of a copy of as many bytes measured beside them."""

from __future__ import annotations

from collections.abc import Callable

import torch

import fastsnn
from fastsnn.nn import plain
from fastsnn.rules import RULES

from .. import roofline
from .clock import device_us
from .target import DTYPES, Stage

STATE = {"sltt": 8, "ottt": 16, "ndot": 24}  # bytes of float32 state a neuron, read and written
T = 16


def copy_us(moved: int, device: str) -> float:
    """A copy that reads and writes `moved` bytes in all."""
    source = torch.ones(moved // 8, device=device)
    target = torch.empty_like(source)
    return device_us(lambda: target.copy_(source))


def report(stage: Stage, moved: int, call: Callable[[], object], **about: object) -> None:
    us = device_us(call)
    copied = copy_us(moved, stage.target.device)
    stage.row(us=us, copy_us=copied, share=copied / us, gb_s=moved / us / 1e3, **about)


def steps(stage: Stage, backend: str, rule: str, dtype: torch.dtype, n: int) -> None:
    width = dtype.itemsize
    about = {"case": f"{rule} step", "backend": backend, "dtype": str(dtype)[6:], "n": n}
    with fastsnn.use_backend(backend):
        x = torch.randn(n, device=stage.target.device, dtype=dtype)
        layer = fastsnn.LIF.for_rule(rule).train()
        with torch.no_grad():
            report(stage, (2 * width + STATE[rule]) * n, lambda: layer(x), mode="forward", **about)
        layer.reset()
        if rule != "sltt":
            return  # the backward is the same
        spikes = plain(layer(x.requires_grad_()))
        g = torch.randn_like(spikes)

        def backward() -> object:
            return torch.autograd.grad(spikes, x, g, retain_graph=True)

        report(stage, (2 * width + 4) * n, backward, mode="backward", **about)


def sequence(stage: Stage, backend: str, rule: str, dtype: torch.dtype, n: int) -> None:
    """Through time: x in, s and u out; g, u in, g_x out. Online: u is recomputed from x."""
    width = dtype.itemsize
    about = {"case": f"{rule} sequence T={T}", "backend": backend, "dtype": str(dtype)[6:], "n": n}
    through_time = not RULES[rule].online
    with fastsnn.use_backend(backend):
        x = torch.randn(T, n, device=stage.target.device, dtype=dtype, requires_grad=True)
        layer = fastsnn.LIF.for_rule(rule, step_mode="m").train()

        def forward() -> torch.Tensor:
            layer.reset()
            return plain(layer(x))

        moved = (T * (2 * width + (4 if through_time else 0)) + 4) * n
        report(stage, moved, forward, mode="forward", **about)
        spikes = forward()
        g = torch.randn_like(spikes)

        def backward() -> object:
            return torch.autograd.grad(spikes, x, g, retain_graph=True)

        moved = T * (2 * width + (4 if through_time else width)) * n
        report(stage, moved, backward, mode="backward", **about)


def run(stage: Stage) -> None:
    n = stage.target.size(2**26, 2**12)
    moved = stage.target.size(2**31, 2**12)
    us = copy_us(moved, stage.target.device)
    known = roofline.device_named(torch.cuda.get_device_name()) if stage.target.is_gpu else None
    published = {} if known is None else {"published_gb_s": known.bandwidth / 1e9}
    stage.row(case="copy", us=us, gb_s=moved / us / 1e3, **published)
    for dtype in ("float32", "bfloat16"):
        for backend in stage.target.backends:
            for rule in STATE:
                case = f"{rule} step {backend} {dtype}"
                stage.attempt(case, lambda b=backend, r=rule, d=dtype: steps(stage, b, r, DTYPES[d], n))
            for rule in ("bptt", "sltt"):
                case = f"{rule} sequence {backend} {dtype}"
                stage.attempt(case, lambda b=backend, r=rule, d=dtype: sequence(stage, b, r, DTYPES[d], n // 16))
