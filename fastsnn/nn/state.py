"""State of stateful modules, scoped to the module tree that is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Stateful", "detach", "load_states", "reset", "states"]


class Stateful(nn.Module, ABC):
    """A module that keeps state between steps. `state` is a named tuple whose `map(fn)` applies fn to its tensors."""

    state: Any

    @abstractmethod
    def reset(self) -> None:
        """End the sequence: the next call is t = 1."""

    @abstractmethod
    def detach(self) -> None:
        """Cut the state out of the graph."""


def counted(steps: int | Tensor, beside: Tensor) -> int | Tensor:
    """Steps as they are kept: inside a graph of torch.compile in a tensor, as a number would make a graph of its own
    each; else as they are."""
    if isinstance(steps, Tensor) or not torch.compiler.is_compiling():
        return steps
    return torch.full((), steps, device=beside.device)


def _stateful(net: nn.Module) -> list[tuple[str, Stateful]]:
    # all before the first changes: torch.compile does not walk modules that have
    return [(name, module) for name, module in net.named_modules() if isinstance(module, Stateful)]


def reset(net: nn.Module) -> None:
    """End the sequence in every fastsnn layer of `net`, before each new one. Other modules keep their state."""
    for _, module in _stateful(net):
        module.reset()


def detach(net: nn.Module) -> None:
    """Cut the state of every fastsnn layer in `net` out of the graph, for truncated BPTT."""
    for _, module in _stateful(net):
        module.detach()


def states(net: nn.Module) -> dict[str, Any]:
    """A copy of every stateful layer's state, by module name; restore it with `load_states`."""
    return {name: module.state.map(lambda tensor: tensor.detach().clone()) for name, module in _stateful(net)}


def load_states(net: nn.Module, saved: dict[str, Any]) -> None:
    """Put back what `states` returned.

    Raises KeyError, with the names, where `saved` and `net` do not hold the same layers; nothing is changed then.
    """
    modules = dict(_stateful(net))
    if modules.keys() != saved.keys():
        missing, unknown = sorted(modules.keys() - saved.keys()), sorted(saved.keys() - modules.keys())
        raise KeyError(
            f"saved states do not fit this network: missing {missing}, unknown {unknown}; take them with "
            "fastsnn.states(net) from a network of the same structure"
        )
    for name, state in saved.items():
        modules[name].state = state.map(Tensor.clone)
