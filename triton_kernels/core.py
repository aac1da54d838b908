"""All launches, as a native core has its kernels (fastsnn/_cpu.pyi), with their operands checked."""

from . import binary, empf, lif, osr, ots, standardize
from .launch import INTERPRETED, LifParams, rules
from .operands import checked, kernels

__all__ = ["INTERPRETED", "LifParams", "kernels", "rules"]

for _family in (binary, empf, lif, osr, ots, standardize):
    for _name in _family.LAUNCHES.keys() & kernels.keys():
        globals()[_name] = checked(_name, _family.LAUNCHES[_name])
