"""Recordings of event cameras as frames: CIFAR10-DVS, DVS128-Gesture, N-Caltech101."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from . import aedat
from .aedat import Events
from .checks import among, class_folders, positive
from .mapped import MapData
from .transforms import FRAMES, Augment, Normal, chosen, frame_transform

SENSOR = (2, 128, 128)  # polarity, y, x of a DVS128
BY = ("count", "time", "window")
GESTURES = 11
TRAIN_SHARE = 0.9  # of each class, the first files by name, where a set is published without a split


@dataclass(frozen=True)
class Framing:
    """How events become frames, each event in one of them.

    by: "count", `value` frames of as many events each; "time", `value` frames of as long a time each; "window", one
    frame for each `value` microseconds, as many as the recording has.
    """

    by: str
    value: int

    @classmethod
    def of(cls, by: str, steps: int | None, window: int | None) -> Framing:
        """Raises DataError for values that do not fit together."""
        among("by", by, BY)
        name, value = ("window", window) if by == "window" else ("steps", steps)
        if value is None:
            raise DataError(f"{name} is None; frames by {by} need it")
        positive(name, value)
        if by != "window" and window is not None:
            raise DataError(f"window is {window}; it is of by='window', leave it out or use that in place of {by!r}")
        return cls(by, value)

    @property
    def steps(self) -> int | None:
        """T, where every recording has it."""
        return None if self.by == "window" else self.value

    def __call__(self, events: Events, shape: tuple[int, ...]) -> Tensor:
        """Counts [T, *shape]. Raises ValueError for events outside of shape."""
        t = events.t
        if self.by == "count":
            frame = np.empty_like(t)
            frame[t.argsort(kind="stable")] = np.arange(len(t)) * self.value // max(len(t), 1)
        elif self.by == "time":
            frame = t * self.value // (t.max(initial=0) + 1)
        else:
            frame = t // self.value
        frames = self.steps or int(frame.max(initial=0)) + 1
        where = np.ravel_multi_index((frame, *events.where), (frames, *shape))
        counts = np.bincount(where, minlength=frames * int(np.prod(shape)))
        return torch.from_numpy(counts).float().view(frames, *shape)


@dataclass(frozen=True)
class Recordings(Dataset[tuple[Tensor, int]]):
    """Frames [T, *] of recordings; read: one each, that gives its events; shape: of a sensor's frame."""

    read: list[Callable[[], Events]]
    targets: list[int]
    shape: tuple[int, ...]
    framing: Framing
    transform: Any

    def __len__(self) -> int:
        return len(self.read)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        events = self.read[index]()
        try:
            frames = self.framing(events, self.shape)
        except ValueError as error:
            raise DataError(
                f"recording {index} ({self.read[index]}) has events outside of its sensor {list(self.shape)} ({error})"
            ) from error
        return self.transform(frames), self.targets[index]


Listed = list[tuple[Callable[[], Events], int]]


def cifar10_dvs(
    root: Path,
    steps: int | None = 10,
    by: str = "count",
    window: int | None = None,
    size: int = 48,
    augment: Augment = ("crop",),
    normal: Normal | None = None,
    workers: int = 0,
) -> MapData:
    """CIFAR10-DVS: [T, 2, size, size], T = 10 frames of as many events and cropped as in Xiao et al. 2022 unless told
    otherwise; the first 900 recordings of each class train and the last 100 test.

    augment "nda": as in Li et al. 2022. normal: means and standard deviations of the two channels.
    """
    listed = _class_files(root / "CIFAR10DVS", 10, ".aedat", aedat.check_aedat2, aedat.read_aedat2)
    return _frames("cifar10-dvs", *_split(listed), 10, SENSOR, steps, by, window, size, augment, normal, workers)


def dvs128_gesture(
    root: Path,
    steps: int | None = 20,
    by: str = "count",
    window: int | None = None,
    size: int = 128,
    augment: Augment = (),
    normal: Normal | None = None,
    workers: int = 0,
) -> MapData:
    """DVS128-Gesture: [T, 2, size, size], T = 20 frames of as many events as in Xiao et al. 2022 unless told otherwise.

    Read from the published recordings (1,176 train, 288 test), or from tonic's cuts of them (1,077 and 264).
    """
    folder = root / "DVSGesture"
    published = folder / "DvsGesture"
    if published.is_dir():
        train, test = (_gestures(published, published / f"trials_to_{split}.txt") for split in ("train", "test"))
    else:
        train, test = (_gesture_cuts(folder / f"ibmGesture{split}") for split in ("Train", "Test"))
    return _frames("dvs128-gesture", train, test, GESTURES, SENSOR, steps, by, window, size, augment, normal, workers)


