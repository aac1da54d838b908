"""Online training: MPDR, losses, update modes A and O, random back-propagation, and a small trainer."""

from ..ops.mpdr import MPDR
from .alignment import gradient_alignment
from .ftrl import FTRL
from .losses import loss, tet_loss
from .regularisers import regularisation
from .separable import SeparableShare
from .training import BatchResult, Trainer, evaluate, train_batch

__all__ = [
    "FTRL",
    "MPDR",
    "BatchResult",
    "SeparableShare",
    "Trainer",
    "evaluate",
    "gradient_alignment",
    "loss",
    "regularisation",
    "tet_loss",
    "train_batch",
]
