"""Triton kernels, installed as `fastsnn._triton`; `core` has what a native core has (fastsnn/_cpu.pyi)."""
