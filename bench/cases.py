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
from fastsnn.reference import lif
from fastsnn.types import LIFParams, LIFState, state_of

T = 16
OSR_CHANNELS = 128
OSR_STEPS = 1 << 30  # more than are timed: the running statistics stay as they are
OTTT_BYTES = 24  # a neuron and step in float32: x, u, a in; s, u, a out


@dataclass(frozen=True)
class Workload:
    """One provider's work on one input, its state carried from call to call as a user carries it.

    forward: builds a graph and returns its output. grad: the gradient of that output; None: there is no graph.
    leaves: the input and the parameters, their gradients dropped after each backward. state: the tensors that live
    between calls.
    """

    forward: Callable[[], Tensor]
    grad: Tensor | None = None
    leaves: tuple[Tensor, ...] = ()
    state: Callable[[], dict[str, Tensor]] = dict
    moved_bytes: int = 0

    def backward(self, out: Tensor) -> None:
        if self.grad is None:
            return
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
        if self.grad is not None:
            out.backward(self.grad)
        gradients = {f"gradient {i}": leaf.grad for i, leaf in enumerate(self.leaves)}
        found = {"output": plain(out).detach(), **gradients, **self.state()}
        for leaf in self.leaves:
            leaf.grad = None
        return {name: tensor.clone() for name, tensor in found.items()}


class Inference(Workload):
    """A forward alone, without gradient."""

    def outcome(self) -> dict[str, Tensor]:
        """What the parity gate compares."""
        return {"output": self.forward()}


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
        _, u, _, slots = lif.step(params, x, state)
        after = state_of(params.places, u, False, tuple(slots.values()), None)
        return params.surrogate(u - params.threshold), after.map(Tensor.detach)

    def build(x: Tensor, g: Tensor) -> Workload:
        # another size is another function, with no guards of the former
        torch.compiler.reset()
        fused = torch.compile(step, fullgraph=True, dynamic=False)
        state = LIFState(lif.initial_v(params, x), True)

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


def _renormalized() -> fastsnn.OSR2d:
    return fastsnn.OSR2d(OSR_CHANNELS, OSR_STEPS)


def _renormalized_lif() -> fastsnn.OSRLIF:
    return fastsnn.OSRLIF.for_rule("sltt", OSR_CHANNELS, OSR_STEPS)


def layer(make: Callable[[], nn.Module]) -> Build:
    """A layer without a neuron, in training."""

    def build(x: Tensor, g: Tensor) -> Workload:
        module = make()
        return _trained(module, x, g, module.parameters())

    return build


def on_reference(build: Build) -> Build:
    """The same workload on fastsnn's plain PyTorch backend."""

    def built(x: Tensor, g: Tensor) -> Workload:
        with fastsnn.use_backend("reference"):
            work = build(x, g)

        def forward() -> Tensor:
            with fastsnn.use_backend("reference"):
                return work.forward()

        return Workload(forward, g, work.leaves, work.state)

    return built


def spikingjelly_bn_lif(x: Tensor, g: Tensor) -> Workload:
    """BatchNorm2d, then LIFNode with the graph of the steps before cut, as online training runs them."""
    from spikingjelly.activation_based.neuron import LIFNode
    from spikingjelly.activation_based.surrogate import PiecewiseQuadratic

    node = LIFNode(decay_input=False, v_reset=None, surrogate_function=PiecewiseQuadratic(alpha=1.0), detach_reset=True)
    norm = nn.BatchNorm2d(OSR_CHANNELS)

    def step(x: Tensor) -> Tensor:
        node.detach()
        return node(norm(x))

    return _trained(step, x, g, norm.parameters())


def autograd_floor(x: Tensor, g: Tensor) -> Workload:
    """`x * 1.0`: what any differentiable PyTorch operation pays."""
    return _trained(lambda x: x * 1.0, x, g)


