"""Every operation with explicit state."""

from .ops.lif import LIFResult, lif_sequence, lif_step
from .ops.standardize import standardize
from .ops.synapse import conv as traced_conv
from .ops.synapse import linear as traced_linear

__all__ = ["LIFResult", "lif_sequence", "lif_step", "standardize", "traced_conv", "traced_linear"]
