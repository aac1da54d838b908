"""Learning digits one by one against SpikingJelly: `python -m bench.drift_speed` (about a minute on a quiet machine).

OTTT, mode O, batch 1, T = 4, the network of `bench.drift`, the same weights, loss and optimizer (torch's SGD): samples
a second of `fastsnn.online.train_batch` and of SpikingJelly's OTTTSequential with a loop over the steps, each as it
is and the way that makes it fastest: the update as one graph, the network under torch.compile. What torch alone takes
for the same layers with ReLU in the neurons' place, loss and optimizer included, is the floor of both without graphs.
One thread; they alternate, the ratio is the median of the rounds'. Refuses to time where the weights differ after one
of the first digits. Writes drift_speed.csv (one row a round) and drift_speed.md into bench/results.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor, nn

from fastsnn import data, online

from .accuracy import Row, write
from .drift import LR, STEPS, WIDTH, network, trainer
from .training_speed import (
    Learn,
    Times,
    check,
    same_weights,
    spikingjelly_learner,
    spikingjelly_neuron,
    step_by_step,
    table,
)

ROUNDS, SAMPLES, FIRST = 15, 100, 5
SHOWN = {
    "graph": "fastsnn, `Trainer(graph=True)`",
    "fastsnn": "fastsnn",
    "fastsnn compiled": "fastsnn, `net.compile()`",
    "spikingjelly": "SpikingJelly",
    "spikingjelly compiled": "SpikingJelly, `net.compile()`",
    "relu": "ReLU in torch: the floor of both without graphs",
}


def spikingjelly() -> nn.Sequential:
    """`bench.drift`'s network of SpikingJelly's layers."""
    from spikingjelly.activation_based.layer import OTTTSequential, WSLinear

    hidden = [
        WSLinear(64, WIDTH),
        spikingjelly_neuron(),
        Times(),
        WSLinear(WIDTH, WIDTH),
        spikingjelly_neuron(),
        Times(),
    ]
    return OTTTSequential(nn.Flatten(), *hidden, nn.Linear(WIDTH, 10))


def by_trainer(each: online.Trainer, x: Tensor, y: Tensor) -> None:
    each.train_batch(data.direct(x, STEPS), y)


def contenders() -> tuple[dict[str, Learn], dict[str, nn.Module]]:
    """What learns one digit, and the networks of those that learn alike, with the same weights."""
    trainers = {"fastsnn": trainer("ottt"), "graph": trainer("ottt", graph=True), "fastsnn compiled": trainer("ottt")}
    peers = {"spikingjelly": spikingjelly().train(), "spikingjelly compiled": spikingjelly().train()}
    nets = {name: each.net for name, each in trainers.items()} | peers
    for name, net in nets.items():
        same_weights(nets["fastsnn"], net)
        if "compiled" in name:
            net.compile()
    for each in trainers.values():
        each.optimizer.param_groups[0]["lr"] = LR
    floor = nn.Sequential(*(nn.ReLU() if i in (2, 4) else part for i, part in enumerate(network("ottt"))))
    learners: dict[str, Learn] = {"relu": step_by_step(floor, LR, STEPS, "O", lambda: None)}
    learners |= {name: partial(by_trainer, each) for name, each in trainers.items()}
    learners |= {name: spikingjelly_learner(net, LR, STEPS, "O") for name, net in peers.items()}
    return learners, nets


def seconds(learn: Learn, x: Tensor, y: Tensor) -> float:
    """Of the process's time, for SAMPLES digits one by one."""
    start = time.process_time()
    for i in range(SAMPLES):
        learn(x[i : i + 1], y[i : i + 1])
    return time.process_time() - start


def rounds() -> list[Row]:
    """Samples a second of each, in turn."""
    torch.manual_seed(0)
    read = data.load("digits")
    learners, nets = contenders()
    for i in range(FIRST):  # a graph is captured, and compared with the layers, in the last two
        for name, net in nets.items():
            learners[name](read.train_x[i : i + 1], read.train_y[i : i + 1])
            check(nets["fastsnn"], net)
    found = []
    for i in range(ROUNDS):
        x, y = read.train_x[i * SAMPLES % 1300 :], read.train_y[i * SAMPLES % 1300 :]
        found.append(
            {"round": i} | {name: round(SAMPLES / seconds(learn, x, y), 1) for name, learn in learners.items()}
        )
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = rounds()
    write("drift_speed", measured, table(measured, SHOWN))
