"""Random programs around traced neurons, against the papers' formulation with two passes written out.

100 programs, the same in every run; FASTSNN_PROGRAMS=2000 in the environment runs as many, drawn at random.
"""

import os
from types import SimpleNamespace

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fastsnn
from fastsnn import TraceError

from ..cases import assert_same
from .two_passes import Passes, added, passes

PROGRAMS = int(os.environ.get("FASTSNN_PROGRAMS", "100"))
STEPS = 3
NEURON = {"v_threshold": 0.3, "tau": 1.7, "surrogate_function": fastsnn.surrogate.Sigmoid(4.0)}


class Turned(torch.autograd.Function):
    """Gradient reversal, of a copy."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return -2 * g


class Same(torch.autograd.Function):
    """Its input itself, saved."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.reshape(x.shape)


class Two(torch.autograd.Function):
    """Two results, the second halved."""

    @staticmethod
    def forward(x):
        return x.view_as(x), x / 2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, g, h):
        return (0 if g is None else g) + (0 if h is None else h / 2)


class Hooked(nn.Module):
    """An operation as a module with hooks of every kind."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.register_full_backward_hook(lambda module, g_in, g_out: None)
        self.register_full_backward_pre_hook(lambda module, g_out: None)
        self.register_forward_pre_hook(lambda module, args: (args[0] * 1,))
        self.register_forward_hook(lambda module, args, out: out.clone())

    def forward(self, x):
        return self.fn(x)


def offloaded(fn, x):
    with save_on_cpu():
        return fn(x)


def repacked(fn, x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        return fn(x)


def seen(fn, x):
    """Statistics and hooks on the way, whose results nothing depends on."""
    str(x), x.max(), x.amax(0), (x > 0).float().mean(), x.detach().numpy(), x.int().sum(), x.std()
    if x.requires_grad:
        x.register_hook(lambda g: None)
    return fn(x)


WRAPPERS = {
    "": lambda fn, x: fn(x),
    "reentrant": lambda fn, x: checkpoint(fn, x, use_reentrant=True),
    "checkpoint": lambda fn, x: checkpoint(fn, x, use_reentrant=False),
    "hooks": lambda fn, x: Hooked(fn)(x),
    "same": lambda fn, x: fn(Same.apply(x)),
    "same-after": lambda fn, x: Same.apply(fn(x)),
    "two": lambda fn, x: fn(sum(Two.apply(x)) * (2 / 3)),
    "offloaded": offloaded,
    "repacked": repacked,
    "seen": seen,
}


def turned(x):
    return Turned.apply(x) if isinstance(x, torch.Tensor) else Passes(Turned.apply(x.spikes), x.trace)


def linear(fn):
    """An operation that acts on both."""
    return lambda x, env: x.both(fn) if isinstance(x, Passes) else fn(x)


def synapse(fn, *shapes):
    """fn(x, *weights) with weights of shapes, which may depend on x's."""

    def run(x, env):
        weights = env.weights(*(shape(x.shape) for shape in shapes))
        if isinstance(x, Passes):
            return passes(fn, x, weights)
        return fn(x, *weights)

    return run


def written(x, y):
    y = 1 * y
    if isinstance(x, Passes):
        return added(x, y)
    y += x
    return y


def residual(join):
    def run(x, env):
        (weight,) = env.weights((x.shape[1], x.shape[1]))
        mix = lambda x, weight: torch.einsum("nc...,dc->nd...", x, weight)  # noqa: E731
        return join(x, passes(mix, x, [weight]) if isinstance(x, Passes) else mix(x, weight))

    return run


def buffered(x):
    out = torch.zeros(2, *x.shape, dtype=x.dtype)
    out[0] = x
    out[1] = x / 2
    return out[0] + out[1]


def feedback(x, env):
    (weight,) = env.weights((x.shape[1], x.shape[1]))
    mix = lambda x, weight: torch.einsum("nc...,dc->nd...", x, weight)  # noqa: E731
    if isinstance(x, Passes):
        return added(x, passes(mix, Passes(x.spikes.detach(), x.trace), [weight]))
    return x + mix(x.clone().detach(), weight)


def neuron(x, env):
    layer = env.neuron()
    if not isinstance(layer, tuple):
        return layer(x)
    lif, memory = layer
    spikes = lif(x.spikes if isinstance(x, Passes) else x)
    memory.trace = spikes.detach() + (0 if memory.trace is None else (1 - 1 / NEURON["tau"]) * memory.trace)
    return Passes(spikes, memory.trace)


