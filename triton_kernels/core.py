"""All launches, as a native core has them (fastsnn/_cpu.pyi)."""

from .launch import (
    INTERPRETED,
    LifParams,
    empf_backward,
    empf_forward,
    empf_norm_backward,
    empf_norm_forward,
    empf_norm_sums,
    empf_potential,
    lif_backward,
    lif_forward,
    standardize_backward,
    standardize_forward,
)
from .launch_binary import binarize_backward, binarize_forward, packed_product
from .launch_mpdr import mpdr_backward, mpdr_forward
from .launch_osr import osr_forward, osr_gradient, osr_lif_forward, osr_lif_reduce, osr_reduce
from .launch_ots import ots_backward, ots_charge, ots_fire

__all__ = [
    "INTERPRETED",
    "LifParams",
    "binarize_backward",
    "binarize_forward",
    "empf_backward",
    "empf_forward",
    "empf_norm_backward",
    "empf_norm_forward",
    "empf_norm_sums",
    "empf_potential",
    "lif_backward",
    "lif_forward",
    "mpdr_backward",
    "mpdr_forward",
    "osr_forward",
    "osr_gradient",
    "osr_lif_forward",
    "osr_lif_reduce",
    "osr_reduce",
    "ots_backward",
    "ots_charge",
    "ots_fire",
    "packed_product",
    "standardize_backward",
    "standardize_forward",
]
