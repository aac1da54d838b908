"""Layers: neurons, traced spikes, weight-standardised synapses, and the state of a network."""

from .binary import BinaryConv2d, BinaryLinear
from .lif import LIF
from .state import detach, load_states, reset, states
from .traced import TracedSpikes, TraceError, plain
from .weights import Scale, WSConv2d, WSLinear

__all__ = [
    "LIF",
    "BinaryConv2d",
    "BinaryLinear",
    "Scale",
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
