"""scikit-learn's handwritten digits (1,797 images of 8x8): real data that ships in a package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..names import DATASETS
from .encoding import direct

TEST_SHARE = 0.2
SPLIT_SEED = 0  # of the split, the same for every run


@dataclass(frozen=True)
class Dataset:
    """Train and test split. x is [N, 1, 8, 8] for `digits` and [N, 8, 8] (rows as steps) for `sequential-digits`."""

    name: str
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int = 10

    @property
    def sequential(self) -> bool:
        return self.name == "sequential-digits"

    def steps(self, x: Tensor, T: int) -> Tensor:
        """A batch as [T, N, *]: direct encoding of images, or one row a step."""
        return x.transpose(0, 1) if self.sequential else direct(x, T)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample at one step."""
        return tuple(self.train_x.shape[2:] if self.sequential else self.train_x.shape[1:])

    @property
    def train_samples(self) -> int:
        return len(self.train_y)

    @property
    def test_samples(self) -> int:
        return len(self.test_y)

    def train_batches(
        self, T: int, batch_size: int, order: Tensor, seed: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the training split in the given order of samples. seed changes nothing: they are not augmented."""
        for index in order.split(batch_size):
            yield self.steps(self.train_x[index], T), self.train_y[index]

    def test_batches(self, T: int, batch_size: int = 512) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the test split."""
        pairs = zip(self.test_x.split(batch_size), self.test_y.split(batch_size), strict=True)
        return ((self.steps(x, T), y) for x, y in pairs)

    def to(self, device: torch.device | str) -> Dataset:
        moved = {name: getattr(self, name).to(device) for name in ("train_x", "train_y", "test_x", "test_y")}
        return replace(self, **moved)


def load(name: str) -> Dataset:
    """`digits` (static images) or `sequential-digits` (one row of 8 pixels a step, T = 8).

    Standardised with the training split's mean and standard deviation; 1,437 images train and 360 test, each
    class split alike. Raises ValueError for another name and ImportError, with the remedy, without scikit-learn.
    """
    if name not in DATASETS:
        raise ValueError(f"data is {name!r}; allowed: {', '.join(DATASETS)}")
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError(f"data {name!r} needs scikit-learn: pip install 'fastsnn[train]'") from error
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=labels
    )
    mean, std = train_x.mean(), train_x.std()
    shape = (-1, 8, 8) if name == "sequential-digits" else (-1, 1, 8, 8)

    def tensor(x: object) -> Tensor:
        return torch.as_tensor((x - mean) / std, dtype=torch.float32).view(shape)

    return Dataset(name, tensor(train_x), torch.as_tensor(train_y), tensor(test_x), torch.as_tensor(test_y))
