"""A training step of the OTTT paper's VGG against SpikingJelly: `python -m bench.vgg_speed` (some minutes).

`fastsnn.models.vgg` (standardised weights, 9.27 M parameters) on images of CIFAR's shape, batch 16, T = 6, mode A:
samples a second of `fastsnn.online.train_batch` and of SpikingJelly's OTTTSequential of the same layers with a loop
over the steps, the same weights, loss and optimizer. The dense floor is each convolution once forward, once for its
weight's gradient and (but the first) once for its input's, on the same shapes, T times, and nothing else. The next row
adds what any implementation of the rule on torch has besides, done in the cheapest way: a copy of the bytes that
neurons and weights must move (BYTES), the poolings of spikes, traces and gradients, and once a batch the calls
themselves: the same network of one channel, batch 1 of 3x8x8, whose arithmetic is next to nothing. The last is a
network of torch's layers, these convolutions and poolings with ReLU in the neurons' place: no state, trace,
standardisation or factor.

Each runs as it is and with channels last (`net.to(memory_format=torch.channels_last)`, the images too), all in turn,
in a process whose allocator keeps what is freed; ratios are medians of the rounds'. Then the first three with smaller
batches, and fastsnn and SpikingJelly alone, in processes that alternate, with the C library's own allocator and with
that one. Two threads. Refuses to time where the weights differ after a batch in float64. Writes vgg_speed.csv and
vgg_small.csv (one row a round), vgg_alone.csv (one row a process) and a table of each into bench/results.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastsnn import data, models, online
from fastsnn.models.style import Style
from fastsnn.models.vgg import OTTT, pooled
from fastsnn.nn import LIF, WSConv2d, plain, reset

from .accuracy import Row, write
from .launch import ALLOCATORS, root
from .training_speed import Learn, Times, check, same_weights, spikingjelly_learner, spikingjelly_neuron, step_by_step

ROUNDS, BATCH, STEPS, LR = 9, 16, 6, 0.1
SMALL = (1, 4)  # batches
PROCESSES, BATCHES = 5, 8  # alone
SHOWN = {
    "fastsnn": "fastsnn",
    "spikingjelly": "SpikingJelly",
    "dense": "convolutions alone: the dense floor",
    "least": "convolutions, poolings, a copy of the bytes of neurons and weights, the calls",
    "relu": "torch's plain convolutions, poolings and ReLU: no neurons at all",
}
LAYOUTS = {"": torch.contiguous_format, ", channels last": torch.channels_last}
ALONE = ("fastsnn", "spikingjelly")
OF_SMALL = (*ALONE, "dense")
# float32. Each step, a neuron: x, u, trace read and s, u, trace written, then g, u read and the gradient of x written;
# a weight: its gradient read beside the sum of those before, and written. Each batch, a weight: W read and W_hat
# written; its gradient and W read, and a gradient written; both read, and W written
BYTES = {"neuron": 36, "weight": 12, "weight of a batch": 32}


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


def calls(net: nn.Sequential, x: Tensor, kind: type[nn.Module]) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """Layer, input and output of each call of such a layer, of their shapes and of no particular values."""
    found: list[tuple[nn.Module, Tensor, Tensor]] = []

    def see(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        alike = (torch.empty_like(plain(tensor)) for tensor in (given[0], out))
        found.append((layer, *(tensor.uniform_() for tensor in alike)))

    handles = [part.register_forward_hook(see) for part in net if isinstance(part, kind)]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    reset(net)
    return found


def operands(net: nn.Sequential, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Input, weight and gradient of the output of each convolution."""
    return [(given, layer.weight.detach(), out) for layer, given, out in calls(net, x, WSConv2d)]


def dense(convolutions: list[tuple[Tensor, Tensor, Tensor]], x: Tensor, y: Tensor) -> None:
    """The floor of one batch."""
    for _ in range(STEPS):
        for i, (given, weight, gradient) in enumerate(convolutions):
            F.conv2d(given, weight, padding=1)
            mask = [i > 0, True, False]
            torch.ops.aten.convolution_backward(
                gradient, given, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, mask
            )


