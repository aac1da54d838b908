"""Tensors that an update leaves on modules as plain attributes: what a layer keeps of its last call."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

OWN = ("_parameters", "_buffers", "_modules")

Place = tuple[str, str]  # the module's name, the attribute's


def attributes(net: nn.Module) -> dict[Place, Any]:
    """What hangs on the modules, but for parameters, buffers and modules."""
    named = net.named_modules()
    return {(name, key): value for name, m in named for key, value in m.__dict__.items() if key not in OWN}


def anew(before: dict[Place, Any], now: dict[Place, Any]) -> dict[Place, Tensor]:
    """The tensors that are others than before."""
    return {place: value for place, value in now.items() if type(value) is Tensor and value is not before.get(place)}


def refuse_others(before: dict[Place, Any], now: dict[Place, Any]) -> None:
    """Raises RuntimeError for new tensors in a list or the like, and for traced spikes: who puts tensors back does not
    find them."""
    for (name, key), value in now.items():
        if value is before.get((name, key)) or type(value) is Tensor:
            continue
        old = {id(leaf) for leaf in pytree.tree_leaves(before.get((name, key)))}
        if any(isinstance(leaf, Tensor) and id(leaf) not in old for leaf in pytree.tree_leaves(value)):
            raise RuntimeError(f"{f'{name}.{key}' if name else key} keeps a batch's tensors as {type(value).__name__}")
