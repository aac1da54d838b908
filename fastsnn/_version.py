"""The installed version."""

import importlib.metadata
import pathlib

try:
    __version__ = importlib.metadata.version(__package__)
except importlib.metadata.PackageNotFoundError:
    raise ImportError(f"fastsnn is not installed: run `pip install .` in {pathlib.Path(__file__).parents[1]}") from None
