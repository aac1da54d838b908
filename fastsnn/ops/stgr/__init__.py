"""STGR's step around SGD; `fastsnn.optim` is its entry."""
