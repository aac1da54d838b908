"""`fastsnn.train.experiment`, by its name of 0.1."""

import sys

from .train import experiment

sys.modules[__name__] = experiment
