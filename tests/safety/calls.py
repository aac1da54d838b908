"""Calls of every binding and operator, recorded while the layers run."""

import contextlib
import types
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fastsnn
from fastsnn import functional as F
from fastsnn.deploy import pack
from fastsnn.online import MPDR
from fastsnn.rules import RULES

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def names_of(core, kernel):
    """What a kernel takes, in order."""
    return [declared.partition(": ")[0] for declared in core.kernels[kernel].split(", ")]


class Recorder:
    """A core that keeps every call before it makes it."""

    def __init__(self, core, calls):
        self._core, self._calls = core, calls

    def __getattr__(self, name):
        function = getattr(self._core, name)
        if not isinstance(function, types.BuiltinFunctionType | types.FunctionType):
            return function

        def record(*args, **given):
            if name in self._core.kernels:
                given |= zip(names_of(self._core, name), args, strict=False)
                self._calls.append((name, given))
                return function(**given)
            return function(*args, **given)

        return record


@contextlib.contextmanager
def recorded(kernels):
    """A list of the calls (name, arguments by name) that these kernels make of their core inside this context."""
    calls, cores = [], {family: family._core for family in kernels.values()}
    for family, core in cores.items():
        family._core = Recorder(core, calls)
    try:
        yield calls
    finally:
        for family, core in cores.items():
            family._core = core


class RecordedOperators(TorchDispatchMode):
    """A list of the calls (operator, arguments) of fastsnn's operators inside this context."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fastsnn":
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))


def _neurons(dtype, n, graph):
    for rule in RULES:
        for mpdr in (None, MPDR(0.2, 0.7, 0.01, propagate=not RULES[rule].online or graph)):
            for mode, shape in (("s", (n,)), ("m", (3, n))):
                neuron = fastsnn.LIF.for_rule(rule, step_mode=mode, dropout=0.3, mpdr=mpdr, store_v_seq=mode == "m")
                for _ in range(2):
                    x = torch.rand(shape, dtype=dtype, requires_grad=True)
                    loss = _sum(neuron(x))
                    (loss if neuron.mpdr_loss is None else loss + neuron.mpdr_loss.sum()).backward()
                    fastsnn.detach(neuron)
    for rule in ("sltt", "ottt"):
        neuron = fastsnn.LIF.for_rule(rule, threshold="ots")
        for _ in range(2):
            _sum(neuron(torch.rand(n, dtype=dtype, requires_grad=True))).backward()


def _sum(spikes):
    return getattr(spikes, "spikes", spikes).float().sum()


def _synapses(dtype):
    for scale in (True, False):
        F.binarize(torch.randn(5, 7, dtype=dtype, requires_grad=True), scale).sum().backward()
    weight, gain = torch.randn(5, 7, dtype=dtype, requires_grad=True), torch.ones(5, 1, dtype=dtype)
    F.standardize(weight, gain).sum().backward()
    if dtype == torch.float64:
        return
    with torch.no_grad():
        pack(fastsnn.BinaryLinear(40, 20).eval())(torch.rand(3, 40).to(dtype).float())
        conv = pack(fastsnn.BinaryConv2d(9, 18, 3, padding=1).eval())
        x = torch.rand(2, 9, 5, 4)
        conv(x), conv(x.contiguous(memory_format=torch.channels_last))


def _norms(dtype):
    for shape in ((4, 6), (4, 6, 5)):
        norm = fastsnn.OSR1d(6, 2)
        for _ in range(2):
            _sum(norm(torch.rand(shape, dtype=dtype, requires_grad=True))).backward()
        for rule in ("sltt", "ottt", "ndot"):
            fused = fastsnn.OSRLIF.for_rule(rule, 6, 2, dropout=0.3)
            for _ in range(2):
                _sum(fused(torch.rand(shape, dtype=dtype, requires_grad=True))).backward()
        fused = fastsnn.OSRLIF.for_rule("ottt", 6, 2, threshold="ots")
        for _ in range(2):
            _sum(fused(torch.rand(shape, dtype=dtype, requires_grad=True))).backward()
        with torch.no_grad():
            norm.eval()(torch.rand(shape, dtype=dtype))


def _empf(dtype):
    for version in ("I", "II", "III"):
        for shape in ((3, 4, 5), (3, 4, 5, 2)):
            layer = fastsnn.EMPF(2, version, channels=4)
            for _ in range(2):
                _sum(layer(torch.rand(shape, dtype=dtype, requires_grad=True))).backward()


def _stgr(dtype):
    if dtype in (torch.float32, torch.float64):
        p = torch.nn.Parameter(torch.randn(5, 7, dtype=dtype))
        optimizer = fastsnn.optim.STGR(torch.optim.SGD([p], 0.1, momentum=0.9))
        optimizer.epoch = 1  # from which on W_ema moves
        for _ in range(2):
            p.grad = torch.randn_like(p)
            optimizer.step()


def run_layers(dtype, n=37, stgr=True, graph=False):
    """Every family, forward and backward."""
    _neurons(dtype, n, graph)
    _synapses(dtype)
    _norms(dtype)
    _empf(dtype)
    if stgr:
        _stgr(dtype)


def of_core(kernels):
    """Calls of every binding that these kernels have. The backend that they are must be forced."""
    with recorded(kernels) as calls:
        for dtype in DTYPES:
            run_layers(dtype, stgr="stgr" in kernels)
    return calls


def of_operators():
    """Calls of every operator of torch.ops.fastsnn: what layers run inside a graph."""
    with mock.patch.object(torch.compiler, "is_compiling", return_value=True), RecordedOperators() as recording:
        for dtype in DTYPES[:2]:
            run_layers(dtype, stgr=False, graph=True)
    return recording.calls
