"""One call of a family's kernels on tensors as layers have them, outside autograd: what the autograd.Functions and the
registered operators both run."""