def least(net: nn.Sequential, x: Tensor) -> Learn:
    """The same, BYTES (half of them read and half written), poolings, and a batch of a network of one channel."""
    convolutions, poolings = operands(net, x), [(given, out) for _, given, out in calls(net, x, nn.AvgPool2d)]
    neurons = sum(gradient.numel() for _, _, gradient in convolutions)
    weights = sum(weight.numel() for _, weight, _ in convolutions)
    moved = BYTES["neuron"] * neurons + (BYTES["weight"] + BYTES["weight of a batch"] / STEPS) * weights
    read = torch.rand(int(moved / 8))
    written = torch.empty_like(read)
    narrow = narrow_vgg().to(memory_format=torch.channels_last if x.stride(1) == 1 else torch.contiguous_format)
    calls_alone = learner(narrow)

    def learn(x: Tensor, y: Tensor) -> None:
        dense(convolutions, x, y)
        for _ in range(STEPS):
            written.copy_(read)
            for given, gradient in poolings:
                F.avg_pool2d(given, 2)  # spikes
                F.avg_pool2d(given, 2)  # their trace
                torch.ops.aten.avg_pool2d_backward(gradient, given, [2, 2], [2, 2], [0, 0], False, True, None)
        calls_alone(x[:1, :, :8, :8], y[:1])

    return learn


def narrow_vgg() -> nn.Sequential:
    """`fastsnn.models.vgg` of one channel."""
    plan = tuple(entry if isinstance(entry, str) else 1 for entry in OTTT)
    return pooled(plan, Style("ottt", "sws", None, {}), 3, 10)


def learner(net: nn.Module) -> Learn:
    """fastsnn's."""
    trainer = online.Trainer(net, torch.optim.SGD(net.parameters(), LR), mode="A")
    return lambda x, y: trainer.train_batch(data.direct(x, STEPS), y)


def contenders(x: Tensor, layout: torch.memory_format) -> tuple[dict[str, Learn], nn.Module, nn.Module]:
    """What learns one batch of x's shape and type, and fastsnn's and SpikingJelly's network, with the same weights."""
    x = x.contiguous(memory_format=layout)
    net = models.vgg().to(dtype=x.dtype, memory_format=layout)
    theirs = spikingjelly(net).to(dtype=x.dtype, memory_format=layout).train()
    same_weights(net, theirs)
    without_neurons = relu(models.vgg()).to(memory_format=layout)
    learners = {
        "fastsnn": learner(net),
        "spikingjelly": spikingjelly_learner(theirs, LR, STEPS, "A"),
        "dense": partial(dense, operands(net, x)),
        "least": least(net, x),
        "relu": step_by_step(without_neurons, LR, STEPS, "A", lambda: None),
    }
    return learners, net, theirs


def seconds(learn: Learn, x: Tensor, y: Tensor) -> float:
    """Of one batch."""
    start = time.perf_counter()
    learn(x, y)
    return time.perf_counter() - start


def rounds(batch: int, shown: Collection[str]) -> Iterator[Row]:
    """Samples a second of each that is shown, in turn."""
    torch.manual_seed(0)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    turns: list[tuple[str, Learn, Tensor]] = []
    for name, layout in LAYOUTS.items():
        exact, ours, theirs = contenders(x.double(), layout)
        for each in ("fastsnn", "spikingjelly"):
            exact[each](x.double(), y)
        check(ours, theirs)
        learners, _, _ = contenders(x, layout)
        images = x.contiguous(memory_format=layout)
        turns += [(each + name, learn, images) for each, learn in learners.items() if each in shown]
    for _, learn, images in turns:
        learn(images, y)
    for i in range(ROUNDS):
        yield {"round": i} | {name: round(batch / seconds(learn, images, y), 3) for name, learn, images in turns}


