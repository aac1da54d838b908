"""The registry of timed cases: which work, by which providers, on which inputs.

Every provider of a case does the same work on the same tensors. What `truth` (the plain PyTorch reference)
returns after a few calls is the parity gate that each of them must pass before it is timed.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import fastsnn
from fastsnn.nn import plain
from fastsnn.ops.types import EMPTY, LIFParams
from fastsnn.reference import lif

T = 16
OTTT_BYTES = 24  # a neuron and step in float32: x, u, a in; s, u, a out


@dataclass(frozen=True)
class Workload:
    """One provider's work on one input, its state carried from call to call as a user carries it.

    forward: builds a graph and returns its output. grad: the gradient of that output. leaves: the input and
    the parameters, their gradients dropped after each backward. state: the tensors that live between calls.
    """

    forward: Callable[[], Tensor]
    grad: Tensor | None = None
    leaves: tuple[Tensor, ...] = ()
    state: Callable[[], dict[str, Tensor]] = dict
    moved_bytes: int = 0

    def backward(self, out: Tensor) -> None:
        out.backward(self.grad)
        for leaf in self.leaves:
            leaf.grad = None

    def full(self) -> None:
        self.backward(self.forward())

    def outcome(self) -> dict[str, Tensor]:
        """Output, gradients and state of the third call: what the parity gate compares."""
        self.full()
        self.full()
        out = self.forward()
        out.backward(self.grad)
        gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(self.leaves)}
        found = {"output": plain(out).detach(), **gradients, **self.state()}
        for leaf in self.leaves:
            leaf.grad = None
        return {name: tensor.clone() for name, tensor in found.items()}


Build = Callable[[Tensor, Tensor], Workload]


def _trained(
    call: Callable[[Tensor], Tensor],
    x: Tensor,
    g: Tensor,
    parameters: Iterable[Tensor] = (),
    state: Callable[[], dict[str, Tensor]] = dict,
) -> Workload:
    x = x.detach().requires_grad_()
    return Workload(lambda: call(x), g, (x, *parameters), state)


def _tensors(named: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def product(make: Callable[[], nn.Module]) -> Build:
    """A fastsnn network with one neuron layer; in step mode 'm' every call is a new sequence."""

    def build(x: Tensor, g: Tensor) -> Workload:
        net = make()
        neuron = next(module for module in net.modules() if isinstance(module, fastsnn.LIF))

        def sequence(x: Tensor) -> Tensor:
            neuron.reset()
            return net(x)

        call = sequence if neuron.step_mode == "m" else net
        return _trained(call, x, g, net.parameters(), lambda: _tensors(neuron.state._asdict()))

    return build


def reference(make: Callable[[], nn.Module]) -> Build:
    """The same network on fastsnn's plain PyTorch backend."""

    def build(x: Tensor, g: Tensor) -> Workload:
        fused = product(make)(x, g)

        def forward() -> Tensor:
            with fastsnn.use_backend("reference"):
                return fused.forward()

        return Workload(forward, g, fused.leaves, fused.state)

    return build


def compiled(params: LIFParams) -> Build:
    """The reference step of an online rule, fused by torch.compile; its state is carried detached."""

    def step(x: Tensor, state: Any) -> Any:
        _, u, _, trace, ratio = lif.step(params, x, state)
        after = EMPTY._replace(potential=u, trace=trace, ratio=ratio)
        return params.surrogate(u - params.threshold), after.map(Tensor.detach)

    def build(x: Tensor, g: Tensor) -> Workload:
        # another size is another function, with no guards of the former
        torch.compiler.reset()
        fused = torch.compile(step, fullgraph=True, dynamic=False)
        state = EMPTY._replace(potential=lif.initial_v(params, x), is_v=True)

        def call(x: Tensor) -> Tensor:
            nonlocal state
            # the first step has a graph of its own, which nobody times
            spikes, state = (step if state.is_v else fused)(x, state)
            return spikes

        return _trained(call, x, g, state=lambda: _tensors(state._asdict()))

    return build


def compiled_sequence(params: LIFParams) -> Build:
    """The reference's equations through time, all T steps in one graph of torch.compile."""

    def sequence(x: Tensor) -> Tensor:
        v, spikes = lif.initial_v(params, x[0]), []
        for x_t in x.unbind():
            u = lif.charge(params, v, x_t)
            s = params.surrogate(u - params.threshold)
            v = (1 - s) * u + s * params.v_reset
            spikes.append(s)
        return torch.stack(spikes)

    def build(x: Tensor, g: Tensor) -> Workload:
        # params caches its properties at first use, behind a lock that torch.compile cannot trace
        sequence(x[:1])
        return _trained(torch.compile(sequence, fullgraph=True, dynamic=False), x, g)

    return build


