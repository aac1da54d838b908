"""What `bench.drift_speed` and `bench.vgg_speed` share: the peer's parts, a training loop written out, the weights'
check and the table of rates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from fastsnn import online
from fastsnn.nn import Scale

from .accuracy import Row
from .measure import ParityError, relative_error

Learn = Callable[[Tensor, Tensor], None]


class Times(nn.Module):
    """The factor behind a neuron, which OTTTSequential applies to spikes and trace."""

    FACTOR = Scale().factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.FACTOR


def spikingjelly_neuron() -> nn.Module:
    """OTTT's neuron as `fastsnn.models` has it."""
    from spikingjelly.activation_based.neuron import OTTTLIFNode

    return OTTTLIFNode(decay_input=False, v_reset=None)


def step_by_step(net: nn.Module, lr: float, steps: int, mode: str, begin: Callable[[], None]) -> Learn:
    """A batch, the same input at each step, with torch's SGD after every step (mode O) or the last (A), written out."""
    optimizer = torch.optim.SGD(net.parameters(), lr)

    def learn(x: Tensor, y: Tensor) -> None:
        begin()
        for t in range(steps):
            if mode == "O" or t == 0:
                optimizer.zero_grad()
            online.loss(net(x), y, steps).backward()
            if mode == "O" or t == steps - 1:
                optimizer.step()

    return learn


def spikingjelly_learner(net: nn.Module, lr: float, steps: int, mode: str) -> Learn:
    """The same, from a state of zero."""
    from spikingjelly.activation_based.functional import reset_net

    return step_by_step(net, lr, steps, mode, partial(reset_net, net))


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """Give `theirs` the values of `ours`."""
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))


def check(ours: nn.Module, theirs: nn.Module) -> None:
    """Raises ParityError where the weights differ."""
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        if not (error := relative_error(a, b)) <= 1e-5:
            raise ParityError(f"the weights differ by {error:.1e} of the largest after one batch; not timed")


def table(rows: list[Row], shown: Mapping[str, str]) -> str:
    """Medians of the samples a second, and of the ratios to the peer's; shown: how each contender is called."""
    lines = ["| | samples/s | times SpikingJelly's (range over rounds) |", "|---|---|---|"]
    for name, called in shown.items():
        ratios = [row[name] / row["spikingjelly"] for row in rows]
        speed = statistics.median(row[name] for row in rows)
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})"
        lines.append(f"| {called} | {speed:.3g} | {times} |")
    return "\n".join(lines) + "\n"
