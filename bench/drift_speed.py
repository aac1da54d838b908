"""Learning digits one by one against SpikingJelly: `python -m bench.drift_speed` (about a minute on a quiet machine).

OTTT, mode O, batch 1, T = 4, the network of `bench.drift`, the same weights, loss and optimizer (torch's SGD): samples
a second of `fastsnn.online.train_batch` and of SpikingJelly's OTTTSequential with a loop over the steps. What torch
alone takes for the same layers with ReLU in the neurons' place, loss and optimizer included, is the floor of both. One
thread; the three alternate, the ratio is the median of the rounds'. Refuses to time where the weights differ after the
first digit. Writes drift_speed.csv (one row a round) and drift_speed.md into bench/results.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from fastsnn import data, online
from fastsnn.nn import Scale

from .accuracy import Row, write
from .drift import LR, STEPS, WIDTH, network, trainer
from .measure import ParityError, relative_error

ROUNDS, SAMPLES = 15, 100
Learn = Callable[[Tensor, Tensor], None]


class Times(nn.Module):
    """The factor behind a neuron, which OTTTSequential applies to spikes and trace."""

    FACTOR = Scale().factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.FACTOR


def spikingjelly() -> nn.Sequential:
    """`bench.drift`'s network of SpikingJelly's layers."""
    from spikingjelly.activation_based.layer import OTTTSequential, WSLinear
    from spikingjelly.activation_based.neuron import OTTTLIFNode

    neuron = partial(OTTTLIFNode, decay_input=False, v_reset=None)
    hidden = [WSLinear(64, WIDTH), neuron(), Times(), WSLinear(WIDTH, WIDTH), neuron(), Times()]
    return OTTTSequential(nn.Flatten(), *hidden, nn.Linear(WIDTH, 10))


def step_by_step(net: nn.Module, begin: Callable[[], None]) -> Learn:
    """Mode O, written out."""
    optimizer = torch.optim.SGD(net.parameters(), LR)

    def learn(x: Tensor, y: Tensor) -> None:
        begin()
        for _ in range(STEPS):
            optimizer.zero_grad()
            online.loss(net(x), y, STEPS).backward()
            optimizer.step()

    return learn


def contenders() -> tuple[dict[str, Learn], dict[str, nn.Module]]:
    """What learns one digit, and the networks, all with the same weights."""
    from spikingjelly.activation_based.functional import reset_net

    ours, theirs = trainer("ottt"), spikingjelly().train()
    ours.optimizer.param_groups[0]["lr"] = LR
    weights = dict(zip(theirs.state_dict(), ours.net.state_dict().values(), strict=True))
    theirs.load_state_dict(weights)
    floor = nn.Sequential(*(nn.ReLU() if i in (2, 4) else part for i, part in enumerate(network("ottt"))))
    learners = {
        "fastsnn": lambda x, y: ours.train_batch(data.direct(x, STEPS), y),
        "spikingjelly": step_by_step(theirs, lambda: reset_net(theirs)),
        "relu": step_by_step(floor, lambda: None),
    }
    return learners, {"fastsnn": ours.net, "spikingjelly": theirs}


def check(nets: dict[str, nn.Module]) -> None:
    """Raises ParityError where the weights differ."""
    for a, b in zip(nets["fastsnn"].parameters(), nets["spikingjelly"].parameters(), strict=True):
        if not (error := relative_error(a, b)) <= 1e-5:
            raise ParityError(f"the weights differ by {error:.1e} of the largest after one digit; not timed")


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
    for name in nets:
        learners[name](read.train_x[:1], read.train_y[:1])
    check(nets)
    found = []
    for i in range(ROUNDS):
        x, y = read.train_x[i * SAMPLES % 1300 :], read.train_y[i * SAMPLES % 1300 :]
        found.append(
            {"round": i} | {name: round(SAMPLES / seconds(learn, x, y), 1) for name, learn in learners.items()}
        )
    return found


def table(rows: list[Row]) -> str:
    """Medians, and the medians of the ratios."""
    lines = ["| | samples/s | times SpikingJelly's (range over rounds) |", "|---|---|---|"]
    for name, shown in (("fastsnn", "fastsnn"), ("spikingjelly", "SpikingJelly"), ("relu", "ReLU in torch: the floor")):
        ratios = [row[name] / row["spikingjelly"] for row in rows]
        speed = statistics.median(row[name] for row in rows)
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        lines.append(f"| {shown} | {speed:.0f} | {times} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = rounds()
    write("drift_speed", measured, table(measured))
