"""A data set of map-style splits, and its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad as zero_pad
from torch.utils import data as loading

from ..errors import DataError
from .checks import class_labels, needs
from .encoding import direct


class Batch(NamedTuple):
    """x [T, N, *]; y [N], or [N, classes] where mixed; lengths [N]: how many of its T steps each sample has, the
    others are padding."""

    x: Tensor
    y: Tensor
    lengths: Tensor


def pad(samples: Sequence[Tensor], steps: int | None = None) -> tuple[Tensor, Tensor]:
    """Sequences [t_i, *] of one batch as x [T, N, *], zeros after their end, and lengths [N].

    steps: T; what is longer is cut to its first T steps; None (default): the longest one's length. Raises ValueError
    for steps < 1 or no samples.
    """
    if not samples or (steps is not None and steps < 1):
        raise ValueError(f"steps is {steps} and there are {len(samples)} samples; both must be at least 1")
    longest = max(len(x) for x in samples) if steps is None else steps
    lengths = torch.tensor([min(len(x), longest) for x in samples])
    padded = [zero_pad(x[:longest], [0, 0] * (x.dim() - 1) + [0, longest - len(x[:longest])]) for x in samples]
    return torch.stack(padded, 1), lengths


@dataclass(frozen=True)
class MapData:
    """Train and test split, as map-style data sets of (x, label) with x a tensor or array and an integer label.

    Random augmentation must draw from torch: each sample's draws are a function of the seed of the epoch and its
    index alone, whatever the number of workers, so that a resumed run sees what the uninterrupted one saw.

    Args:
        classes: their number. shape: of one sample at one step.
        sequence: samples are [t, *] with time first, of their own lengths; else they are shown whole at every step.
        steps: T, where every sequence has it; None where batches may have any.
        mixup: alpha of Beta(alpha, alpha), the share of each image in its mixture with the one before it in the batch
            (Zhang et al. 2018); training labels become shares [N, classes]. 0 (default): none.
        workers: processes that load, default 0: this one. device: of the batches.
    """

    name: str
    train: loading.Dataset[Any]
    test: loading.Dataset[Any]
    classes: int
    shape: tuple[int, ...]
    sequence: bool = False
    steps: int | None = None
    mixup: float = 0.0
    workers: int = 0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 0:
            raise DataError(f"workers is {self.workers!r}; it must be a whole number, 0 for this process alone")
        if self.mixup and (self.sequence or len(self.shape) != 3):
            raise DataError(f"{self.name}: mixup mixes images [C, H, W]; these samples are not, leave it out")

    @property
    def sequential(self) -> bool:
        """Whether a step is a vector: for networks without convolutions."""
        return len(self.shape) == 1

    @property
    def train_samples(self) -> int:
        return len(cast(Sized, self.train))

    @property
    def test_samples(self) -> int:
        return len(cast(Sized, self.test))

    def to(self, device: torch.device | str) -> MapData:
        return replace(self, device=device)

    def train_batches(
        self, steps: int | None, batch_size: int, order: Tensor, seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) of the training split in the given order of samples; seed: as `batches`."""
        return ((batch.x, batch.y) for batch in self.batches(self.train, steps, batch_size, order, seed, self.mixup))

    def test_batches(self, steps: int | None, batch_size: int = 128) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) of the test split."""
        order = torch.arange(self.test_samples)
        return ((batch.x, batch.y) for batch in self.batches(self.test, steps, batch_size, order, seed=0))

    def batches(
        self,
        split: loading.Dataset[Any],
        steps: int | None,
        batch_size: int,
        order: Tensor,
        seed: int | None = None,
        mixup: float = 0.0,
    ) -> Iterator[Batch]:
        """Batches of one split with their lengths.

        steps: T; None only for sequences: as many as the longest of the batch has. seed: of the epoch's augmentation;
        None (default): one drawn from torch's generator. Raises DataError for steps that the set does not have, and
        for a sample that does not fit it, with its index.
        """
        self._check(steps)
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        loader = loading.DataLoader(
            _Seeded(split, seed),
            batch_sampler=[index.tolist() for index in order.split(batch_size)],
            num_workers=self.workers,
            collate_fn=partial(self._collate, None if self.steps else steps, mixup, seed),
            generator=torch.Generator().manual_seed(seed),  # of workers' seeds, in place of torch's own
        )
        for loaded in loader:
            if isinstance(loaded, DataError):
                raise loaded
            x, y, lengths = loaded
            x, y = x.to(self.device), y.to(self.device)
            yield Batch(x if self.sequence else direct(x, cast(int, steps)), y, lengths)

    def _check(self, steps: int | None) -> None:
        if not self.sequence and steps is None:
            raise DataError(f"{self.name} has images and steps is None; say for how many steps T they are shown")
        if self.steps is not None and steps not in (None, self.steps):
            raise DataError(f"{self.name} was made with T = {self.steps} steps and its batches shall have {steps}")

    def _collate(
        self, steps: int | None, mixup: float, seed: int, samples: list[tuple[int, Any]]
    ) -> tuple[Tensor, Tensor, Tensor] | DataError:
        """A batch, or what is wrong with it: raised in a worker it would reach the user inside a traceback."""
        try:
            return self._batch(steps, mixup, seed, samples)
        except DataError as error:
            return error

    def _batch(
        self, steps: int | None, mixup: float, seed: int, samples: list[tuple[int, Any]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        pairs = [self._pair(index, sample) for index, sample in samples]
        xs, y = [x for x, _ in pairs], torch.tensor([label for _, label in pairs])
        if self.sequence:
            x, lengths = pad(xs, steps)
        else:
            x, lengths = torch.stack(xs), torch.full((len(xs),), cast(int, steps))
        if mixup:
            with drawing(seed, -1 - samples[0][0]):
                x, y = needs("torchvision.transforms.v2", "vision", "mixup").MixUp(
                    alpha=mixup, num_classes=self.classes
                )(x, y)
        return x, y, lengths

    def _pair(self, index: int, sample: Any) -> tuple[Tensor, int]:
        if isinstance(sample, DataError):
            raise sample
        where = f"sample {index} of {self.name}"
        x, label = checked_pair(sample, self.classes, where)
        shape = tuple(x.shape[1:] if self.sequence else x.shape)
        if shape != self.shape or (self.sequence and not len(x)):
            raise DataError(f"{where} has shape {list(x.shape)}; a step of this set has {list(self.shape)}")
        return x, label


def checked_pair(sample: Any, classes: int, where: str) -> tuple[Tensor, int]:
    """Input, in torch's default type, and label of one sample. Raises DataError where it is no such pair."""
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise DataError(f"{where} is a {type(sample).__name__}; it must be a pair of input and label")
    x = _input(sample[0], where)
    label = class_labels(sample[1], classes, where)
    if label.numel() != 1:
        raise DataError(f"{where} has a label of shape {list(label.shape)}; it must be one index of a class")
    return x, int(label)