def spikingjelly_ottt(x: Tensor, g: Tensor) -> Workload:
    """OTTTLIFNode with its defaults, which are fastsnn.LIF.for_rule("ottt")'s."""
    from spikingjelly.activation_based.neuron import OTTTLIFNode

    node = OTTTLIFNode()
    return _trained(lambda x: node(x)[0], x, g, state=lambda: {"v": node.v, "trace": node.trace})


def spikingjelly_sltt(x: Tensor, g: Tensor) -> Workload:
    """SLTTLIFNode with the paper's soft reset, undecayed input and triangle."""
    from spikingjelly.activation_based.neuron import SLTTLIFNode
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    node = SLTTLIFNode(decay_input=False, v_reset=None, surrogate_function=PiecewiseQuadratic(alpha=1.0))
    return _trained(node, x, g, state=lambda: {"v": node.v})


def spikingjelly_bptt(x: Tensor, g: Tensor) -> Workload:
    """LIFNode with its defaults, which are fastsnn.LIF's, in step mode 'm'."""
    from spikingjelly.activation_based.neuron import LIFNode

    node = LIFNode(step_mode="m")

    def sequence(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return _trained(sequence, x, g, state=lambda: {"v": node.v})


def snntorch_bptt(x: Tensor, g: Tensor) -> Workload:
    """Leaky set to LIFNode's defaults: beta 1 - 1/tau, input over tau, reset to zero in the same step, slope 4."""
    from snntorch import Leaky
    from snntorch.surrogate import sigmoid

    node = Leaky(beta=0.5, spike_grad=sigmoid(slope=4), reset_mechanism="zero", reset_delay=False)

    def sequence(x: Tensor) -> Tensor:
        mem, spikes = torch.zeros_like(x[0]), []
        for x_t in (x / 2).unbind():
            spike, mem = node(x_t, mem)
            spikes.append(spike)
        return torch.stack(spikes)

    return _trained(sequence, x, g)


def _conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(64, 128, 3, padding=1)


def spikingjelly_conv(x: Tensor, g: Tensor) -> Workload:
    """OTTTSequential, which runs the convolution on the spikes and again on the trace."""
    from spikingjelly.activation_based.layer import OTTTSequential
    from spikingjelly.activation_based.neuron import OTTTLIFNode

    net = OTTTSequential(OTTTLIFNode(), _conv())
    return _trained(net, x, g, net.parameters(), lambda: {"v": net[0].v, "trace": net[0].trace})


def autograd_floor(x: Tensor, g: Tensor) -> Workload:
    """`x * 1.0`: what any differentiable PyTorch operation pays."""
    return _trained(lambda x: x * 1.0, x, g)


def fused_step(x: Tensor, g: Tensor) -> Workload:
    """OTTT step forward, with the bytes it reads and writes."""
    layer = product(lambda: fastsnn.LIF.for_rule("ottt"))(x, g)
    return Workload(layer.forward, g, layer.leaves, layer.state, OTTT_BYTES * x.numel())


class Steps(Workload):
    """Optimizer steps: forward is one, on gradients that stay; its output is the weights."""

    def full(self) -> None:
        self.forward()

    def outcome(self) -> dict[str, Tensor]:
        self.full()
        self.full()
        return {"output": self.forward().clone()}


SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9}
STGR: dict[str, Any] = {"lam": 0.006, "gam": 0.5}
STGR_EPOCH = 5  # rho < 1: all of it moves


