"""All launches, as a native core has them (fastsnn/_cpu.pyi), with their operands checked."""

from . import launch, launch_binary, launch_mpdr, launch_osr, launch_ots
from .launch import INTERPRETED, LifParams, rules
from .operands import checked

binarize_backward = checked(launch_binary.binarize_backward)
binarize_forward = checked(launch_binary.binarize_forward)
empf_backward = checked(launch.empf_backward)
empf_forward = checked(launch.empf_forward)
empf_norm_backward = checked(launch.empf_norm_backward)
empf_norm_forward = checked(launch.empf_norm_forward)
empf_norm_sums = checked(launch.empf_norm_sums)
empf_potential = checked(launch.empf_potential)
lif_backward = checked(launch.lif_backward)
lif_forward = checked(launch.lif_forward)
mpdr_backward = checked(launch_mpdr.mpdr_backward)
mpdr_forward = checked(launch_mpdr.mpdr_forward)
osr_forward = checked(launch_osr.osr_forward)
osr_gradient = checked(launch_osr.osr_gradient)
osr_lif_forward = checked(launch_osr.osr_lif_forward)
osr_lif_reduce = checked(launch_osr.osr_lif_reduce)
osr_reduce = checked(launch_osr.osr_reduce)
ots_backward = checked(launch_ots.ots_backward)
ots_charge = checked(launch_ots.ots_charge)
ots_fire = checked(launch_ots.ots_fire)
packed_product = checked(launch_binary.packed_product)
standardize_backward = checked(launch.standardize_backward)
standardize_forward = checked(launch.standardize_forward)

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
    "rules",
    "standardize_backward",
    "standardize_forward",
]
