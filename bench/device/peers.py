"""SpikingJelly beside us, in turn on one clock: OTTT and SLTT steps, LIF sequences. Forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import fastsnn
from fastsnn.nn import plain
from fastsnn.rules import RULES

from .clock import in_turn
from .target import DTYPES, Stage


def ours(backend: str, rule: str, x: torch.Tensor, g: torch.Tensor) -> Callable[[], object]:
    sequence = not RULES[rule].online
    layer = fastsnn.LIF.for_rule(rule, step_mode="m" if sequence else "s").train()

    def call() -> object:
        with fastsnn.use_backend(backend):
            if sequence:
                layer.reset()
            return torch.autograd.grad(plain(layer(x)), x, g)

    return call


def theirs(rule: str, x: torch.Tensor, g: torch.Tensor) -> Callable[[], object]:
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    soft: dict[str, Any] = {"decay_input": False, "v_reset": None}
    triangle = PiecewiseQuadratic(alpha=1.0)
    make = {
        "ottt": neuron.OTTTLIFNode,
        "sltt": lambda: neuron.SLTTLIFNode(**soft, surrogate_function=triangle),
        "bptt": lambda: neuron.LIFNode(step_mode="m"),
    }
    layer = make[rule]().to(x.device).train()

    def call() -> object:
        if not RULES[rule].online:
            layer.reset()
        out = layer(x)
        return torch.autograd.grad(out[0] if isinstance(out, (list, tuple)) else out, x, g)

    return call


def compare(stage: Stage, case: str, rule: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, device=stage.target.device, dtype=dtype, requires_grad=True)
    g = torch.randn_like(x)
    calls = {backend: ours(backend, rule, x, g) for backend in stage.target.backends}
    peer = stage.attempt(f"{case} {str(dtype)[6:]} spikingjelly", lambda: tried(theirs(rule, x, g)))
    calls |= {"spikingjelly": peer} if peer else {}
    found = in_turn(calls, 5, 7)
    for provider, us in found.items():
        ahead = {"times_faster": found["spikingjelly"] / us} if peer and provider != "spikingjelly" else {}
        stage.row(case=case, provider=provider, dtype=str(dtype)[6:], us=us, **ahead)


def tried(call: Callable[[], object]) -> Callable[[], object]:
    """call, once it has run. Raises what it raises."""
    call()
    return call


def implementation(device: str) -> str:
    """Which of its kernels SpikingJelly says that it runs."""
    from spikingjelly.activation_based import functional

    return str(functional.neuron_implementation("lif", torch.device(device)))


def run(stage: Stage) -> None:
    told = stage.attempt("implementation", lambda: implementation(stage.target.device))
    stage.row(case="implementation", spikingjelly=told)
    n, features = stage.target.size(2**24, 2**8), stage.target.size(65536, 64)
    for rule in ("ottt", "sltt"):
        for dtype in ("float32", "bfloat16"):
            case = f"{rule} step {n}"
            stage.attempt(case, lambda c=case, r=rule, d=dtype: compare(stage, c, r, (n,), DTYPES[d]))
    for steps in (4, 16, 32):
        for dtype in ("float16", "float32"):
            case, shape = f"lif T={steps} N=64 C={features}", (steps, 64, features)
            stage.attempt(case, lambda c=case, s=shape, d=dtype: compare(stage, c, "bptt", s, DTYPES[d]))
