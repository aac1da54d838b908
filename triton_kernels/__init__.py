"""Triton kernels, installed as `fastsnn._triton`."""
