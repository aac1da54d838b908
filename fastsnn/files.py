"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import RunError


def write_whole(path: Path, write: Callable[[Any], None]) -> None:
    """Write beside `path` and move into place: a full disk or a crash leaves the old file as it was. What a crash left
    beside it goes.

    Raises RunError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        for leftover in path.parent.glob(f".{path.name}.*"):
            if not _running(leftover.suffix[1:]):
                leftover.unlink(missing_ok=True)
    except BaseException as error:
        if temporary.exists():
            temporary.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise RunError(f"could not write {path} ({reason}); the file from before, if any, is unchanged") from error
        raise


def _running(process: str) -> bool:
    """Whether `process` is the number of one that runs."""
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except OSError:
        return True  # another user's
    return True


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON text, as `write_whole`."""
    write_whole(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))
