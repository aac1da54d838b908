"""Layers and training batches: against torch's own, their waits for the device, and whether a graph captures them."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import fastsnn
from fastsnn.nn import plain

from .clock import host_us, in_turn, launches, synchronize
from .target import Stage

IMAGE = (64, 128, 32, 32)


def trained(layer: Callable[[torch.Tensor], Any], x: torch.Tensor, parameters: list[nn.Parameter]) -> Callable[[], Any]:
    with torch.no_grad():
        g = torch.randn_like(plain(layer(x)))

    def call() -> Any:
        return torch.autograd.grad(plain(layer(x)), (x, *parameters), g)

    return call


def bn_lif(channels: int) -> nn.Module:
    from spikingjelly.activation_based.neuron import SLTTLIFNode
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    surrogate = PiecewiseQuadratic(alpha=1.0)
    node = SLTTLIFNode(decay_input=False, v_reset=None, surrogate_function=surrogate)
    return nn.Sequential(nn.BatchNorm2d(channels), node)


def norms(stage: Stage) -> None:
    """A training step, forward and backward."""
    calls = normalised_layers(stage)
    times = in_turn(calls, 10, 5)
    for (backend, name), call in calls.items():
        row: dict[str, Any] = {"case": name, "backend": backend, "us": times[backend, name]}
        row["host_us"] = host_us(call, 20, 3)
        row |= {"launches": launches(call), "waits": waits(call)} if stage.target.is_gpu else {}
        stage.row(**row)


def normalised_layers(stage: Stage) -> dict[tuple[str, str], Callable[[], Any]]:
    """A training step of each norm and neuron on each backend, each with an input of its own."""
    shape = IMAGE if stage.target.is_gpu else (2, 8, 4, 4)
    channels, steps = shape[1], 1 << 30
    makers: dict[str, Callable[[], nn.Module]] = {
        "batchnorm": lambda: nn.BatchNorm2d(channels),
        "osr": lambda: fastsnn.OSR2d(channels, steps),
        "osr max_ratio=None": lambda: fastsnn.OSR2d(channels, steps, max_ratio=None),
        "batchnorm+spikingjelly": lambda: bn_lif(channels),
        "osrlif": lambda: fastsnn.OSRLIF.for_rule("sltt", channels, steps),
        "osrlif max_ratio=None": lambda: fastsnn.OSRLIF.for_rule("sltt", channels, steps, max_ratio=None),
        "ots": lambda: fastsnn.LIF.for_rule("sltt", threshold="ots"),
        "mpdr": lambda: fastsnn.LIF.for_rule("sltt", mpdr=fastsnn.online.MPDR.paper(propagate=True)),
        "empf I": lambda: fastsnn.EMPF(1, "I", channels),
    }
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    for backend in stage.target.backends:
        for name, make in makers.items():
            x = torch.randn(shape, device=stage.target.device, requires_grad=True)
            built = stage.attempt(f"{name} {backend}", lambda make=make, x=x, b=backend: normalised(make(), x, b))
            if built is not None:
                calls[backend, name] = built
    return calls


def normalised(layer: nn.Module, x: torch.Tensor, backend: str) -> Callable[[], Any]:
    layer = layer.to(x.device).train()

    def forward(x: torch.Tensor) -> Any:
        with fastsnn.use_backend(backend):
            if isinstance(layer, fastsnn.EMPF):
                fastsnn.reset(layer)
            return layer(x)

    return trained(forward, x, list(layer.parameters()))


def waits(call: Callable[[], Any]) -> int:
    """How often one call waits for the device, as far as torch sees it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in seen)


