"""Layers: neurons, traced spikes, weight-standardised synapses, and the state of a network."""

from .attention import SECA
from .binary import BinaryConv2d, BinaryLinear
from .empf import EMPF, EMPFState
from .lif import LIF
from .state import detach, load_states, reset, states
from .stateful import Stateful
from .traced import TracedSpikes, TraceError, plain
from .weights import Scale, WSConv2d, WSLinear

__all__ = [
    "EMPF",
    "LIF",
    "SECA",
    "BinaryConv2d",
    "BinaryLinear",
    "EMPFState",
    "Scale",
    "Stateful",
    "TraceError",
    "TracedSpikes",
    "WSConv2d",
    "WSLinear",
    "detach",
    "load_states",
    "plain",
    "reset",
    "states",
]
