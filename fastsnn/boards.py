"""A run's epochs in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import RunError

BY_STEP = ("step_rates", "z_scores", "above_threshold", "mpdr_loss")


class Board:
    """Scalars of each epoch, written to `folder`. Raises RunError, with the remedy, without tensorboard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise RunError("--tensorboard needs tensorboard: pip install 'fastsnn[tensorboard]'") from error
        self._folder, self._make = folder, SummaryWriter

    def write(self, row: dict[str, Any]) -> None:
        """One epoch of metrics.json."""
        with self._make(str(self._folder)) as writer:
            for name, value in row.items():
                if name in BY_STEP:
                    for layer, steps in value.items():
                        for t, one in enumerate(steps, 1):
                            if one is not None:
                                writer.add_scalar(f"{name}/{layer}/t{t}", one, row["epoch"])
                elif isinstance(value, dict):
                    for layer, one in value.items():
                        writer.add_scalar(f"{name}/{layer}", one, row["epoch"])
                elif name != "epoch":
                    writer.add_scalar(name, value, row["epoch"])
