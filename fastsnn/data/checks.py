"""What every data set asks: its packages, its labels, its files."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError


def needs(module: str, extra: str, what: str) -> ModuleType:
    """The imported module. Raises ImportError with the remedy where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{what} needs {package} ({error}): pip install 'fastsnn[{extra}]'") from error


def among(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises DataError, with the nearest allowed one, for any other value."""
    allowed = list(allowed)
    if value in allowed:
        return
    near = get_close_matches(str(value), allowed, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DataError(f"{name} is {value!r}; allowed: {', '.join(allowed)}{hint}")


def positive(name: str, value: Any) -> None:
    """Raises DataError for anything but a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{name} is {value!r}; it must be a whole number of at least 1")


def class_labels(values: Any, classes: int, source: object) -> Tensor:
    """Labels as int64. Raises DataError for one that is no integer in [0, classes)."""
    try:
        labels = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{source} has labels that are no integers ({error})") from error
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise DataError(f"{source} has labels of {labels.dtype}; they must be integers, the indices of the classes")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"{source} has labels from {int(labels.min())} to {int(labels.max())} and the set has {classes} classes "
            f"(0 to {classes - 1}): it is another data set's, or the number of classes is wrong"
        )
    return labels.long()


def class_folders(folder: Path, classes: int) -> list[str]:
    """The names of a folder's subfolders, one a class, sorted. Raises DataError where there are not `classes`."""
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(found) != classes:
        few = ", ".join(found[:3])
        raise DataError(f"{folder} has {len(found)} class folders ({few}, ...) and the set has {classes}, one a class")
    return found