def products(stage: Stage) -> None:
    """Packed binary products against torch's with the same weights, in float32, TF32 and float16."""
    device, wide = stage.target.device, stage.target.size(4096, 64)
    channels = stage.target.size(256, 16)
    makers = {
        "linear": (lambda: fastsnn.BinaryLinear(wide, wide), [(b, wide) for b in (1, 4, 8, 9, 16, 64)]),
        "conv": (
            lambda: fastsnn.BinaryConv2d(channels, channels, 3, padding=1),
            [(b, channels, 16, 16) for b in (1, 32)],
        ),
    }
    for kind, (make, shapes) in makers.items():
        layer = make().to(device)
        packed = fastsnn.deploy.pack(nn.Sequential(layer).eval())
        weight, bias = layer.binary_weight().detach(), layer.bias
        product = nn.functional.linear if kind == "linear" else lambda *a: nn.functional.conv2d(*a, padding=1)
        for shape in shapes:
            for dtype in (torch.float32, torch.float16):
                x = torch.randn(shape, device=device, dtype=dtype)
                w, b = weight.to(dtype), None if bias is None else bias.detach().to(dtype)
                calls: dict[str, Callable[[], Any]] = {}
                for backend in stage.target.backends:

                    def ours(x: torch.Tensor = x, backend: str = backend, packed: nn.Module = packed) -> Any:
                        with fastsnn.use_backend(backend), torch.no_grad():
                            return packed(x)

                    calls[backend] = ours
                calls["torch"] = lambda x=x, w=w, b=b, product=product: product(x, w, b)
                if dtype == torch.float32 and stage.target.is_gpu:
                    calls["torch tf32"] = tf32(calls["torch"])
                for provider, us in in_turn(calls, 20, 5).items():
                    stage.row(case=f"packed {kind} {shape[0]}", provider=provider, dtype=str(dtype)[6:], us=us)


def tf32(call: Callable[[], Any]) -> Callable[[], Any]:
    def wrapped() -> Any:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            return call()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return wrapped


def vgg(neuron: Callable[[], nn.Module], wrap: Callable[..., nn.Module] = nn.Sequential) -> nn.Module:
    """A small VGG of 64-128-256 channels on 32x32."""

    def block(*layers: nn.Module) -> nn.Module:
        return wrap(*layers)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        block(neuron(), nn.Conv2d(64, 128, 3, padding=1)),
        block(neuron(), nn.AvgPool2d(2), nn.Conv2d(128, 256, 3, padding=1)),
        block(neuron(), nn.AvgPool2d(2), nn.Conv2d(256, 256, 3, padding=1)),
        block(neuron(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10)),
    )


def train(trainer: fastsnn.online.Trainer, backend: str, x: torch.Tensor, y: torch.Tensor) -> Any:
    with fastsnn.use_backend(backend):
        return trainer.train_batch(x, y)


def batches(stage: Stage) -> None:
    """A training batch of a small VGG, OTTT, T = 6, against SpikingJelly's OTTTSequential of the same layers."""
    device, steps = stage.target.device, stage.target.size(6, 2)
    edge = stage.target.size(32, 8)
    for batch in (1, 8, 128) if stage.target.is_gpu else (1,):
        x = torch.randn(steps, batch, 3, edge, edge, device=device)
        y = torch.randint(10, (batch,), device=device)
        calls = stage.attempt("spikingjelly batch", lambda x=x, y=y: spikingjelly_batches(x, y)) or {}
        for backend in stage.target.backends:
            for mode, graph in itertools.product(("A", "O"), (False, True)):
                net = vgg(lambda: fastsnn.LIF.for_rule("ottt")).to(device).train()
                optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
                trainer = fastsnn.online.Trainer(net, optimizer, graph=graph, mode=mode)
                calls[f"{backend} {mode}{' graph' if graph else ''}"] = partial(train, trainer, backend, x, y)
        for provider, ms in walls(calls).items():
            stage.row(case=f"batch of {batch}, VGG, T={steps}", provider=provider, ms=ms)


def spikingjelly_batches(x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Any]]:
    from spikingjelly.activation_based import functional, layer, neuron

    calls = {}
    for mode in ("A", "O"):
        net = vgg(neuron.OTTTLIFNode, layer.OTTTSequential).to(x.device).train()
        optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)

        def train(net: nn.Module = net, optimizer: Any = optimizer, mode: str = mode) -> None:
            optimizer.zero_grad()
            for x_t in x:
                fastsnn.online.loss(net(x_t), y, len(x)).backward()
                if mode == "O":
                    optimizer.step()
                    optimizer.zero_grad()
            if mode == "A":
                optimizer.step()
            functional.reset_net(net)

        calls[f"spikingjelly {mode}"] = train
    return calls


def walls(calls: dict[str, Callable[[], Any]], repeats: int = 7) -> dict[str, float]:
    """Median wall milliseconds of each, until the device has done it, in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(5):  # a graph is captured in the fourth
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            synchronize()
            start = time.perf_counter()
            call()
            synchronize()
            samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: sorted(found)[len(found) // 2] for name, found in samples.items()}


def run(stage: Stage) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    stage.attempt("batches", lambda: batches(stage))
    stage.attempt("norms", lambda: norms(stage))
    stage.attempt("products", lambda: products(stage))
