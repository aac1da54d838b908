"""Small layers, where launches are the cost: the host's time a call, the device's, and a step in a captured graph."""

from __future__ import annotations

import torch

import fastsnn
from fastsnn.nn import plain

from .clock import device_us, graph_us, host_us, launches
from .target import Stage

STEPS = 16


def step_rows(stage: Stage, backend: str, n: int) -> None:
    device = stage.target.device
    row: dict[str, object] = {"case": "ottt step", "backend": backend, "n": n}
    with fastsnn.use_backend(backend):
        x, g = torch.randn(n, device=device, requires_grad=True), torch.randn(n, device=device)
        layer = fastsnn.LIF.for_rule("ottt").train()

        def step() -> object:
            return torch.autograd.grad(plain(layer(x)), x, g)

        with torch.no_grad():
            row["forward_host_us"] = host_us(lambda: layer(x))
        layer.reset()
        row |= {"host_us": host_us(step), "device_us": device_us(step)}
        if stage.target.is_gpu:
            layer.reset()
            row["launches"] = launches(step)
            try:
                row["graph_us"] = graph_us(lambda: [step() for _ in range(STEPS)], STEPS)
            except RuntimeError as error:
                row["graph_error"] = str(error)[:300]
    stage.row(**row)


def peer_row(stage: Stage, n: int) -> None:
    from spikingjelly.activation_based.neuron import OTTTLIFNode

    device = stage.target.device
    x, g = torch.randn(n, device=device, requires_grad=True), torch.randn(n, device=device)
    layer = OTTTLIFNode().to(device).train()

    def step() -> object:
        return torch.autograd.grad(layer(x)[0], x, g)

    row: dict[str, object] = {"case": "ottt step", "backend": "spikingjelly", "n": n}
    row |= {"host_us": host_us(step), "device_us": device_us(step)}
    if stage.target.is_gpu:
        row["launches"] = launches(step)
    stage.row(**row)


def run(stage: Stage) -> None:
    for n in (2**13, 2**15, 2**18) if stage.target.is_gpu else (2**8,):
        for backend in (*stage.target.backends, "reference"):
            stage.attempt(f"ottt step {backend} {n}", lambda b=backend, n=n: step_rows(stage, b, n))
        stage.attempt(f"ottt step spikingjelly {n}", lambda n=n: peer_row(stage, n))
