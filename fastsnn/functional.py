"""Every operation with explicit state."""

from .ops.binary import Packed, binarize, packed_conv2d, packed_linear
from .ops.empf import EMPFNormResult, EMPFResult, empf_norm_step, empf_sequence, empf_step
from .ops.lif import LIFResult, lif_sequence, lif_step
from .ops.standardize import standardize
from .ops.synapse import conv as traced_conv
from .ops.synapse import linear as traced_linear

__all__ = [
    "EMPFNormResult",
    "EMPFResult",
    "LIFResult",
    "Packed",
    "binarize",
    "empf_norm_step",
    "empf_sequence",
    "empf_step",
    "lif_sequence",
    "lif_step",
    "packed_conv2d",
    "packed_linear",
    "standardize",
    "traced_conv",
    "traced_linear",
]
