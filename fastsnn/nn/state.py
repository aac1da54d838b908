"""State of stateful modules, scoped to the module tree that is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from .stateful import Stateful

__all__ = ["detach", "load_states", "reset", "states"]


def _neurons(net: nn.Module) -> Iterator[tuple[str, Stateful]]:
    return ((name, module) for name, module in net.named_modules() if isinstance(module, Stateful))


def reset(net: nn.Module) -> None:
    """Forget the state of every fastsnn neuron in `net`, before each new sequence. Other modules keep theirs."""
    for _, neuron in _neurons(net):
        neuron.reset()


def detach(net: nn.Module) -> None:
    """Cut the state of every fastsnn neuron in `net` out of the graph, for truncated BPTT."""
    for _, neuron in _neurons(net):
        neuron.detach()


def states(net: nn.Module) -> dict[str, Any]:
    """A copy of every neuron's state, by module name; restore it with `load_states`."""
    return {name: neuron.state.map(lambda tensor: tensor.detach().clone()) for name, neuron in _neurons(net)}


def load_states(net: nn.Module, saved: dict[str, Any]) -> None:
    """Put back what `states` returned.

    Raises KeyError, with the names, where `saved` and `net` do not hold the same neurons; nothing is changed then.
    """
    neurons = dict(_neurons(net))
    if neurons.keys() != saved.keys():
        missing, unknown = sorted(neurons.keys() - saved.keys()), sorted(saved.keys() - neurons.keys())
        raise KeyError(
            f"saved states do not fit this network: missing {missing}, unknown {unknown}; take them with "
            "fastsnn.states(net) from a network of the same structure"
        )
    for name, state in saved.items():
        neurons[name].state = state.map(Tensor.clone)
