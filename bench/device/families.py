"""Every kernel family on every backend against the CPU kernels, on the same numbers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._device
from torch import Tensor, nn

import fastsnn
from fastsnn.nn import plain
from fastsnn.types import RULES

from .target import DTYPES, Stage, Target

SPATIAL = (8, 32, 12, 10)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
FLIPPED = 2e-3  # share of neurons that sums in another order may push over a threshold


@dataclass(frozen=True)
class Family:
    """exact: recurrences alone, whose float32 is equal bit for bit. steps: calls, each of `shape`."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    steps: int
    exact: bool = False


def families(target: Target) -> list[Family]:
    found = []
    for rule in RULES:
        for n in (target.size(2**20, 4096), target.size(2**20, 4096) + 3):
            found += [
                Family(f"lif {rule} step {n}", lambda rule=rule: fastsnn.LIF.for_rule(rule), (n,), 3, True),
                Family(
                    f"lif {rule} sequence {n}",
                    lambda rule=rule: fastsnn.LIF.for_rule(rule, step_mode="m"),
                    (5, n),
                    1,
                    True,
                ),
            ]
    mpdr = fastsnn.online.MPDR(mean=0.0, std=1.0, weight=0.01)
    found += [
        Family("lif hard online", lambda: fastsnn.LIF(rule="ottt", v_reset=0.25), (40_013,), 3, True),
        Family("lif dropout", lambda: fastsnn.LIF.for_rule("ottt", dropout=0.0), (40_013,), 3, True),
        Family("mpdr", lambda: fastsnn.LIF.for_rule("sltt", mpdr=mpdr), (40_013,), 2),
        Family("ots", lambda: fastsnn.LIF.for_rule("ottt", threshold="ots"), SPATIAL, 3),
        Family("osr", lambda: fastsnn.OSR2d(32, steps=3), SPATIAL, 3),
        Family("osrlif", lambda: fastsnn.OSRLIF.for_rule("ottt", 32, 3), SPATIAL, 3),
        *[Family(f"empf {v}", lambda v=v: fastsnn.EMPF(3, v, 32), SPATIAL, 3) for v in ("I", "II", "III")],
        Family("standardize", lambda: fastsnn.WSConv2d(32, 24, 3, padding=1), SPATIAL, 1),
        Family("binarize", lambda: fastsnn.BinaryConv2d(32, 24, 3, padding=1), SPATIAL, 1),
        Family("packed linear 1", lambda: packed(fastsnn.BinaryLinear(300, 200)), (1, 300), 1),
        Family("packed linear 64", lambda: packed(fastsnn.BinaryLinear(300, 200)), (64, 300), 1),
        Family("packed conv", lambda: packed(fastsnn.BinaryConv2d(32, 24, 3, padding=1)), SPATIAL, 1),
    ]
    return found


def packed(layer: nn.Module) -> nn.Module:
    return fastsnn.deploy.pack(nn.Sequential(layer).eval())


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Uninitialised memory is NaN, so that an element no kernel wrote shows."""
    owners = ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty"))
    originals = [getattr(owner, name) for owner, name in owners]

    def filled(tensor: Tensor) -> Tensor:
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    for (owner, name), allocate in zip(owners, originals, strict=True):
        setattr(owner, name, lambda *args, _f=allocate, **kwargs: filled(_f(*args, **kwargs)))
    try:
        yield
    finally:
        for (owner, name), allocate in zip(owners, originals, strict=True):
            setattr(owner, name, allocate)


def play(family: Family, backend: str, device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Output, gradients, trace and state of each call, in float64 on the CPU."""
    torch.manual_seed(1)
    net = family.build()
    net = net.to(device, dtype) if any(p.dim() > 1 for p in net.parameters()) else net.to(device)
    net.train(not isinstance(net, nn.Sequential))
    rng = torch.Generator().manual_seed(10)
    found: dict[str, Any] = {}
    with fastsnn.use_backend(backend), poisoned():
        for t in range(family.steps):
            x = (1.5 * torch.randn(family.shape, generator=rng)).to(device, dtype).requires_grad_()
            with torch.set_grad_enabled(net.training):
                out = net(x)
            found |= {f"out {t}": plain(out), f"trace {t}": getattr(out, "trace", None)}
            if plain(out).requires_grad:
                leaves = {"x": x} | dict(net.named_parameters())
                g = torch.randn(out.shape, generator=rng).to(device, plain(out).dtype)
                grads = torch.autograd.grad(plain(out), tuple(leaves.values()), g, allow_unused=True)
                found |= {f"g_{name} {t}": grad for name, grad in zip(leaves, grads, strict=True)}
        found["v"] = getattr(net, "v", None)
    return {name: value.detach().double().cpu() for name, value in found.items() if isinstance(value, Tensor)}


def verdict(family: Family, dtype: torch.dtype, truth: dict[str, Tensor], got: dict[str, Tensor]) -> dict[str, Any]:
    """ok, and the worst difference and the share of values off beyond the tolerance of each part."""
    tolerance, parts, ok = TOLERANCE[dtype], {}, truth.keys() == got.keys()
    for name, want in truth.items():
        have = got.get(name)
        if have is None or have.shape != want.shape:
            parts[name], ok = "missing or of another shape", False
            continue
        exact = family.exact and dtype == torch.float32 and not name.startswith("g_")
        scale = float(want.abs().max().clamp(min=1)) if want.numel() else 1.0
        off = ~((have - want).abs() <= (0.0 if exact else tolerance * scale))
        share = float(off.double().mean()) if off.numel() else 0.0
        allowed = 0.0 if family.exact else FLIPPED
        ok = ok and share <= allowed
        if share:
            parts[name] = {"worst": float((have - want).abs().max()), "share": share}
    return {"ok": ok, "off": parts}


def check(target: Target, index: int, dtype_name: str) -> list[dict[str, Any]]:
    """One family in one dtype, in a worker process: a row a backend."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.utils._device._device_constructors()  # cached by torch at first use: before `poisoned` replaces one
    family, dtype, rows = families(target)[index], DTYPES[dtype_name], []
    truth = play(family, "cpu", "cpu", dtype)
    for backend in target.backends:
        row = {"case": family.name, "backend": backend, "dtype": dtype_name}
        try:
            rows.append(row | verdict(family, dtype, truth, play(family, backend, target.device, dtype)))
        except Exception as error:
            rows.append(row | {"ok": False, "error": f"{type(error).__name__}: {str(error)[:300]}"})
    return rows


def run(stage: Stage) -> None:
    target = stage.target
    jobs = [(index, dtype) for index in range(len(families(target))) for dtype in DTYPES]
    workers = max(1, min(8, (os.cpu_count() or 1) - 1)) if target.is_gpu else 1
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(check, target, *job): job for job in jobs}
        for future in as_completed(futures):
            try:
                rows = future.result()
            except Exception as error:
                index, dtype = futures[future]
                name = families(target)[index].name
                rows = [{"case": name, "dtype": dtype, "ok": False, "error": f"{type(error).__name__}: {error}"[:400]}]
            for row in rows:
                stage.row(**row)
