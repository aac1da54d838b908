"""From a trained network to one for inference: membrane norms folded, weights packed, in memory and in a file."""

from .file import DeployError, load, read_header, save
from .fold import Folded, StepAffine, fold, fold_membrane_norm
from .packed import PackedConv2d, PackedLinear, pack
from .sizes import Sizes, sizes

__all__ = [
    "DeployError",
    "Folded",
    "PackedConv2d",
    "PackedLinear",
    "Sizes",
    "StepAffine",
    "fold",
    "fold_membrane_norm",
    "load",
    "pack",
    "read_header",
    "save",
    "sizes",
]