def _input(given: Any, where: str) -> Tensor:
    """Raises DataError for what is no dense tensor or array of finite real numbers."""
    kind = given.dtype.kind if isinstance(given, np.ndarray) else type(given).__name__
    dense = isinstance(given, Tensor) and given.layout == torch.strided and not given.is_complex() and not given.is_meta
    if not dense and kind not in ("b", "i", "u", "f"):
        what = f"an array of {given.dtype}" if isinstance(given, np.ndarray) else kind
        raise DataError(f"{where} has an input of {what}; it must be a tensor or an array of real numbers, dense")
    x = torch.as_tensor(given, dtype=torch.get_default_dtype()).detach()
    if not x.isfinite().all():
        raise DataError(f"{where} has values that are NaN or infinite; a neuron would take them for no spike")
    return x


def step_shape(split: Any, classes: int, sequence: bool, where: str) -> tuple[int, ...]:
    """The shape of one step, from the first sample; all labels are looked at where the split has them as `targets`.

    Raises DataError where it has no samples, or labels that are no classes.
    """
    if not len(split):
        raise DataError(f"{where} has no samples")
    if hasattr(split, "targets"):
        class_labels(split.targets, classes, where)
    with drawing(0, 0):
        try:
            first = split[0]
        except DataError:
            raise
        except Exception as error:  # of a user's code
            raise DataError(f"sample 0 of {where} cannot be read ({type(error).__name__}: {error})") from error
    x, _ = checked_pair(first, classes, f"sample 0 of {where}")
    shape = tuple(x.shape)
    if not x.numel() or not shape:
        raise DataError(f"sample 0 of {where} has an input of shape {list(shape)}; it must have values, [C, *]")
    if sequence and len(shape) < 2:
        raise DataError(f"sample 0 of {where} has shape {list(shape)}; a sequence has time first, [t, *]")
    return shape[1:] if sequence else shape


@contextmanager
def drawing(seed: int, index: int) -> Iterator[None]:
    """torch's draws inside are a function of seed and index; its generator goes on as if there had been none."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed((seed * 0x9E3779B97F4A7C15 + index) % 2**63)
        yield


class _Seeded(loading.Dataset[Any]):
    """(index, sample), each sample under its own seed; a DataError in place of a sample that raised it."""

    def __init__(self, split: loading.Dataset[Any], seed: int) -> None:
        self.split, self.seed = split, seed

    def __getitem__(self, index: int) -> tuple[int, Any]:
        with drawing(self.seed, index):
            try:
                return index, self.split[index]
            except DataError as error:
                return index, error