class _Idle(torch.autograd.Function):
    """Saves, allocates, computes nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.empty_like(x)


def function_floor(x: Tensor, g: Tensor) -> Workload:
    """What any torch.autograd.Function pays."""
    return _trained(_Idle.apply, x, g)


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
STGR: dict[str, Any] = {"lam": 1.0, "gam": 0.5, "a2": 0.006}
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
    """equations/rptt.md in plain operations, on the first parameter."""
    first = _parameters(x, g)[0]
    w, own = first.detach(), torch.as_tensor(first.grad)
    average, previous, buffer = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
    kept = fastsnn.optim.rho(STGR_EPOCH)

    def step() -> Tensor:
        nonlocal w, average, previous, buffer
        d = own + STGR["a2"] * (STGR["lam"] * (w - average) + STGR["gam"] * previous)
        buffer = SGD["momentum"] * buffer + d
        w = w - SGD["lr"] * buffer
        average, previous = kept * average + (1 - kept) * w, own
        return w

    return Steps(step)


def inference(make: Callable[[], nn.Module], packed: bool, share: float = 1.0) -> Build:
    """A binary layer in evaluation, packed or as float weights in torch's product; `share` of the spikes not zero."""

    def build(x: Tensor, g: Tensor) -> Workload:
        torch.manual_seed(0)
        layer = fastsnn.deploy.pack(make().eval()) if packed else _as_float(make())
        spikes = x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < share).to(x)
        return Inference(torch.no_grad()(lambda: layer(spikes)))

    return build


def _as_float(layer: Any) -> Callable[[Tensor], Tensor]:
    """torch's own layer with the binary weights."""
    weight = layer.binary_weight().detach()
    if isinstance(layer, nn.Linear):
        return lambda x: nn.functional.linear(x, weight, layer.bias)
    return lambda x: nn.functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding)


def copy(moved_bytes: int) -> Build:
    """torch's copy_ that reads and writes `moved_bytes` a neuron in all."""

    def build(x: Tensor, g: Tensor) -> Workload:
        source = torch.ones(moved_bytes // 8 * x.numel())
        target = torch.zeros_like(source)
        return Workload(lambda: target.copy_(source), moved_bytes=moved_bytes * x.numel())

    return build


def empf_parameters() -> tuple[nn.Parameter, nn.Parameter]:
    """Leak and threshold of one step."""
    return nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(1.0))


def _empf(step: Callable[..., Any]) -> Build:
    """Version I's step(x, v, leak, threshold) -> s, v, its v carried."""

    def build(x: Tensor, g: Tensor) -> Workload:
        learned, v = empf_parameters(), torch.zeros_like(x)

        def call(x: Tensor) -> Tensor:
            nonlocal v
            spikes, v = step(x, v, *learned)
            return spikes

        return _trained(call, x, g, learned, lambda: {"v": v})

    return build


def empf_fused(x: Tensor, v: Tensor, leak: Tensor, threshold: Tensor) -> Any:
    return fastsnn.functional.empf_step(x, v, leak=leak, threshold=threshold)


def empf_reference(x: Tensor, v: Tensor, leak: Tensor, threshold: Tensor) -> Any:
    with fastsnn.use_backend("reference"):
        return empf_fused(x, v, leak, threshold)


def empf_explicit(x: Tensor, v: Tensor, leak: Tensor, threshold: Tensor) -> Any:
    """the equations as one writes them in PyTorch."""
    m = leak * v + x
    s = (m - threshold) * (m >= threshold)
    return s, (m - s).detach()


def empf_compiled(x: Tensor, g: Tensor) -> Workload:
    torch.compiler.reset()
    return _empf(torch.compile(empf_explicit, fullgraph=True, dynamic=False))(x, g)