def resnet18(width: int) -> list[tuple[int, ...]]:
    """Shapes of the parameters of a CIFAR ResNet-18 of that width (64: 11,173,962 in all)."""
    channels, shapes = width, [(width, 3, 3, 3), (width,), (width,)]
    for out in (width, width, 2 * width, 2 * width, 4 * width, 4 * width, 8 * width, 8 * width):
        shapes += [(out, channels, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
        shapes += [(out, channels, 1, 1), (out,), (out,)] if out != channels else []
        channels = out
    return [*shapes, (10, channels), (10,)]


def _parameters(x: Tensor, g: Tensor) -> list[nn.Parameter]:
    """x cut into the parameters of a ResNet-18, with gradients from g."""
    shapes = next(shapes for shapes in map(resnet18, (4, 64)) if sum(map(math.prod, shapes)) == len(x))
    sizes = [math.prod(shape) for shape in shapes]
    parameters = []
    for shape, w, own in zip(shapes, x.split(sizes), g.split(sizes), strict=True):
        parameters.append(nn.Parameter(w.clone().view(shape)))
        parameters[-1].grad = own.clone().view(shape)
    return parameters


def sgd(x: Tensor, g: Tensor) -> Workload:
    """torch's SGD with momentum, as it comes."""
    parameters = _parameters(x, g)
    optimizer = torch.optim.SGD(parameters, **SGD)

    def step() -> Tensor:
        optimizer.step()
        return parameters[0].detach()

    return Steps(step)


def stgr(x: Tensor, g: Tensor) -> Workload:
    """STGR around the same."""
    parameters = _parameters(x, g)
    optimizer = fastsnn.optim.STGR(torch.optim.SGD(parameters, **SGD), **STGR)
    optimizer.epoch = STGR_EPOCH

    def step() -> Tensor:
        optimizer.step()
        return parameters[0].detach()

    return Steps(step)


def stgr_formulas(x: Tensor, g: Tensor) -> Workload:
    """SPEC section 7 in plain operations, on the first parameter."""
    first = _parameters(x, g)[0]
    w, own = first.detach(), torch.as_tensor(first.grad)
    average, previous, buffer = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
    kept = fastsnn.optim.rho(STGR_EPOCH)

    def step() -> Tensor:
        nonlocal w, average, previous, buffer
        d = own + STGR["lam"] * (w - average) + STGR["gam"] * previous
        buffer = SGD["momentum"] * buffer + d
        w = w - SGD["lr"] * buffer
        average, previous = kept * average + (1 - kept) * w, own
        return w

    return Steps(step)


def copy(moved_bytes: int) -> Build:
    """torch's copy_ that reads and writes `moved_bytes` a neuron in all."""

    def build(x: Tensor, g: Tensor) -> Workload:
        source = torch.ones(moved_bytes // 8 * x.numel())
        target = torch.zeros_like(source)
        return Workload(lambda: target.copy_(source), moved_bytes=moved_bytes * x.numel())

    return build


def missing(package: str) -> str | None:
    """What keeps `package` from running here, or None."""
    if package == "torch" and not shutil.which(os.environ.get("CXX", "g++")):
        return "torch.compile needs a C++ compiler"
    if package and find_spec(package) is None:
        return f"{package} is not installed"
    return None


def release(package: str) -> str:
    """'name version' of a distribution, '' for none."""
    return f"{package} {version(package)}" if package else ""


@dataclass(frozen=True)
class Provider:
    """Who does the work. package: the distribution it needs beside fastsnn. gated: whether its numbers are compared."""

    name: str
    build: Build
    package: str = ""
    gated: bool = True


@dataclass(frozen=True)
class Case:
    """One benchmark. shape: of x, from a size; output: of g, where it is another. tolerance: of the gate,
    relative to the largest value. note: what makes the work equal."""

    name: str
    kernel: str
    note: str
    truth: Build
    providers: tuple[Provider, ...]
    sizes: tuple[int, ...]
    quick_sizes: tuple[int, ...]
    shape: Callable[[int], tuple[int, ...]] = lambda size: (size,)
    output: Callable[[int], tuple[int, ...]] | None = None
    modes: tuple[str, ...] = ("forward", "backward", "full")
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    tolerance: float = 1e-6
    family: str = "lif"

    def inputs(self, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Current x and output gradient g. Odd multiples of 1/32 keep T steps exact, and off the threshold:
        equal rules fire equal spikes whatever the order of their operations."""
        rng = torch.Generator("cpu").manual_seed(0)
        current = torch.randn(self.shape(size), generator=rng, device="cpu").mul_(16).add_(12).round_()
        grad = torch.randn((self.output or self.shape)(size), generator=rng, device="cpu")
        device = torch.get_default_device()
        return current.mul_(2).add_(1).div_(32).to(device, dtype), grad.to(device, dtype)


STEP_SIZES = (8192, 2**18, 2**21, 2**23)


def _step_case(rule: str, params: LIFParams, *peers: Provider) -> Case:
    make = lambda: fastsnn.LIF.for_rule(rule)  # noqa: E731
    return Case(
        name=f"{rule}_step",
        kernel="lif_step",
        note=f"One step of fastsnn.LIF.for_rule({rule!r}), state carried.",
        truth=reference(make),
        providers=(
            Provider("fastsnn", product(make)),
            Provider("fastsnn-reference", reference(make)),
            Provider("torch.compile", compiled(params), "torch"),
            *peers,
        ),
        sizes=STEP_SIZES,
        quick_sizes=(1000, 4096),
    )


def _ottt_lif() -> fastsnn.LIF:
    return fastsnn.LIF.for_rule("ottt")


def _ottt_layer() -> nn.Sequential:
    return nn.Sequential(_ottt_lif(), _conv())


def _osbp_lif() -> fastsnn.LIF:
    return fastsnn.LIF.for_rule("sltt")


def _mpdr_lif() -> fastsnn.LIF:
    return fastsnn.LIF.for_rule("sltt", mpdr=fastsnn.online.MPDR.paper(propagate=True))


def _sequence_lif() -> fastsnn.LIF:
    return fastsnn.LIF(step_mode="m")


PAPER = {"decay_input": False, "v_reset": None}

_ALL = (
    _step_case(
        "ottt",
        LIFParams(**PAPER, rule="ottt"),
        Provider("spikingjelly", spikingjelly_ottt, "spikingjelly"),
    ),
    _step_case("ndot", LIFParams(**PAPER, rule="ndot")),
    _step_case(
        "sltt",
        LIFParams(**PAPER, rule="sltt", surrogate=fastsnn.surrogate.Triangle()),
        Provider("spikingjelly", spikingjelly_sltt, "spikingjelly"),
    ),
    Case(
        name="bptt_sequence",
        kernel="lif_sequence",
        note=f"T = {T} steps through time of LIF with SpikingJelly's defaults (tau 2, decayed input, reset to 0, "
        "sigmoid 4). snnTorch's Leaky is set to the same equations: beta 0.5, x/2, reset_mechanism 'zero' without "
        "delay, slope 4.",
        truth=reference(_sequence_lif),
        providers=(
            Provider("fastsnn", product(_sequence_lif)),
            Provider("torch.compile", compiled_sequence(LIFParams()), "torch"),
            Provider("spikingjelly", spikingjelly_bptt, "spikingjelly"),
            Provider("snntorch", snntorch_bptt, "snntorch"),
        ),
        sizes=(2**20,),
        quick_sizes=(1000,),
        shape=lambda size: (T, size),
        modes=("full",),
    ),
    Case(
        name="step_overhead",
        kernel="lif_step",
        note="One OTTT step of one neuron: the fixed cost of a call. autograd-floor is `x * 1.0`.",
        truth=reference(_ottt_lif),
        providers=(
            Provider("fastsnn", product(_ottt_lif)),
            Provider("spikingjelly", spikingjelly_ottt, "spikingjelly"),
            Provider("autograd-floor", autograd_floor, gated=False),
        ),
        sizes=(1,),
        quick_sizes=(1,),
    ),
    Case(
        name="ottt_conv_layer",
        kernel="traced_conv",
        note="OTTT neuron, then nn.Conv2d 64->128 3x3 pad 1, on [B, 64, 32, 32]; size is B.",
        truth=reference(_ottt_layer),
        providers=(
            Provider("fastsnn", product(_ottt_layer)),
            Provider("spikingjelly", spikingjelly_conv, "spikingjelly"),
        ),
        sizes=(16,),
        quick_sizes=(1,),
        shape=lambda size: (size, 64, 32, 32),
        output=lambda size: (size, 128, 32, 32),
    ),
    Case(
        name="step_bandwidth",
        kernel="lif_step",
        note=f"OTTT step forward at {OTTT_BYTES} B a neuron, against copy_ of as many bytes (copy) and of one tensor "
        "the size of the layer (copy-layer).",
        truth=reference(_ottt_lif),
        providers=(
            Provider("fastsnn", fused_step),
            Provider("copy", copy(OTTT_BYTES), gated=False),
            Provider("copy-layer", copy(8), gated=False),
        ),
        sizes=(2**23,),
        quick_sizes=(1000,),
        modes=("forward",),
    ),
    Case(
        name="mpdr_step",
        kernel="mpdr_step",
        note="One step of fastsnn.LIF.for_rule('sltt') with MPDR.paper(propagate=True); without: the neuron, plain.",
        truth=reference(_mpdr_lif),
        providers=(
            Provider("fastsnn", product(_mpdr_lif)),
            Provider("without", product(_osbp_lif), gated=False),
        ),
        sizes=STEP_SIZES,
        quick_sizes=(1000, 4096),
        family="mpdr",
    ),
    Case(
        name="stgr_step",
        kernel="stgr_sgd",
        note="SGD with momentum on the parameters of a CIFAR ResNet-18, size its width; sgd: torch.optim.SGD alone.",
        truth=stgr_formulas,
        providers=(Provider("fastsnn", stgr), Provider("sgd", sgd, gated=False)),
        sizes=(64,),
        quick_sizes=(4,),
        shape=lambda size: (sum(map(math.prod, resnet18(size))),),
        modes=("full",),
    ),
)

CASES: dict[str, Case] = {case.name: case for case in _ALL}
