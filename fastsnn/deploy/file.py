"""A packed network in one safetensors file: its tensors, and a header with version and checksum."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._version import __version__
from ..errors import DeployError, RunError
from ..files import write_whole
from ..nn.tree import replace
from ..ops.binary import Packed, words_shape
from .fold import StepAffine, fold
from .packed import KINDS, _Packed

FORMAT = "fastsnn-packed"
VERSION = "1"
KEYS = {"format", "version", "fastsnn", "folded", "layers", "notes", "sha256"}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise DeployError("deployment files need safetensors: pip install 'fastsnn[deploy]'") from error
    return safetensors


def _digest(tensors: dict[str, Tensor], header: dict[str, str]) -> str:
    """Of the header but its checksum, and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256()
    digest.update(json.dumps({key: header[key] for key in sorted(KEYS - {"sha256"})}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(net: nn.Module, path: str | Path, notes: dict[str, Any] | None = None) -> None:
    """Write a network that `pack` returned, of a folded one too, to a safetensors file. notes: in its header, as JSON.

    Raises DeployError where binary layers are not packed yet; a file that was there stays until the new one is whole.
    """
    floating = [name for name, module in net.named_modules() if isinstance(module, tuple(KINDS))]
    if floating:
        raise DeployError(f"{', '.join(floating[:3])} not packed; save what fastsnn.deploy.pack(net) returns")
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in net.state_dict().items()}
    layers = {name: module.bits for name, module in net.named_modules() if isinstance(module, _Packed)}
    folded = any(isinstance(module, StepAffine) for module in net.modules())
    header = {"format": FORMAT, "version": VERSION, "fastsnn": __version__, "folded": json.dumps(folded)}
    header |= {"layers": json.dumps(layers), "notes": json.dumps(notes or {})}
    header["sha256"] = _digest(tensors, header)
    data = _safetensors().torch.save(tensors, metadata=header)
    try:
        write_whole(Path(path), lambda file: file.write(data))
    except RunError as error:
        raise DeployError(str(error)) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header, its JSON read, and tensors of an intact file of this version. Raises DeployError."""
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise DeployError(f"{path} does not exist") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise DeployError(f"{path} is not a whole safetensors file ({error}); export the network again") from error
    if header.get("format") != FORMAT:
        raise DeployError(f"{path} is no packed network; `fastsnn export` and fastsnn.deploy.save write them")
    if header.get("version") != VERSION:
        raise DeployError(
            f"{path} has version {header.get('version')} (written by fastsnn {header.get('fastsnn')}) and this fastsnn "
            f"{__version__} reads {VERSION}; export the network again"
        )
    if header.keys() != KEYS or header["sha256"] != _digest(tensors, header):
        raise DeployError(f"{path} was altered: its checksum does not fit; export the network again")
    return header | {name: _value(path, name, header[name]) for name in VALUES}, tensors


# what a header says in JSON, and whether it may
VALUES: dict[str, Callable[[Any], bool]] = {
    "folded": lambda value: isinstance(value, bool),
    "layers": lambda value: (
        isinstance(value, dict) and all(type(bits) is int and bits in (1, 2) for bits in value.values())
    ),
    "notes": lambda value: isinstance(value, dict),
}


def _value(path: Path, name: str, text: str) -> Any:
    """What the text of a header says. Raises DeployError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not VALUES[name](value):
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise DeployError(
            f"{path} has a header that fastsnn does not write ({name}: {shown}); export the network again"
        )
    return value


def read_header(path: str | Path) -> dict[str, Any]:
    """Version, whether folded, bits of packed layers, and notes of a file whose checksum fits. Raises DeployError."""
    return _read(Path(path))[0]


def load(path: str | Path, net: nn.Module) -> nn.Module:
    """The packed network of a file. net: its architecture, before `fold` and `pack`, with any weights; it stays so.

    Raises DeployError for a file that is missing, truncated, altered, of another version, or of another network.
    """
    header, tensors = _read(Path(path))
    bits = header["layers"]
    found = {name for name, module in net.named_modules() if type(module) in KINDS}
    if found != bits.keys():
        raise DeployError(f"{path} packs {sorted(bits)} and the network has binary layers {sorted(found)}")
    net = copy.deepcopy(net).eval()
    try:
        net = fold(net) if header["folded"] else net
        net = replace(net, lambda name, layer: _empty(layer, bits[name]) if name in bits else layer)
        _check_types(tensors, net.state_dict())
        net.load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError) as error:
        raise DeployError(f"{path} holds another network: {error}") from error
    return net


def _check_types(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Raises ValueError where a tensor would be cast to the network's type."""
    for name in tensors.keys() & own.keys():
        given, wanted = tensors[name].dtype, own[name].dtype
        if given != wanted:
            raise ValueError(f"{name} is {given} and the network's {wanted}; give a network of the same types")


def _empty(layer: Any, bits: int) -> nn.Module:
    """A packed layer of the same shape, its words and scale to be filled."""
    shape = layer.weight.shape
    words = torch.zeros(words_shape(shape, bits), dtype=torch.int32, device=layer.weight.device)
    scale = torch.zeros(len(layer.weight), device=layer.weight.device) if layer.scale else None
    return KINDS[type(layer)](layer, Packed(words, bits, shape, scale))
