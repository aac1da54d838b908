"""A run's epochs in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RunError

BY_STEP = ("step_rates", "z_scores", "above_threshold", "mpdr_loss")


class Board:
    """Scalars of each epoch, written to `folder`, all in one file a run. A context manager, which ends the file. Raises
    RunError, with the remedy, without tensorboard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RunError("--tensorboard needs tensorboard: pip install 'fastsnn[tensorboard]'") from error
        self._folder, self._make = folder, SummaryWriter
        self._writer: Any = None

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, row: dict[str, Any]) -> None:
        """One epoch of metrics.json, on disk when it returns."""
        if self._writer is None:
            self._writer = self._make(str(self._folder))
        for name, one in _scalars(row):
            self._writer.add_scalar(name, one, row["epoch"])
        self._writer.flush()


def _scalars(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name in BY_STEP:
            for layer, steps in value.items():
                yield from ((f"{name}/{layer}/t{t}", one) for t, one in enumerate(steps, 1) if one is not None)
        elif isinstance(value, dict):
            yield from ((f"{name}/{layer}", one) for layer, one in value.items())
        elif name != "epoch":
            yield name, value
