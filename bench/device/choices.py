"""Choices made without a device, each beside its alternative on one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

import fastsnn
from fastsnn import backends
from fastsnn.nn import plain

from .clock import in_turn
from .target import DTYPES, Stage

T = 16


def step(backend: str, rule: str, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Forward and backward of a step."""
    leaf = x.detach().requires_grad_()
    with fastsnn.use_backend(backend):
        layer = fastsnn.LIF.for_rule(rule).train()
        spikes = plain(fastsnn.LIF.for_rule(rule).train()(leaf))
    g = torch.randn_like(spikes)

    def forward() -> object:
        with fastsnn.use_backend(backend), torch.no_grad():
            return layer(x)

    return {"forward": forward, "backward": lambda: torch.autograd.grad(spikes, leaf, g, retain_graph=True)}


def sequence(backend: str, x: torch.Tensor) -> dict[str, Callable[[], object]]:
    """A sequence through time; u is saved beside x, or the forward stores no u at all (what recomputing could save)."""
    kernels = backends.REGISTRY[backend].KERNELS["lif"]
    params = fastsnn.LIF(step_mode="m")._params
    state = fastsnn.ops.types.EMPTY
    return {
        "with u": lambda: kernels.forward(params, x, state, True, False, state, True),
        "without u": lambda: kernels.forward(params, x, state, True, False, state, False),
    }


def unaligned(n: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """One element off: the kernels take one element an access."""
    return torch.randn(n + 1, device=device, dtype=dtype)[1:]


@contextmanager
def launched_with(**changes: Any) -> Iterator[None]:
    """Triton's launch settings replaced: WARPS, and what CROWDED and OPTIONS hold."""
    from fastsnn._triton import launch

    before = {name: getattr(launch, name) for name in changes}
    for name, value in changes.items():
        setattr(launch, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(launch, name, value)


def triton_settings() -> dict[str, dict[str, Any]]:
    from fastsnn._triton import launch

    def warps(count: int, vectors: int, capped: bool) -> dict[str, Any]:
        options = launch.OPTIONS | {"num_warps": count}

        def block_of(n: int, x: torch.Tensor, of_state: bool = False) -> int:
            return vectors * count * 32 * 16 // max(x.element_size(), 4 if of_state else 1)

        return {"OPTIONS": options, "CROWDED": options | ({"maxnreg": 64} if capped else {}), "block_of": block_of}

    return {
        "as it is": {},
        "4 warps, registers free": warps(4, 1, False),
        "8 warps": warps(8, 1, True),
        "4 warps, 2 vectors": warps(4, 2, True),
        "4 warps, 2 vectors, registers free": warps(4, 2, False),
        "8 warps, 2 vectors, registers free": warps(8, 2, False),
        "4 warps, 4 vectors, registers free": warps(4, 4, False),
    }


@contextmanager
def unpaired() -> Iterator[None]:
    """Triton's kernels with plain accesses of half types, compiled anew."""
    from fastsnn._triton import lif

    kernels = (lif.lif_forward, lif.lif_backward_online, lif.lif_backward_bptt)
    before = [kernel.src for kernel in kernels]
    try:
        for kernel in kernels:
            line = next(line for line in kernel.src.splitlines() if line.strip().startswith("PAIRED: tl.constexpr ="))
            start = line[: len(line) - len(line.lstrip())]
            kernel._unsafe_update_src(kernel.src.replace(line, f"{start}PAIRED: tl.constexpr = False"))
            kernel.device_caches.clear()
            kernel.compiled.clear()
        yield
    finally:
        for kernel, source in zip(kernels, before, strict=True):
            kernel._unsafe_update_src(source)
            kernel.device_caches.clear()
            kernel.compiled.clear()


def rows(stage: Stage, case: str, calls: dict[str, Callable[[], object]], **about: Any) -> None:
    for variant, us in in_turn(calls, 10, 5).items():
        stage.row(case=case, variant=variant, us=us, **about)


def accesses(stage: Stage, n: int) -> None:
    device = stage.target.device
    for backend in stage.target.backends:
        for dtype in ("float32", "bfloat16"):
            whole = step(backend, "ottt", torch.randn(n, device=device, dtype=DTYPES[dtype]))
            single = step(backend, "ottt", unaligned(n, DTYPES[dtype], device))
            calls = {"16 bytes": whole["forward"], "one element": single["forward"]}
            rows(stage, "access, ottt forward", calls, backend=backend, dtype=dtype, n=n)


def recomputation(stage: Stage, n: int) -> None:
    for backend in stage.target.backends:
        for dtype in ("float32", "bfloat16"):
            x = torch.randn(T, n // T, device=stage.target.device, dtype=DTYPES[dtype])
            rows(stage, f"bptt sequence T={T} forward", sequence(backend, x), backend=backend, dtype=dtype, n=n)


def settings(stage: Stage, n: int) -> None:
    """One variant after another, the first one again at the end: the clock's drift shows."""
    device = stage.target.device
    named = triton_settings()
    for variant, changes in [*named.items(), ("as it is, again", {})]:
        for dtype in ("float32", "bfloat16"):
            x = torch.randn(n, device=device, dtype=DTYPES[dtype])

            def measure(changes: Any = changes, variant: str = variant, dtype: str = dtype, x: Any = x) -> None:
                with launched_with(**changes):
                    for rule in ("sltt", "ottt", "ndot"):
                        calls = step("triton", rule, x)
                        found = in_turn(calls, 10, 5)
                        for mode, us in found.items():
                            stage.row(case=f"triton {rule} {mode}", variant=variant, dtype=dtype, n=n, us=us)

            stage.attempt(f"triton {variant} {dtype}", measure)


def pairs(stage: Stage, n: int) -> None:
    device = stage.target.device

    def measure(variant: str) -> None:
        for size in (n, n + 3):
            x = torch.randn(size, device=device, dtype=torch.bfloat16)
            for rule in ("sltt", "ottt", "ndot"):
                for mode, us in in_turn(step("triton", rule, x), 10, 5).items():
                    stage.row(case=f"triton {rule} {mode}", variant=variant, dtype="bfloat16", n=size, us=us)
            rows_ = torch.randn(T, size // T, device=device, dtype=torch.bfloat16)
            for mode, us in in_turn(sequence("triton", rows_), 5, 5).items():
                stage.row(case=f"triton bptt sequence {mode}", variant=variant, dtype="bfloat16", n=size, us=us)

    stage.attempt("paired", lambda: measure("halves in pairs"))
    with unpaired():
        stage.attempt("unpaired", lambda: measure("plain halves"))
    stage.attempt("paired again", lambda: measure("halves in pairs, again"))


def run(stage: Stage) -> None:
    n = stage.target.size(2**26, 2**10)
    stage.attempt("accesses", lambda: accesses(stage, n))
    stage.attempt("recomputation", lambda: recomputation(stage, n))
    if stage.target.is_gpu:
        stage.attempt("pairs", lambda: pairs(stage, n))
        stage.attempt("settings", lambda: settings(stage, n))