def current(fn):
    """A function of the spikes that has no trace."""
    return lambda x, env: Passes(fn(x.spikes), None) if isinstance(x, Passes) else fn(x)


def images(shape):
    return len(shape) == 4


def rows(shape):
    return len(shape) == 2


def any_shape(shape):
    return True


def mask(x, i):
    return torch.arange(x.shape[-1]) % 3 > i


OPERATIONS = {
    "neuron": (any_shape, neuron),
    "conv": (images, synapse(lambda x, w, b: F.conv2d(x, w, b, padding=1), lambda s: (3, s[1], 3, 3), lambda s: (3,))),
    "conv-keywords": (
        images,
        synapse(lambda x, w: F.conv2d(weight=w, input=x, stride=(1, 2), padding="valid"), lambda s: (4, s[1], 1, 1)),
    ),
    "depthwise": (
        images,
        synapse(lambda x, w: F.conv2d(x, w, padding="same", groups=x.shape[1]), lambda s: (s[1], 1, 3, 3)),
    ),
    "conv_transpose": (images, synapse(lambda x, w: F.conv_transpose2d(x, w, padding=1), lambda s: (s[1], 3, 3, 3))),
    "over-pixels": (images, synapse(lambda x, w: w @ x, lambda s: (2, s[2]))),
    "linear": (any_shape, synapse(lambda x, w, b: F.linear(x, w, b), lambda s: (5, s[-1]), lambda s: (5,))),
    "matmul": (any_shape, synapse(lambda x, w: x @ w, lambda s: (s[-1], 4))),
    "matmul-keywords": (rows, synapse(lambda x, w: torch.matmul(other=x.T, input=w).T, lambda s: (4, s[1]))),
    "einsum": (any_shape, synapse(lambda x, w: torch.einsum("nc...,cd->nd...", x, w), lambda s: (s[1], 3))),
    "tensordot": (rows, synapse(lambda x, w: torch.tensordot(x, w, dims=([1], [1])), lambda s: (6, s[1]))),
    "standardised": (
        rows,
        synapse(
            lambda x, w, g: F.linear(x, fastsnn.functional.standardize(w, g)), lambda s: (5, s[1]), lambda s: (5, 1)
        ),
    ),
    "residual": (any_shape, residual(added)),
    "residual-in-place": (any_shape, residual(written)),
    "feedback": (any_shape, feedback),
    "turned": (any_shape, lambda x, env: turned(x)),
    "scale": (any_shape, linear(lambda x: 2.74 * x)),
    "scale-keywords": (any_shape, linear(lambda x: torch.mul(other=x, input=torch.tensor(1.5, dtype=x.dtype)))),
    "quotient": (any_shape, linear(lambda x: torch.div(input=x, other=4))),
    "negative": (any_shape, linear(lambda x: -x)),
    "twice": (any_shape, linear(lambda x: x + x)),
    "mask": (any_shape, linear(lambda x: x * mask(x, 0))),
    "where": (any_shape, linear(lambda x: torch.where(mask(x, 1), x, x / 2))),
    "masked_fill": (any_shape, linear(lambda x: x.masked_fill(mask(x, 1), 0.0))),
    "pool": (lambda s: images(s) and s[2] > 1 and s[3] > 1, linear(lambda x: F.avg_pool2d(x, 2))),
    "pool-module": (images, linear(nn.AdaptiveAvgPool2d(2))),
    "upsample": (lambda s: images(s) and s[2] < 5 and s[3] < 5, linear(nn.Upsample(scale_factor=2))),
    "pad": (lambda s: images(s) and s[2] < 7 and s[3] < 7, linear(lambda x: F.pad(x, (1, 0, 0, 1)))),
    "flatten": (images, linear(lambda x: torch.flatten(input=x, start_dim=1))),
    "unflatten": (lambda s: rows(s) and s[1] % 4 == 0, linear(lambda x: x.unflatten(1, (-1, 2, 2)))),
    "permute": (images, linear(lambda x: x.permute(0, 1, 3, 2).contiguous())),
    "mT": (images, linear(lambda x: x.mT)),
    "roll": (any_shape, linear(lambda x: torch.roll(x, 1, -1).flip(1))),
    "chunks": (any_shape, linear(lambda x: torch.cat([torch.chunk(x, 2, dim=1)[0], x[:, :1]], axis=1))),
    "samples": (any_shape, linear(lambda x: torch.stack(x.unbind(0)))),
    "mean": (images, linear(lambda x: x.mean(axis=(2, 3)))),
    "sum": (images, linear(lambda x: torch.sum(input=x, dim=3, keepdim=True))),
    "detached-copy": (any_shape, linear(lambda x: x.clone().detach() + x)),
    "buffer": (any_shape, linear(buffered)),
    "double": (any_shape, linear(lambda x: x.to(torch.float64).double().type_as(x))),
    "dropout": (any_shape, linear(lambda x: F.dropout(x, 0.5, training=False))),
}
WITHOUT_TRACE = {
    "square": (any_shape, current(lambda x: x * x)),
    "amax": (images, current(lambda x: x.amax((2, 3)))),
    "max": (images, current(lambda x: x.max(3).values.max(2)[0])),
    "abs": (any_shape, current(lambda x: x.abs())),
    "attention": (images, current(lambda x: x @ x.mT @ x)),
    "softmax": (any_shape, current(lambda x: torch.softmax(x, 1))),
}
ANY = {**OPERATIONS, **WITHOUT_TRACE}


