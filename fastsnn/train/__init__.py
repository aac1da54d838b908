"""What `fastsnn train` does: its configuration, the run and its folder, checkpoints, plots. Imports no torch."""
