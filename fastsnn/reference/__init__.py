"""The truth: every operation in plain PyTorch, one file per family, written as the equations read."""