def alone(name: str) -> float:
    """Samples a second of one of ALONE, the median of BATCHES."""
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    net = models.vgg()
    learn = learner(net) if name == "fastsnn" else spikingjelly_learner(spikingjelly(net).train(), LR, STEPS, "A")
    learn(x, y)
    return BATCH / statistics.median(seconds(learn, x, y) for _ in range(BATCHES))


def table(rows: list[Row]) -> str:
    """Medians of the samples a second, of the ratios to SpikingJelly's with torch's own layout, and of the time to the
    dense floor's with torch's own layout and with its own."""
    lines = [
        "| | samples/s | times SpikingJelly's (range over rounds) | over the dense floor's | over its layout's |",
        "|---|---|---|---|---|",
    ]
    for name in [name for name in rows[0] if name != "round"]:
        each, _, layout = name.partition(",")
        ratios = [row[name] / row["spikingjelly"] for row in rows]
        floor, own = (
            statistics.median(row["dense" + of] / row[name] for row in rows) for of in ("", name[len(each) :])
        )
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        shown = SHOWN[each] + ("," + layout if layout else "")
        speed = statistics.median(row[name] for row in rows)
        lines.append(f"| {shown} | {speed:.3g} | {times} | {floor:.2f} | {own:.2f} |")
    return "\n".join(lines) + "\n"


def table_small(rows: list[Row]) -> str:
    """fastsnn's medians for each batch, and its ratios to SpikingJelly and the dense floor of the same layout."""
    lines = ["| batch | samples/s | times SpikingJelly's | time over the dense floor's |", "|---|---|---|---|"]
    for batch in SMALL:
        of_batch = [row for row in rows if row["batch"] == batch]
        for layout in LAYOUTS:
            ours, theirs, floor = ([row[name + layout] for row in of_batch] for name in OF_SMALL)
            times = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            over = statistics.median(b / a for a, b in zip(ours, floor, strict=True))
            lines.append(f"| {batch}{layout} | {statistics.median(ours):.3g} | {times:.2f} | {over:.2f} |")
    return "\n".join(lines) + "\n"


def table_alone(rows: list[Row]) -> str:
    """Median and range of the processes' samples a second."""
    lines = ["| samples/s, alone in a process | glibc's own allocator | keeps what is freed |", "|---|---|---|"]
    for name in ALONE:
        cells = []
        for allocator in ("default", "warm"):
            found = [row[name] for row in rows if row["allocator"] == allocator]
            cells.append(f"{statistics.median(found):.3g} ({min(found):.3g} - {max(found):.3g})")
        lines.append(f"| {SHOWN[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def process(allocator: str, *words: str) -> list[Any]:
    """What this script says of them, a line each, in a process of its own."""
    environment = os.environ | ALLOCATORS[allocator]
    command = [sys.executable, "-m", __spec__.name, *words]
    return [json.loads(line) for line in subprocess.check_output(command, env=environment, cwd=root()).splitlines()]


def measured() -> dict[str, tuple[list[Row], str]]:
    """By their name: the rounds, those of small batches and the processes of each alone, and their tables."""
    found = process("warm", "rounds", str(BATCH), *SHOWN)
    small = [{"batch": batch} | row for batch in SMALL for row in process("warm", "rounds", str(batch), *OF_SMALL)]
    apart = [
        {"allocator": allocator, "process": i} | {name: process(allocator, name)[0] for name in ALONE}
        for i in range(PROCESSES)
        for allocator in ALLOCATORS
    ]
    return {
        "vgg_speed": (found, table(found)),
        "vgg_small": (small, table_small(small)),
        "vgg_alone": (apart, table_alone(apart)),
    }


if __name__ == "__main__":
    torch.set_num_threads(2)
    match sys.argv[1:]:
        case []:
            for name, (rows, shown) in measured().items():
                write(name, rows, shown)
        case ["rounds", batch, *shown]:
            for line in rounds(int(batch), shown):
                print(json.dumps(line), flush=True)
        case [name]:
            print(json.dumps(round(alone(name), 3)))