def n_caltech101(
    root: Path,
    steps: int | None = 10,
    by: str = "count",
    window: int | None = None,
    size: int = 48,
    augment: Augment = (),
    normal: Normal | None = None,
    workers: int = 0,
) -> MapData:
    """N-Caltech101: [T, 2, size, size], T = 10 frames of as many events unless told otherwise, the sensor's 180x240
    pixels resized; of each class the first nine tenths of the recordings train and the others test.

    Labels are indices of the class folders' sorted names. augment {"nda": 15}: as in Li et al. 2022.
    """
    listed = _class_files(root / "NCALTECH101" / "Caltech101", 101, ".bin", aedat.check_bin, aedat.read_bin)
    sensor = (2, 180, 240)
    return _frames("n-caltech101", *_split(listed), 101, sensor, steps, by, window, size, augment, normal, workers)


def _frames(
    name: str,
    train: Listed,
    test: Listed,
    classes: int,
    sensor: tuple[int, int, int],
    steps: int | None,
    by: str,
    window: int | None,
    size: int,
    augment: Augment,
    normal: Normal | None,
    workers: int,
) -> MapData:
    positive("size", size)
    framing = Framing.of(by, steps, window)
    values = chosen(augment, FRAMES)

    def recordings(listed: Listed, augment: dict[str, Any]) -> Recordings:
        transform = frame_transform(augment, sensor[1:], size, normal, framing.steps)
        return Recordings([read for read, _ in listed], [y for _, y in listed], sensor, framing, transform)

    trained, tested = recordings(train, values), recordings(test, {})
    shape = (2, size, size)
    return MapData(name, trained, tested, classes, shape, sequence=True, steps=framing.steps, workers=workers)


def _class_files(
    folder: Path, classes: int, suffix: str, check: Callable[[Path], None], read: Callable[[Path], Events]
) -> list[Listed]:
    """The recordings of each class folder, by name. Raises DataError for damaged or too few ones."""
    listed: list[Listed] = []
    for label, name in enumerate(class_folders(folder, classes)):
        files = sorted((folder / name).glob(f"*{suffix}"))
        if len(files) < 2:
            raise DataError(f"{folder / name} has {len(files)} recordings (*{suffix}); each class needs two or more")
        for path in files:
            check(path)
        listed.append([(partial(read, path), label) for path in files])
    return listed


def _split(classes: list[Listed]) -> tuple[Listed, Listed]:
    """TRAIN_SHARE of each class, and the others."""
    cuts = [min(round(TRAIN_SHARE * len(files)), len(files) - 1) for files in classes]
    train = [one for files, cut in zip(classes, cuts, strict=True) for one in files[:cut]]
    return train, [one for files, cut in zip(classes, cuts, strict=True) for one in files[cut:]]


def _gestures(folder: Path, trials: Path) -> Listed:
    """The gestures of the recordings that `trials` names, cut where their tables of labels say."""
    listed: Listed = []
    for name in _lines(trials):
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing; {trials.name} names it: unpack the archive again")
        aedat.check_aedat3(path)
        table = path.with_name(f"{path.stem}_labels.csv")
        for row in _lines(table)[1:]:
            try:
                label, begin, end = (int(value) for value in row.split(","))
            except ValueError as error:
                raise DataError(f"{table} has the line {row!r}; expected class, start and end") from error
            if not 1 <= label <= GESTURES:
                raise DataError(f"{table} has class {label}; DVS128-Gesture has classes 1 to {GESTURES}")
            listed.append((partial(aedat.read_aedat3, path, begin, end), label - 1))
    return _some(listed, trials)


def _gesture_cuts(folder: Path) -> Listed:
    listed: Listed = []
    for path in sorted(folder.glob("user*_*/*.npy")):
        if not (path.stem.isdigit() and int(path.stem) < GESTURES):
            raise DataError(f"{path} is not named after a class; names are 0.npy to {GESTURES - 1}.npy")
        aedat.check_cut(path)
        listed.append((partial(aedat.read_cut, path), int(path.stem)))
    return _some(listed, folder)


def _some(listed: Listed, source: Path) -> Listed:
    if not listed:
        raise DataError(f"{source} has no recordings; unpack the archive again")
    return listed


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); unpack the archive again") from error
