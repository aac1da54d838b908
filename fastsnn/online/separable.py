"""How far a network's online gradient is that of BPTT (Hao et al. 2024, definition 4.1 and theorem 4.2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..nn import EMPF

__all__ = ["SeparableShare"]


class SeparableShare:
    """Share of neurons, per EMPF layer, that fire at all steps of a sequence or at none, whose gradient is BPTT's.

    with SeparableShare(net) as share:
        ...                       # any number of whole sequences
    share.shares()                # {layer's name: share in [0, 1]}

    A neuron fires where its spike is positive; exactly at the threshold, where the spike is 0, it counts as silent.
    """

    def __init__(self, net: nn.Module) -> None:
        self._layers = {name: module for name, module in net.named_modules() if isinstance(module, EMPF)}
        self._separable = dict.fromkeys(self._layers, 0)
        self._seen = dict.fromkeys(self._layers, 0)
        self._hooks: list[Any] = []

    def __enter__(self) -> SeparableShare:
        self._hooks = [layer.register_forward_hook(self._hook(name)) for name, layer in self._layers.items()]
        return self

    def __exit__(self, *exc: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _hook(self, name: str) -> Any:
        always: Any = None
        ever: Any = None

        def observe(layer: EMPF, _inputs: Any, spikes: Tensor) -> None:
            nonlocal always, ever
            fired = spikes.detach() > 0
            if layer.step_mode == "m":
                always, ever = fired.all(0), fired.any(0)
            elif layer.state.t == 1 or always is None:
                always = ever = fired
            else:
                always, ever = always & fired, ever | fired
            if layer.state.t == layer.steps:
                self._separable[name] += int((always | ~ever).sum())
                self._seen[name] += always.numel()

        return observe

    def shares(self) -> dict[str, float]:
        """Of the whole sequences seen so far; layers that have seen none are left out."""
        return {name: self._separable[name] / seen for name, seen in self._seen.items() if seen}