class Env(SimpleNamespace):
    """Weights and neurons in the order in which a program asks for them, made the first time."""

    def __init__(self, two_passes):
        super().__init__(two_passes=two_passes, layers=[], at=0)

    def _next(self, make):
        if self.at == len(self.layers):
            self.layers.append(make())
        self.at += 1
        return self.layers[self.at - 1]

    def weights(self, *shapes):
        return self._next(lambda: [self._weight(shape, i) for i, shape in enumerate(shapes)])

    def _weight(self, shape, i):
        generator = torch.Generator().manual_seed(100 * len(self.layers) + i)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def neuron(self):
        if self.two_passes:
            return self._next(lambda: (fastsnn.LIF.for_rule("sltt", **NEURON), SimpleNamespace(trace=None)))
        return self._next(lambda: fastsnn.LIF.for_rule("ottt", **NEURON))

    def gradients(self):
        return [w.grad for layer in self.layers if isinstance(layer, list) for w in layer]


def run(program, two_passes):
    """Outputs of every step and the gradients of all weights, or None where weights behind a current are refused."""
    env = Env(two_passes)
    generator = torch.Generator().manual_seed(1)
    results = []
    try:
        for _ in range(STEPS):
            env.at = 0
            x = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
            for wrapper, name in [("", "conv"), ("", "neuron"), *program, ("", "neuron"), ("", "linear")]:
                applies, operation = ANY[name]
                if not applies(x.shape):
                    continue
                x = step(x, wrapper, operation, env)
            x.square().sum().backward()
            results.append(x.detach())
    except TraceError:
        return None
    return [*results, *env.gradients()]


def step(x, wrapper, operation, env):
    if env.two_passes or operation is neuron:
        return operation(x, env)
    at = env.at

    def fn(x):
        env.at = at  # a checkpoint runs it again, with the same weights
        return operation(x, env)

    return WRAPPERS[wrapper](fn, x)


steps = st.tuples(st.sampled_from(sorted(WRAPPERS)), st.sampled_from(sorted(OPERATIONS)))
any_steps = st.tuples(st.sampled_from(sorted(WRAPPERS)), st.sampled_from(sorted(ANY)))


def settled(share):
    """As many programs of one kind, the same ones in every run of the suite."""
    return settings(
        max_examples=max(1, round(share * PROGRAMS)),
        deadline=None,
        derandomize=PROGRAMS <= 100,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@settled(0.7)
@given(st.lists(steps, min_size=1, max_size=7))
def test_programs_have_the_gradient_of_two_passes(program):
    actual, expected = run(program, False), run(program, True)
    assert actual is not None
    assert_same(actual, expected, rtol=1e-9, atol=1e-9)


@settled(0.3)
@given(st.lists(any_steps, min_size=1, max_size=7))
def test_programs_without_a_trace_are_refused_and_none_is_wrong(program):
    actual, expected = run(program, False), run(program, True)
    assert (actual is None) == (expected is None)
    if actual is not None:
        assert_same(actual, expected, rtol=1e-9, atol=1e-9)
