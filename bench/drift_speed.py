"""Learning digits one by one against SpikingJelly: `python -m bench.drift_speed` (about a minute on a quiet machine).

OTTT, mode O, batch 1, T = 4, the network of `bench.drift`, the same weights, loss and optimizer (torch's SGD): samples
a second of `fastsnn.online.train_batch` and of SpikingJelly's OTTTSequential with a loop over the steps. What torch
alone takes for the same layers with ReLU in the neurons' place, loss and optimizer included, is the floor of both. One
thread; the three alternate, the ratio is the median of the rounds'. Refuses to time where the weights differ after the
first digit. Writes drift_speed.csv (one row a round) and drift_speed.md into bench/results.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from fastsnn import data

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

ROUNDS, SAMPLES = 15, 100
SHOWN = {"fastsnn": "fastsnn", "spikingjelly": "SpikingJelly", "relu": "ReLU in torch: the floor"}


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


def contenders() -> tuple[dict[str, Learn], nn.Module, nn.Module]:
    """What learns one digit, and fastsnn's and SpikingJelly's network, with the same weights."""
    ours, theirs = trainer("ottt"), spikingjelly().train()
    ours.optimizer.param_groups[0]["lr"] = LR
    same_weights(ours.net, theirs)
    floor = nn.Sequential(*(nn.ReLU() if i in (2, 4) else part for i, part in enumerate(network("ottt"))))
    learners = {
        "fastsnn": lambda x, y: ours.train_batch(data.direct(x, STEPS), y),
        "spikingjelly": spikingjelly_learner(theirs, LR, STEPS, "O"),
        "relu": step_by_step(floor, LR, STEPS, "O", lambda: None),
    }
    return learners, ours.net, theirs


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
    learners, ours, theirs = contenders()
    for name in ("fastsnn", "spikingjelly"):
        learners[name](read.train_x[:1], read.train_y[:1])
    check(ours, theirs)
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
