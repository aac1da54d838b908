"""All launches, as a native core has its kernels (fastsnn/_cpu.pyi), with their operands checked."""

from . import launch, launch_binary, launch_mpdr, launch_osr, launch_ots
from .launch import INTERPRETED, LifParams, rules
from .operands import checked, kernels

__all__ = ["INTERPRETED", "LifParams", "kernels", "rules"]

for _module in (launch, launch_binary, launch_mpdr, launch_osr, launch_ots):
    for _name in kernels.keys() & vars(_module).keys():
        globals()[_name] = checked(_name, getattr(_module, _name))
