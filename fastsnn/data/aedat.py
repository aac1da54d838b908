"""Recordings of event cameras: AEDAT 2.0 and 3.1, the .bin of N-Caltech101, DVS128-Gesture's cuts in .npy.

tonic 1.7's readers of AEDAT 2 and 3 raise, and of a truncated file they would read what there is. Its AEDAT 4 is read
by a package that can crash Python on a damaged file: CIFAR10-DVS is read as it was published, in AEDAT 2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Array = NDArray[Any]
PACKET = struct.Struct(
    "<HHIIIIII"
)  # AEDAT 3.1: type, source, event size, time offset, overflows, capacity, number, ...
POLARITY = 1  # the packet type of pixel events
HEADER = 1 << 16  # bytes in which the comment lines at a file's start end


class Events(NamedTuple):
    """t in microseconds from the recording's start [n]; where: coordinates [n] of each axis of a step's shape, such as
    (polarity, y, x)."""

    t: Array
    where: tuple[Array, ...]


def read_aedat2(path: Path) -> Events:
    """AEDAT 2.0 of a DVS128, as CIFAR10-DVS is published: big-endian pairs of address and microseconds."""
    data = path.read_bytes()
    start = _header(path, data, b"#!AER-DAT2.0")
    _whole(path, len(data) - start, 8)
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).astype(np.int64).T
    dvs = address >> 31 == 0
    address, t = address[dvs], t[dvs]
    return _from_start(path, t, 1 - (address & 1), 127 - (address >> 1 & 0x7F), 127 - (address >> 8 & 0x7F))


def check_aedat2(path: Path) -> None:
    """Raises DataError where `read_aedat2` would for the file's header or length."""
    with path.open("rb") as file:
        start = _header(path, file.read(HEADER), b"#!AER-DAT2.0")
    size = path.stat().st_size - start
    _whole(path, size, 8)
    if not size:
        raise _no_events(path)


def read_aedat3(path: Path, begin: int, end: int) -> Events:
    """The pixel events of AEDAT 3.1 with begin <= t < end, microseconds as in DVS128-Gesture's tables of labels."""
    words = [np.empty((0, 2), np.int64)]
    with path.open("rb") as file:
        for overflows, capacity in _packets(path, file):
            packet = np.frombuffer(file.read(8 * capacity), "<u4").reshape(-1, 2).astype(np.int64)
            packet[:, 1] += overflows << 31
            t, valid = packet[:, 1], packet[:, 0] & 1 == 1
            words.append(packet[(t >= begin) & (t < end) & valid])
    address, t = np.concatenate(words).T
    return _from_start(path, t, address >> 1 & 1, address >> 2 & 0x7FFF, address >> 17)


def check_aedat3(path: Path) -> None:
    """Raises DataError where `read_aedat3` would for the file's header, packets or length."""
    with path.open("rb") as file:
        if not sum(capacity for _, capacity in _packets(path, file)):
            raise _no_events(path)


def _packets(path: Path, file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Overflows of time and number of events of each packet of pixel events, with the file at its first event."""
    size, place = path.stat().st_size, _header(path, file.read(HEADER), b"#!AER-DAT3.1")
    while place < size:
        file.seek(place)
        head = file.read(PACKET.size)
        if len(head) < PACKET.size:
            raise _truncated(path)
        kind, _, event, _, overflows, capacity, *_ = PACKET.unpack(head)
        place += PACKET.size + capacity * event
        if place > size:
            raise _truncated(path)
        if kind == POLARITY:
            if event != 8:
                raise DataError(f"{path} has pixel events of {event} bytes; AEDAT 3.1 has 8: it is damaged")
            yield overflows, capacity


def check_bin(path: Path) -> None:
    """Raises DataError where `read_bin` would for the file's length."""
    size = path.stat().st_size
    _whole(path, size, 5)
    if not size:
        raise _no_events(path)


def read_bin(path: Path) -> Events:
    """N-Caltech101's .bin: five bytes an event, of x, y, polarity (a bit) and microseconds (23). A y of 240 is no
    event: 2^13 microseconds more for those that follow."""
    check_bin(path)
    x, y, high, middle, low = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 5).astype(np.int64).T
    wrapped = y == 240
    t = ((high & 127) << 16 | middle << 8 | low) + (np.cumsum(wrapped) << 13)
    return _from_start(path, *(part[~wrapped] for part in (t, high >> 7, y, x)))


def read_cut(path: Path) -> Events:
    """tonic's DVS128-Gesture: an array [n, 4] of x, y, polarity and milliseconds."""
    events = _cut(path)
    if not (abs(events) < 2**40).all():
        raise DataError(f"{path} has values that are no coordinates or times; it is damaged: unpack it again")
    x, y, on, t = events.astype(np.int64).T
    return _from_start(path, t * 1000, on, y, x)


def check_cut(path: Path) -> None:
    """Raises DataError where `read_cut` would for the file's header or length."""
    if not len(_cut(path, mmap_mode="r")):
        raise _no_events(path)


def _cut(path: Path, **options: Any) -> Array:
    try:
        events = np.load(path, **options)  # refuses pickles
    except Exception as error:  # a damaged header can raise anything
        raise DataError(f"{path} is no readable array ({error}); it may be truncated: unpack it again") from error
    if events.ndim != 2 or events.shape[1] != 4 or events.dtype.kind not in "iuf":
        found = f"{events.dtype} {list(events.shape)}"
        raise DataError(f"{path} has an array of {found}; expected numbers [n, 4]: x, y, polarity and time")
    return events


def _header(path: Path, data: bytes, version: bytes) -> int:
    """Where the comment lines at the file's start end."""
    if not data.startswith(version):
        raise _foreign(path, version)
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise _truncated(path)
        line, start = data[start:end], end + 1
        if line.startswith(b"#!END-HEADER"):
            break
    return start


def _foreign(path: Path, version: bytes) -> DataError:
    return DataError(f"{path} does not start with {version.decode()}; it is another format's or damaged")


def _whole(path: Path, size: int, event: int) -> None:
    if size % event:
        raise _truncated(path, f": {size} bytes are not whole events of {event}")


def _truncated(path: Path, why: str = "") -> DataError:
    return DataError(f"{path} is truncated{why}; unpack it again")


def _no_events(path: Path) -> DataError:
    return DataError(f"{path} has no events; it may be truncated: unpack it again")


def _from_start(path: Path, t: Array, *where: Array) -> Events:
    if not len(t):
        raise _no_events(path)
    return Events(t - t.min(), where)
