"""Encodings of static input, and the data sets that ship in packages."""

from .digits import DATASETS, Dataset, load
from .encoding import direct, poisson

__all__ = ["DATASETS", "Dataset", "direct", "load", "poisson"]