def empf_layer(version: str, at_once: bool) -> Build:
    """Inference of convolution and EM-PF neuron on [T, B, C, H, W]: all steps in one call, or one after another."""

    def build(x: Tensor, g: Tensor) -> Workload:
        torch.manual_seed(0)
        steps, conv = len(x), nn.Conv2d(x.shape[2], x.shape[2], 3, padding=1)
        neuron = fastsnn.EMPF(steps, version, step_mode="m" if at_once else "s").eval()

        @torch.no_grad()
        def call() -> Tensor:
            neuron.reset()
            if at_once:
                return neuron(conv(x.flatten(0, 1)).view(x.shape))
            return torch.stack([neuron(conv(x_t)) for x_t in x])

        return Workload(call)

    return build


def empf_training(backward_steps: int | None) -> Build:
    """A training batch of two residual blocks in mode A; at learning rate 0 the loss is the same for every provider."""

    def build(x: Tensor, g: Tensor) -> Workload:
        torch.manual_seed(0)
        steps, batch, channels = x.shape[:3]
        blocks = [fastsnn.models.EMPFBlock(channels, channels, steps) for _ in range(2)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
        net, y = nn.Sequential(*blocks, *head), torch.arange(batch) % 10
        optimizer = torch.optim.SGD(net.parameters(), 0.0)

        def call() -> Tensor:
            options = {"mode": "A", "backward_steps": backward_steps}
            return torch.tensor(fastsnn.online.train_batch(net, x, y, optimizer, **options).loss)

        return Workload(call)

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

    def inputs(self, size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Current x and output gradient g. Odd multiples of 1/32 keep T steps exact, and off the threshold:
        equal rules fire equal spikes whatever the order of their operations."""
        rng = torch.Generator().manual_seed(0)
        current = torch.randn(self.shape(size), generator=rng).mul_(16).add_(12).round_()
        grad = torch.randn((self.output or self.shape)(size), generator=rng)
        return current.mul_(2).add_(1).div_(32).to(dtype), grad.to(dtype)


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


def _packed_case(name: str, note: str, make: Callable[[], nn.Module], share: float = 1.0, **fields: Any) -> Case:
    return Case(
        name=name,
        kernel="packed_product",
        note=note,
        truth=inference(make, packed=False, share=share),
        providers=(
            Provider("fastsnn", inference(make, packed=True, share=share)),
            Provider("torch", inference(make, packed=False, share=share)),
        ),
        modes=("forward",),
        tolerance=1e-5,
        **fields,
    )


def _binary_linear() -> nn.Module:
    return fastsnn.BinaryLinear(4096, 4096)


def _binary_conv() -> nn.Module:
    return fastsnn.BinaryConv2d(256, 256, 3, padding=1)


_CONV_SIZES = {"sizes": (1, 32), "quick_sizes": (1,), "shape": lambda size: (size, 256, 16, 16)}

PAPER = {"decay_input": False, "v_reset": None}

_OSR_NOTE = (
    "On [B, 128, 32, 32]; size is B. {}fastsnn accumulates the step's statistics too; BatchNorm2d normalises with the "
    "batch's own, so its numbers are not compared."
)

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
        note="One OTTT step of one neuron: the fixed cost of a call. autograd-floor is `x * 1.0`, function-floor an "
        "autograd.Function that computes nothing.",
        truth=reference(_ottt_lif),
        providers=(
            Provider("fastsnn", product(_ottt_lif)),
            Provider("spikingjelly", spikingjelly_ottt, "spikingjelly"),
            Provider("autograd-floor", autograd_floor, gated=False),
            Provider("function-floor", function_floor, gated=False),
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
        name="empf_step",
        kernel="empf_step",
        note="One step of EM-PF version I, learnable leak and threshold, v carried detached; torch and torch.compile "
        "run the equations as written. For the backward torch.compile keeps the comparison, which its C++ stores a "
        "bool at a time.",
        truth=_empf(empf_reference),
        providers=(
            Provider("fastsnn", _empf(empf_fused)),
            Provider("torch", _empf(empf_explicit)),
            Provider("torch.compile", empf_compiled, "torch"),
        ),
        sizes=(8192, 2**18, 2**21),
        quick_sizes=(1000,),
        tolerance=1e-4,  # float32 sums of torch.compile over all neurons
    ),
    Case(
        name="empf_parallel",
        kernel="empf_sequence",
        note="Inference of Conv2d 64->64 3x3 and an EM-PF neuron, T = 4, on [T, B, 64, 16, 16]: all steps at once with "
        "version III (fastsnn), step by step with versions III and I (whose spikes differ); size is B.",
        truth=empf_layer("III", False),
        providers=(
            Provider("fastsnn", empf_layer("III", True)),
            Provider("steps-III", empf_layer("III", False)),
            Provider("steps-I", empf_layer("I", False), gated=False),
        ),
        sizes=(1, 16),
        quick_sizes=(1,),
        shape=lambda size: (4, size, 64, 16, 16),
        modes=("forward",),
        tolerance=1e-5,
    ),
    Case(
        name="empf_random_back_propagation",
        kernel="train_batch",
        note="A training batch of two EM-PF residual blocks (64 channels, 16x16), T = 4, mode A: one step drawn for "
        "the backward (fastsnn) or all; size is B.",
        truth=empf_training(None),
        providers=(Provider("fastsnn", empf_training(1)), Provider("all-steps", empf_training(None))),
        sizes=(16,),
        quick_sizes=(2,),
        shape=lambda size: (4, size, 64, 16, 16),
        modes=("forward",),
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
        note="One step of fastsnn.LIF.for_rule('sltt') with MPDR.paper(propagate=True); without: the neuron alone.",
        truth=reference(_mpdr_lif),
        providers=(
            Provider("fastsnn", product(_mpdr_lif)),
            Provider("without", product(_osbp_lif), gated=False),
        ),
        sizes=STEP_SIZES,
        quick_sizes=(1000, 4096),
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
    _packed_case(
        "packed_linear",
        "BinaryLinear 4096 to 4096, 1 bit a weight, against F.linear with these weights in float32; size is the batch.",
        _binary_linear,
        sizes=(1, 64),
        quick_sizes=(1,),
        shape=lambda size: (size, 4096),
    ),
    _packed_case(
        "packed_conv",
        "BinaryConv2d 256 to 256, 3x3, 16x16, against conv2d (oneDNN) with these weights in float32; size: the batch.",
        _binary_conv,
        **_CONV_SIZES,
    ),
    _packed_case(
        "packed_conv_sparse",
        "packed_conv with 75 % of the spikes zero, at random.",
        _binary_conv,
        share=0.25,
        **_CONV_SIZES,
    ),
    Case(
        name="osr_step",
        kernel="osr",
        note=_OSR_NOTE.format("One training step of OSR2d against nn.BatchNorm2d. "),
        truth=on_reference(layer(_renormalized)),
        providers=(
            Provider("fastsnn", layer(_renormalized)),
            Provider("batchnorm", layer(lambda: nn.BatchNorm2d(OSR_CHANNELS)), gated=False),
        ),
        sizes=(64,),
        quick_sizes=(1,),
        shape=lambda size: (size, OSR_CHANNELS, 32, 32),
        tolerance=1e-5,
    ),
    Case(
        name="osr_lif_step",
        kernel="osr",
        note=_OSR_NOTE.format("One training step of OSRLIF (sltt) against nn.BatchNorm2d and SpikingJelly's LIFNode. "),
        truth=on_reference(product(_renormalized_lif)),
        providers=(
            Provider("fastsnn", product(_renormalized_lif)),
            Provider("batchnorm+spikingjelly", spikingjelly_bn_lif, "spikingjelly", gated=False),
        ),
        sizes=(64,),
        quick_sizes=(1,),
        shape=lambda size: (size, OSR_CHANNELS, 32, 32),
        tolerance=1e-5,
    ),
)

CASES: dict[str, Case] = {case.name: case for case in _ALL}
