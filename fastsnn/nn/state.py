"""State of stateful modules, scoped to the module tree that is given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from .recompute import met, running

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

    def raise_deferred(self) -> None:
        """Raise what a step found wrong on a device and did not wait to say. By default nothing."""

    def restarted(self, mask: Tensor) -> Any:
        """The state where the samples of mask [N] are at t = 1 and the others as they were.

        Raises ValueError where samples share what is kept, or mask does not fit.
        """
        if self._begun():
            raise ValueError(
                f"{type(self).__name__} counts steps and keeps statistics for all samples together, so that single "
                "ones cannot start anew: use fastsnn.reset(net) without a mask"
            )
        return self.state

    def _begun(self) -> bool:
        """Whether the sequence has begun."""
        return bool(self.state[0])

    def _met(self) -> None:
        """Before the state is read or written from outside."""
        if not is_dynamo_compiling():
            met(self)

    def _runs(self) -> None:
        """Before a call. Raises RuntimeError in a backward pass outside of `fastsnn.checkpoint`."""
        if not is_dynamo_compiling():
            running(self)


def of_samples(mask: Tensor, kept: Tensor) -> Tensor:
    """mask [N] as it spreads over what is kept of N samples, [N, *]. Raises ValueError where it does not fit."""
    if kept.shape[:1] != mask.shape:
        raise ValueError(f"mask has {len(mask)} samples and the state has shape {tuple(kept.shape)}, [N, *]")
    return mask.to(kept.device).view(-1, *[1] * (kept.dim() - 1))


def counted(steps: int | Tensor, beside: Tensor) -> int | Tensor:
    """Steps as they are kept: inside a graph of torch.compile in a tensor, as a number would make a graph of its own
    each; else as they are."""
    if isinstance(steps, Tensor) or not torch.compiler.is_compiling():
        return steps
    return torch.full((), steps, device=beside.device)


def _stateful(net: nn.Module) -> list[tuple[str, Stateful]]:
    # all before the first changes: torch.compile does not walk modules that have
    return [(name, module) for name, module in net.named_modules() if isinstance(module, Stateful)]


def reset(net: nn.Module, mask: Tensor | None = None) -> None:
    """End the sequence in every fastsnn layer of `net`, before each new one. Other modules keep their state.

    mask [N], bool: of these samples alone, which then start anew with their own dropout mask; the others go on, also in
    the graph of rule "bptt".

    Raises TypeError or ValueError, and changes nothing, where mask is not one bool a sample, or a layer counts steps
    for all samples together (EMPF, OSR, threshold="ots") and has begun.
    """
    modules = _stateful(net)
    if mask is None:
        for _, module in modules:
            module.reset()
        for _, module in modules:
            module.raise_deferred()
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 1:
        raise TypeError(f"mask is {mask!r}; it must be a bool tensor [N], True for the samples that start anew")
    after = [module.restarted(mask) for _, module in modules]
    for (_, module), state in zip(modules, after, strict=True):
        module.state = state


def detach(net: nn.Module) -> None:
    """Cut the state of every fastsnn layer in `net` out of the graph, for truncated BPTT."""
    for _, module in _stateful(net):
        module.detach()


def states(net: nn.Module) -> dict[str, dict[str, Any]]:
    """A copy of every stateful layer's state, by module name, as {field: tensor, number or None}: `torch.save` writes
    and `torch.load` reads it with their defaults. Restore it with `load_states`."""
    copy: Callable[[Tensor], Tensor] = lambda tensor: tensor.detach().clone()  # noqa: E731
    return {name: module.state.map(copy)._asdict() for name, module in _stateful(net)}


def load_states(net: nn.Module, saved: dict[str, dict[str, Any]]) -> None:
    """Put back what `states` returned.

    Raises KeyError, with the names, where `saved` and `net` do not hold the same layers, ValueError where a layer's
    state has other fields; nothing is changed then.
    """
    modules = dict(_stateful(net))
    if modules.keys() != saved.keys():
        missing, unknown = sorted(modules.keys() - saved.keys()), sorted(saved.keys() - modules.keys())
        raise KeyError(
            f"saved states do not fit this network: missing {missing}, unknown {unknown}; take them with "
            "fastsnn.states(net) from a network of the same structure"
        )
    found = {name: _state_of(name, modules[name], saved[name]) for name in modules}
    for name, state in found.items():
        modules[name].state = state


def _state_of(name: str, module: Stateful, saved: dict[str, Any]) -> Any:
    """A copy of a saved state as the module keeps it."""
    kind = type(module.state)
    if not isinstance(saved, dict) or saved.keys() != set(kind._fields):
        holds = sorted(saved) if isinstance(saved, dict) else f"a {type(saved).__name__}"
        raise ValueError(
            f"saved state of {name or type(module).__name__} holds {holds} and {type(module).__name__} keeps "
            f"{sorted(kind._fields)}; take it with fastsnn.states(net) from a network of the same structure"
        )
    return kind(**saved).map(Tensor.clone)
