"""Data sets by name (`create`, `list_data`), their augmentation and batches, and encodings of static input."""

from .cochlea import shd, ssc
from .digits import DATASETS, Dataset, load
from .encoding import direct, poisson
from .events import cifar10_dvs, dvs128_gesture, n_caltech101
from .images import cifar10, cifar100, fashion_mnist, imagenet, imagenet200
from .mapped import Batch, MapData, pad
from .registry import create, list_data, load_object
from .transforms import NDA, Cutout, RandomTemporalDelete

__all__ = [
    "DATASETS",
    "NDA",
    "Batch",
    "Cutout",
    "Dataset",
    "MapData",
    "RandomTemporalDelete",
    "cifar10",
    "cifar10_dvs",
    "cifar100",
    "create",
    "direct",
    "dvs128_gesture",
    "fashion_mnist",
    "imagenet",
    "imagenet200",
    "list_data",
    "load",
    "load_object",
    "n_caltech101",
    "pad",
    "poisson",
    "shd",
    "ssc",
]
