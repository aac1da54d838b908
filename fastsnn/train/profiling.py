"""Where the time of a training step goes."""

from __future__ import annotations

from itertools import islice

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as recording

from .experiment import Experiment

ROWS = 20


def profile(experiment: Experiment, batches: int = 3) -> str:
    """A table of the operations that take most of a training batch, after one that is not counted. The run's weights
    move; nothing is written."""
    activities = [ProfilerActivity.CPU]
    if torch.device(experiment.config.device).type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    taken = islice(experiment.train_batches(), batches + 1)
    experiment.trainer.train_batch(*next(taken))
    seen = 0
    with recording(activities=activities) as recorded:
        for x, y in taken:
            experiment.trainer.train_batch(x, y)
            seen += 1
    by = "self_cpu_time_total" if len(activities) == 1 else "self_cuda_time_total"
    table = recorded.key_averages().table(sort_by=by, row_limit=ROWS)
    return f"{seen} batches of {experiment.config.batch_size} samples, T = {experiment.config.steps}\n{table}"
