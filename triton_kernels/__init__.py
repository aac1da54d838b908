"""Triton kernels, installed as `fastsnn._triton`; `launch` has what a native core has (fastsnn/_cpu.pyi)."""
