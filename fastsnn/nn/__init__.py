"""Layers: neurons, traced spikes, weight-standardised synapses, and the state of a network."""

from .attention import SECA
from .binary import BinaryConv2d, BinaryLinear
from .convert import convert_batchnorm, fold
from .empf import EMPF, EMPFState
from .lif import LIF
from .osr import OSRLIF, OSR1d, OSR2d, OSR3d
from .recompute import checkpoint
from .state import Stateful, detach, load_states, reset, states
from .traced import TracedSpikes, TraceError, UntracedCurrent, plain
from .weights import Scale, WSConv2d, WSLinear

__all__ = [
    "EMPF",
    "LIF",
    "OSRLIF",
    "SECA",
    "BinaryConv2d",
    "BinaryLinear",
    "EMPFState",
    "OSR1d",
    "OSR2d",
    "OSR3d",
    "Scale",
    "Stateful",
    "TraceError",
    "TracedSpikes",
    "UntracedCurrent",
    "WSConv2d",
    "WSLinear",
    "checkpoint",
    "convert_batchnorm",
    "detach",
    "fold",
    "load_states",
    "plain",
    "reset",
    "states",
]
