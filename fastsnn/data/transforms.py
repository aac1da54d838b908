"""Augmentation of images and of frames of events, by name; all draws are torch's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataError
from .checks import among, needs

Augment = Mapping[str, Any] | Sequence[str] | None
Normal = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel

IMAGES: dict[str, Any] = {
    "crop": 4,  # pixels of padding around the image, of which a part of its own size is cut
    "resized_crop": 0.08,  # smallest share of the area
    "flip": 0.5,  # probability
    "autoaugment": "cifar10",  # policy: cifar10, imagenet or svhn
    "randaugment": 9,  # magnitude of two operations
    "cutout": 16,  # side of the square
    "mixup": 1.0,  # alpha
}
FRAMES: dict[str, Any] = {
    "resized_crop": 0.7,  # smallest share of the area
    "crop": 4,
    "flip": 0.5,
    "rotation": 20,  # largest angle, degrees
    "nda": 30,  # largest angle of rotation and shear, degrees
    "temporal_delete": None,  # frames that stay; None: seven in ten
}
WHOLE = ("crop", "randaugment", "cutout", "temporal_delete")
SHARES = ("flip", "resized_crop")


def chosen(augment: Augment, known: Mapping[str, Any]) -> dict[str, Any]:
    """Names and values; a name alone has its default. Raises DataError for an unknown name or a value out of range."""
    listed = isinstance(augment, Sequence) and not isinstance(augment, str) and all(isinstance(a, str) for a in augment)
    if not (augment is None or listed or isinstance(augment, Mapping)):
        raise DataError(f"augment is {augment!r}; it must be a list of names, or a table of names and values")
    given: dict[str, Any] = dict(augment) if isinstance(augment, Mapping) else dict.fromkeys(augment or ())
    for name in given:
        among("augment", name, known)
    values = {name: known[name] if value is None else value for name, value in given.items()}
    for name, value in values.items():
        if value is not None and name != "autoaugment":
            _check(name, value)
    return values


def _check(name: str, value: Any) -> None:
    kind = int if name in WHOLE else (int, float)
    largest = 1 if name in SHARES else math.inf
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= largest:
        what = (
            "a whole number of at least 1" if name in WHOLE else "in (0, 1]" if name in SHARES else "a positive number"
        )
        raise DataError(f"augment {name!r} is {value!r}; it must be {what}, or leave {name} out")


class Cutout(nn.Module):
    """A square of `size` pixels around a random pixel is set to zero, what of it lies within [..., H, W] (DeVries and
    Taylor 2017)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self._hidden(length) for length in x.shape[-2:])
        return x.masked_fill(rows[:, None] & columns, 0)

    def _hidden(self, length: int) -> Tensor:
        start = int(torch.randint(length, ())) - self.size // 2
        place = torch.arange(length)
        return (place >= start) & (place < start + self.size)


class RandomTemporalDelete(nn.Module):
    """`keep` of the frames [T, *], drawn anew each time, in their order (Fang et al. 2021). Raises DataError for keep
    outside 1..T."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        if not 1 <= self.keep <= len(x):
            raise DataError(f"temporal_delete keeps {self.keep} frames; a sample has {len(x)}, keep 1 to {len(x)}")
        return x[torch.randperm(len(x))[: self.keep].sort().values]


class NDA(nn.Module):
    """Neuromorphic data augmentation (Li et al. 2022, section 3.2): half of the samples are mirrored, then one of
    rolling by up to 5 pixels a side, rotation and shear, each by up to `degrees`. [T, P, H, W], all frames alike."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        v2 = needs("torchvision.transforms.v2", "vision", "nda")
        mirror = v2.RandomHorizontalFlip(0.5)
        moves = [Roll(5), v2.RandomRotation(degrees), v2.RandomAffine(0, shear=(-degrees, degrees))]
        self.moves = v2.Compose([mirror, v2.RandomChoice(moves)])

    def forward(self, x: Tensor) -> Tensor:
        return self.moves(x)


class Roll(nn.Module):
    """[..., H, W] rolled by up to `pixels` in either direction of each axis."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(torch.randint(-self.pixels, self.pixels + 1, (2,)).tolist(), (-2, -1))


def image_transform(augment: Mapping[str, Any], size: int, normal: Normal) -> nn.Module:
    """uint8 [C, H, W] -> float32 [C, size, size], of unit range and then normalised; the augmentations in the order of
    IMAGES, but cutout after the normalisation: what it hides has the mean's value. mixup is of batches."""
    v2 = needs("torchvision.transforms.v2", "vision", "augmentation of images")
    make = {
        "crop": lambda padding: v2.RandomCrop(size, padding=padding),
        "resized_crop": lambda area: v2.RandomResizedCrop(size, scale=(area, 1), antialias=True),
        "flip": v2.RandomHorizontalFlip,
        "autoaugment": lambda policy: v2.AutoAugment(_policy(v2, policy)),
        "randaugment": lambda magnitude: v2.RandAugment(magnitude=magnitude),
    }
    early = [make[name](augment[name]) for name in IMAGES if name in augment and name in make]
    late = [Cutout(augment["cutout"])] if "cutout" in augment else []
    return v2.Compose([*early, v2.ToDtype(torch.float32, scale=True), v2.Normalize(*normal), *late])


def _policy(v2: Any, name: str) -> Any:
    among("augment autoaugment", name, [policy.value for policy in v2.AutoAugmentPolicy])
    return v2.AutoAugmentPolicy(name)


def frame_transform(
    augment: Mapping[str, Any], sensor: tuple[int, int], size: int, normal: Normal | None, steps: int | None
) -> nn.Module:
    """Counts [T, P, H, W] of a sensor [H, W] -> [T', P, size, size]: crop at the sensor's resolution, interpolation,
    the other augmentations in the order of FRAMES, then the normalisation."""
    v2 = needs("torchvision.transforms.v2", "vision", "augmentation of frames")
    if normal is not None and not _is_normal(normal):
        raise DataError(f"normal is {normal}; it must be the means and the standard deviations of both polarities")
    augment = dict(augment)
    if "temporal_delete" in augment:
        augment["temporal_delete"] = _kept(augment["temporal_delete"], steps)
    make = {
        "resized_crop": lambda area: v2.RandomResizedCrop(sensor, scale=(area, 1), antialias=False),
        "crop": lambda padding: v2.RandomCrop(size, padding=padding),
        "flip": v2.RandomHorizontalFlip,
        "rotation": v2.RandomRotation,
        "nda": NDA,
        "temporal_delete": RandomTemporalDelete,
    }
    parts = {name: make[name](augment[name]) for name in FRAMES if name in augment}
    before = [parts.pop("resized_crop")] if "resized_crop" in parts else []
    after = [v2.Normalize(*normal)] if normal else []
    return v2.Compose([*before, v2.Resize((size, size), antialias=False), *parts.values(), *after])


def _is_normal(normal: Any) -> bool:
    """Whether it is the finite means and the positive deviations of two channels."""
    try:
        mean, deviation = torch.as_tensor(normal, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return False
    return mean.shape == (2,) and bool((mean.isfinite() & deviation.isfinite() & (deviation > 0)).all())


def _kept(keep: int | None, steps: int | None) -> int:
    if steps is None:
        raise DataError("augment 'temporal_delete' needs samples of T frames: use by='count' or by='time' with steps")
    kept = round(0.7 * steps) if keep is None else keep
    if not 1 <= kept <= steps:
        raise DataError(f"augment 'temporal_delete' is {kept}; it is how many of T = {steps} frames stay, 1 to {steps}")
    return kept
