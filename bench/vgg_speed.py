"""A training step of the OTTT paper's VGG against SpikingJelly: `python -m bench.vgg_speed` (some minutes).

`fastsnn.models.vgg` (standardised weights, 9.27 M parameters) on images of CIFAR's shape, batch 16, T = 6, mode A:
samples a second of `fastsnn.online.train_batch` and of SpikingJelly's OTTTSequential of the same layers with a loop
over the steps, the same weights, loss and optimizer. The dense floor is each convolution once forward, once for its
weight's gradient and (but the first) once for its input's, on the same shapes, T times, and nothing else; another row
adds a copy of the bytes that neurons and weights must move besides (BYTES). The last is a network of torch's layers,
these convolutions and poolings with ReLU in the neurons' place: no state, trace, standardisation or factor.

Each runs as it is and with channels last (`net.to(memory_format=torch.channels_last)`, the images too), in a process
with the C library's own allocator and in one where it keeps what is freed, as `fastsnn train` has it. Two threads; all
of a process alternate, ratios are medians of the rounds'. Refuses to time where the weights differ after a batch in
float64. Writes vgg_speed.csv (one row a round) and vgg_speed.md into bench/results.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsnn import data, models, online
from fastsnn.nn import LIF, WSConv2d, reset

from .accuracy import Row, write
from .launch import ALLOCATORS, root
from .training_speed import Learn, Times, check, same_weights, spikingjelly_learner, spikingjelly_neuron, step_by_step

ROUNDS, BATCH, STEPS, LR = 9, 16, 6, 0.1
SHOWN = {
    "fastsnn": "fastsnn",
    "spikingjelly": "SpikingJelly",
    "dense": "convolutions alone: the dense floor",
    "moved": "convolutions, and a copy of the bytes of neurons and weights",
    "relu": "torch's plain convolutions, poolings and ReLU: no neurons at all",
}
LAYOUTS = {"": torch.contiguous_format, ", channels last": torch.channels_last}
KEPT = {"default": "glibc's own", "warm": "keeps what is freed"}
# a step, float32: a neuron reads x, u, trace and writes s, u, trace, then reads g, u and writes the gradient of x; a
# weight's gradient is read beside W and written (standardisation), then read beside .grad and written
BYTES = {"neuron": 36, "weight": 24}


def spikingjelly(plan: nn.Sequential) -> nn.Sequential:
    """`fastsnn.models.vgg`'s network of SpikingJelly's layers."""
    from spikingjelly.activation_based.layer import OTTTSequential
    from spikingjelly.activation_based.layer import WSConv2d as Theirs

    layers: list[nn.Module] = []
    for part in plan:
        if isinstance(part, WSConv2d):
            layers.append(Theirs(part.in_channels, part.out_channels, 3, padding=1))
        elif isinstance(part, LIF):
            layers += [spikingjelly_neuron(), Times()]
        elif isinstance(part, nn.Sequential):  # the factor is behind the neurons here
            layers.append(part[0])
        elif isinstance(part, nn.Linear):
            layers.append(nn.Linear(part.in_features, part.out_features))
        else:
            layers.append(part)
    return OTTTSequential(*layers)


def relu(plan: nn.Sequential) -> nn.Sequential:
    """Its convolutions without standardisation, poolings and readout, and ReLU for its neurons."""
    layers: list[nn.Module] = []
    for part in plan:
        if isinstance(part, WSConv2d):
            layers.append(nn.Conv2d(part.in_channels, part.out_channels, 3, padding=1))
        elif isinstance(part, nn.Sequential):
            layers.append(part[0])
        else:
            layers.append(nn.ReLU() if isinstance(part, LIF) else part)
    return nn.Sequential(*layers)


def operands(net: nn.Sequential, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input, weight and gradient of the output of each convolution, of its shape and of no particular values."""
    found, handles = [], []

    def see(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(layer, WSConv2d)
        found.append((torch.rand(given[0].shape), layer.weight.detach(), torch.randn(out.shape)))

    for part in net:
        if isinstance(part, WSConv2d):
            handles.append(part.register_forward_hook(see))
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return found


def dense(convolutions: list[tuple[Tensor, Tensor, Tensor]], x: Tensor, y: Tensor) -> None:
    """The floor of one batch."""
    for _ in range(STEPS):
        for i, (given, weight, gradient) in enumerate(convolutions):
            F.conv2d(given, weight, padding=1)
            mask = [i > 0, True, False]
            torch.ops.aten.convolution_backward(
                gradient, given, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
            )


def moved(convolutions: list[tuple[Tensor, Tensor, Tensor]]) -> Learn:
    """The same, then BYTES, half of them read and half written."""
    neurons = sum(gradient.numel() for _, _, gradient in convolutions)
    weights = sum(weight.numel() for _, weight, _ in convolutions)
    read = torch.rand((BYTES["neuron"] * neurons + BYTES["weight"] * weights) // 8)
    written = torch.empty_like(read)

    def learn(x: Tensor, y: Tensor) -> None:
        dense(convolutions, x, y)
        for _ in range(STEPS):
            written.copy_(read)

    return learn


def contenders(x: Tensor, layout: torch.memory_format) -> tuple[dict[str, Learn], nn.Module, nn.Module]:
    """What learns one batch of x's shape and type, and fastsnn's and SpikingJelly's network, with the same weights."""
    x = x.contiguous(memory_format=layout)
    net = models.vgg().to(dtype=x.dtype, memory_format=layout)
    theirs = spikingjelly(net).to(dtype=x.dtype, memory_format=layout).train()
    same_weights(net, theirs)
    convolutions = operands(net, x)
    reset(net)
    ours = online.Trainer(net, torch.optim.SGD(net.parameters(), LR), mode="A")
    plain = relu(models.vgg()).to(memory_format=layout)
    learners: dict[str, Learn] = {
        "fastsnn": lambda x, y: ours.train_batch(data.direct(x, STEPS), y),
        "spikingjelly": spikingjelly_learner(theirs, LR, STEPS, "A"),
        "dense": partial(dense, convolutions),
        "moved": moved(convolutions),
        "relu": step_by_step(plain, LR, STEPS, "A", lambda: None),
    }
    return learners, net, theirs


def seconds(learn: Learn, x: Tensor, y: Tensor) -> float:
    """Of one batch."""
    start = time.perf_counter()
    learn(x, y)
    return time.perf_counter() - start


def rounds() -> Iterator[Row]:
    """Samples a second of each, in turn."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    turns: list[tuple[str, Learn, Tensor]] = []
    for name, layout in LAYOUTS.items():
        exact, ours, theirs = contenders(x.double(), layout)
        for each in ("fastsnn", "spikingjelly"):
            exact[each](x.double(), y)
        check(ours, theirs)
        learners, _, _ = contenders(x, layout)
        images = x.contiguous(memory_format=layout)
        # a copy moves the same bytes in any layout
        turns += [(each + name, learn, images) for each, learn in learners.items() if not (name and each == "moved")]
    for _, learn, images in turns:
        learn(images, y)
    for i in range(ROUNDS):
        yield {"round": i} | {name: round(BATCH / seconds(learn, images, y), 3) for name, learn, images in turns}


def table(rows: list[Row]) -> str:
    """Medians of the samples a second, and of the ratios to SpikingJelly's and of the time to the dense floor's, both
    with torch's own layout in the same process."""
    lines = [
        "| allocator | | samples/s | times SpikingJelly's (range over rounds) | time over the dense floor's |",
        "|---|---|---|---|---|",
    ]
    for allocator, called in KEPT.items():
        own = [row for row in rows if row["allocator"] == allocator]
        for name in [name for name in rows[0] if name not in ("allocator", "round")]:
            each, _, layout = name.partition(",")
            ratios = [row[name] / row["spikingjelly"] for row in own]
            floor = statistics.median(row["dense"] / row[name] for row in own)
            times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
            speed = statistics.median(row[name] for row in own)
            shown = SHOWN[each] + ("," + layout if layout else "")
            lines.append(f"| {called} | {shown} | {speed:.3g} | {times} | {floor:.2f} |")
    return "\n".join(lines) + "\n"


def measured() -> list[Row]:
    """The rounds of a process with each allocator."""
    rows = []
    for allocator, asked in ALLOCATORS.items():
        command = [sys.executable, "-m", __spec__.name, "rounds"]
        done = subprocess.run(
            command, env=os.environ | asked, cwd=root(), stdout=subprocess.PIPE, text=True, check=True
        )
        rows += [{"allocator": allocator} | json.loads(line) for line in done.stdout.splitlines()]
    return rows


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:] == ["rounds"]:
        for row in rounds():
            print(json.dumps(row), flush=True)
    else:
        found = measured()
        write("vgg_speed", found, table(found))
