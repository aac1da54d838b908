"""Recurrent networks: what a layer fired at the step before is input again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..nn import Stateful, TracedSpikes
from ..nn.state import of_samples
from .registry import register
from .style import Style

__all__ = ["Delay", "Recurrent", "r400", "shd"]


class DelayState(NamedTuple):
    """Spikes of the step before and, under a traced rule, their trace; None at t = 1."""

    spikes: Tensor | None = None
    trace: Tensor | None = None

    def map(self, fn: Callable[[Tensor], Tensor]) -> DelayState:
        return DelayState(*(None if tensor is None else fn(tensor) for tensor in self))


class Delay(Stateful):
    """Passes its input on and keeps it as `last`, until the next call or `fastsnn.reset`.

    keep_graph: whether a gradient goes back to the step before, as rules through time need; online rules cut it.
    """

    def __init__(self, keep_graph: bool = False) -> None:
        super().__init__()
        self.keep_graph, self.state = keep_graph, DelayState()

    @property
    def last(self) -> Tensor | None:
        """The input of the step before, traced as it was; None at t = 1."""
        self._met()
        spikes, trace = self.state
        return spikes if spikes is None or trace is None else TracedSpikes.of(spikes, trace)

    def before(self, x: Tensor) -> Tensor | None:
        """`last`, for a sum with what is computed of x [N, *]. Raises ValueError where it is of other samples: one of
        the two could be broadcast."""
        last = self.last
        if last is not None and last.shape[0] != x.shape[0]:
            raise ValueError(
                f"the step before had {last.shape[0]} samples and this one has {x.shape[0]}: call fastsnn.reset(net) "
                "before a new sequence"
            )
        return last

    def forward(self, x: Tensor) -> Tensor:
        self._runs()
        if isinstance(x, TracedSpikes):
            self.state = DelayState(x.spikes.detach(), x.trace)
        else:
            self.state = DelayState(x if self.keep_graph else x.detach())
        return x

    def reset(self) -> None:
        self._met()
        self.state = DelayState()

    def restarted(self, mask: Tensor) -> DelayState:
        """The state where the samples of mask [N] fired nothing. Raises ValueError where mask does not fit."""
        return self.state.map(lambda kept: kept.masked_fill(of_samples(mask, kept), 0))

    def detach(self) -> None:
        self.state = self.state.map(Tensor.detach)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "state": self.state.map(Tensor.detach)}


class Recurrent(nn.Module):
    """A layer of neurons with all-to-all recurrence: u[t] gets W x[t] + R s[t-1] + b. [N, in] to [N, out] a step."""

    def __init__(self, in_features: int, out_features: int, style: Style) -> None:
        super().__init__()
        self.input = style.linear(in_features, out_features)
        self.recurrent = nn.Linear(out_features, out_features, bias=False)  # nothing comes where nothing fired
        self.fire, self.delay = style.fire(out_features), Delay(keep_graph=not style.online)

    def forward(self, x: Tensor) -> Tensor:
        current, last = self.input(x), self.delay.before(x)
        if last is not None:
            current = current + self.recurrent(last)
        return self.delay(self.fire(current))


@register
def r400(
    rule: str = "ottt",
    norm: str = "sws",
    num_classes: int = 10,
    in_features: int = 784,
    steps: int | None = None,
    hidden: int = 400,
    dropout: float = 0.2,
    **neuron: Any,
) -> nn.Sequential:
    """784-400-10 with a recurrent hidden layer, for Fashion-MNIST (Xiao et al. 2022, appendix D.3): weights from input
    to hidden neurons are standardised. [N, *] a step is flattened."""
    style = Style(rule, norm, steps, {"dropout": dropout, **neuron})
    return nn.Sequential(nn.Flatten(), Recurrent(in_features, hidden, style), nn.Linear(hidden, num_classes))


@register
def shd(
    rule: str = "ottt",
    num_classes: int = 20,
    in_features: int = 700,
    hidden: int = 256,
    layers: int = 1,
    tau: float = 20.0,
    **neuron: Any,
) -> nn.Sequential:
    """Recurrent layers for the Spiking Heidelberg Digits, 700 inputs a step, slow neurons."""
    style = Style(rule, "none", None, {"tau": tau, **neuron})
    widths = [in_features, *[hidden] * layers]
    recurrent = [Recurrent(a, b, style) for a, b in pairwise(widths)]
    return nn.Sequential(nn.Flatten(), *recurrent, nn.Linear(hidden, num_classes))
