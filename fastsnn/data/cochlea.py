"""Spikes of an artificial cochlea: SHD and SSC (Cramer et al. 2020), read with h5py.

tonic opens and leaves open the file for every sample; here a process opens it once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .aedat import Events
from .checks import class_labels, needs, positive
from .events import Framing
from .mapped import MapData

UNITS = 700
LONGEST = 1_400_000  # microseconds, which the steps cover


class Spikes(Dataset[tuple[Tensor, int]]):
    """Counts [T, 700] of one file of recordings.

    Raises DataError for a file that is truncated, of another kind, or has not that many classes. Of bytes that changed
    inside it, what HDF5 does not notice is not noticed here.
    """

    def __init__(self, path: Path, classes: int, framing: Framing) -> None:
        self.path, self.framing = path, framing
        self._process, self._file = -1, None
        spikes = self._open()
        try:
            labels, named = spikes["labels"][()], len(spikes["extra/keys"])
            counts = {len(labels), len(spikes["spikes/times"]), len(spikes["spikes/units"])}
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} is not in the format of SHD ({error}): spikes/times, spikes/units, labels"
            ) from error
        if named != classes:
            raise DataError(f"{path} has {named} classes and the set has {classes}: it is another data set's")
        if len(counts) != 1:
            raise DataError(f"{path} has {sorted(counts)} labels, times and units; it must have as many of each")
        self.targets = class_labels(labels.astype(np.int64), classes, path)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        spikes = self._open()
        try:
            seconds, units = spikes["spikes/times"][index], spikes["spikes/units"][index]
            t = np.rint(seconds.astype(np.float64) * 1e6).astype(np.int64)
            frames = self.framing(Events(t, (units.astype(np.int64),)), (UNITS,))
        except (OSError, ValueError) as error:
            raise DataError(f"recording {index} of {self.path} is damaged ({error}); unpack the file again") from error
        return frames, int(self.targets[index])

    def _open(self) -> Any:
        """The file, opened once by each process: HDF5 does not survive a fork."""
        if self._process != os.getpid():
            h5py = needs("h5py", "events", f"reading {self.path.name}")
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise DataError(
                    f"{self.path} is no readable HDF5 file ({error}); it may be missing or truncated: unpack it again"
                ) from error
            self._process = os.getpid()
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": -1, "_file": None}


def shd(
    root: Path, steps: int | None = None, by: str = "window", window: int | None = None, workers: int = 0
) -> MapData:
    """Spiking Heidelberg Digits, 20 classes: [T, 700], one frame for each `window` microseconds.

    steps: T for 1.4 s, the longest recordings; None (default): 100. by, window: frames otherwise than by windows of
    1.4 s / T, as `cifar10_dvs`. Recordings differ in length: batches of T steps pad them, and cut a longer one.
    What is padding is silence to the network: those steps are trained and judged as the others.
    """
    return _spikes("shd", root / "SHD", 20, steps, by, window, workers)


def ssc(
    root: Path, steps: int | None = None, by: str = "window", window: int | None = None, workers: int = 0
) -> MapData:
    """Spiking Speech Commands, 35 classes, its train and test files: as `shd`."""
    return _spikes("ssc", root / "SSC", 35, steps, by, window, workers)


def _spikes(
    name: str, folder: Path, classes: int, steps: int | None, by: str, window: int | None, workers: int
) -> MapData:
    if by == "window" and window is None:
        steps = 100 if steps is None else steps
        positive("steps", steps)
        window = -(-LONGEST // steps)
    framing = Framing.of(by, steps, window)
    train, test = (Spikes(folder / f"{name}_{split}.h5", classes, framing) for split in ("train", "test"))
    return MapData(name, train, test, classes, (UNITS,), sequence=True, steps=framing.steps, workers=workers)
