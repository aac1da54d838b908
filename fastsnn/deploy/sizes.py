"""What a network weighs."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from .packed import _Packed

SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Layer(NamedTuple):
    """One synapse: its number of weights and the bits that each of them takes."""

    name: str
    weights: int
    bits: int

    @property
    def bytes(self) -> int:
        """Of the weights alone."""
        return -(-self.weights * self.bits // 8)


class Sizes(NamedTuple):
    """Of a network. weight_bytes counts the weights of synapses alone, as EM-PF's table 2 does; stored_bytes all that
    `save` writes: words with their padding, scales, biases, norms."""

    layers: list[Layer]
    weight_bytes: int
    stored_bytes: int

    def __str__(self) -> str:
        rows = [f"{layer.name:40} {layer.weights:12,} weights x {layer.bits:2} bits" for layer in self.layers]
        total = f"weights {self.weight_bytes / 1e6:.2f} MB, everything stored {self.stored_bytes / 1e6:.2f} MB"
        return "\n".join([*rows, total])


def sizes(net: nn.Module) -> Sizes:
    """The size of every synapse of a network, packed or not, and their sum."""
    layers = [Layer(name, *_size(module)) for name, module in net.named_modules() if _is_synapse(module)]
    stored = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    return Sizes(layers, sum(layer.bytes for layer in layers), stored)


def _is_synapse(module: nn.Module) -> bool:
    return isinstance(module, (_Packed, *SYNAPSES))


def _size(module: Any) -> tuple[int, int]:
    if isinstance(module, _Packed):
        return module.shape.numel(), module.bits
    return module.weight.numel(), 8 * module.weight.element_size()
