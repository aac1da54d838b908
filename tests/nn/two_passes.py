"""The papers' formulation by hand: a synapse runs on spikes for its value, on the trace for its weights' gradient."""

import torch
from torch.nn import functional as F

from fastsnn import TraceError


class Passes:
    """Spikes and trace side by side; trace is None of a current that has none."""

    def __init__(self, spikes, trace):
        self.spikes, self.trace = spikes, trace

    @property
    def shape(self):
        return self.spikes.shape

    def both(self, fn):
        return Passes(fn(self.spikes), None if self.trace is None else fn(self.trace).detach())


def passes(fn, x, weights):
    """y = fn(x, *weights)."""
    if isinstance(x, torch.Tensor):
        return fn(x, *weights)
    if x.trace is None:
        raise TraceError("two passes need a trace")
    value = fn(x.spikes, *(weight.detach() for weight in weights))
    of_weights = fn(x.trace, *weights)
    return value + (of_weights - of_weights.detach())


def added(x, y):
    """x and a plain current y, whose own value stands in for its trace, or another pair."""
    if isinstance(y, Passes):
        return Passes(x.spikes + y.spikes, x.trace + y.trace)
    if isinstance(x, Passes):
        return Passes(x.spikes + y, None if x.trace is None else x.trace + y.detach())
    return x + y


class Fire(torch.autograd.Function):
    """Step with the derivative of sigmoid(4x)."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        y = torch.sigmoid(4 * x)
        return g * 4 * y * (1 - y)


class Neuron:
    """Soft reset, v[t-1] detached; a[t] = lam*a[t-1] + s[t]. Plain spikes where `traced` is False (SLTT)."""

    def __init__(self, tau, threshold, traced):
        self.lam, self.threshold, self.traced, self.v, self.trace = 1 - 1 / tau, threshold, traced, 0, 0

    def __call__(self, x):
        u = self.lam * self.v + (x.spikes if isinstance(x, Passes) else x)
        s = Fire.apply(u - self.threshold)
        self.v = (u - self.threshold * s).detach()
        self.trace = self.lam * self.trace + s.detach()
        return Passes(s, self.trace) if self.traced else s


def standardised(weight, gain):
    n = weight[0].numel()
    dims = tuple(range(1, weight.dim()))
    mean, var = weight.mean(dims, keepdim=True), weight.var(dims, keepdim=True)
    return gain * (weight - mean) / torch.sqrt(var * n + 1e-4)


def conv(x, layer):
    """A convolution, with standardised weights where the layer has a gain."""
    options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}

    def run(x, weight, bias=None, gain=None):
        weight = weight if gain is None else standardised(weight, gain.reshape(-1, 1, 1, 1))
        return F.conv2d(x, weight, bias, **options)

    gain = getattr(layer, "gain", None)
    if gain is None:
        return passes(run, x, [layer.weight] if layer.bias is None else [layer.weight, layer.bias])
    return passes(lambda x, w, b, g: run(x, w, b, g), x, [layer.weight, layer.bias, gain])


def linear(x, layer):
    return passes(F.linear, x, [layer.weight, layer.bias])


def norm(x, layer):
    """Batch normalisation by the batch's statistics."""
    return F.batch_norm(x, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
