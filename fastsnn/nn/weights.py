"""Weight-standardised layers and the output scale that goes with them (equations/ottt.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from ..ops import standardize as op
from ..ops.common.dispatch import by_operators
from ..ops.synapse import may_wait

__all__ = ["SIGMA_H_INVERSE", "Scale", "WSConv2d", "WSLinear"]

# 1/sigma_H, sigma_H^2 = p(1-p), p = erfc(1/sqrt 2)/2: the factor of a LIF's output under sWS
SIGMA_H_INVERSE = 2.74


class _Standardized(nn.Module):
    """Mixin: `standardized_weight()`, computed once for each value of weight and gain on the CPU; at each call in a
    graph and on a device, where one launch is less than to wait for a comparison."""

    weight: Tensor
    gain: nn.Parameter
    factor: float

    def _init_gain(self, factor: float) -> None:
        if self.weight[:1].numel() < 2:
            raise ValueError(
                f"weight has shape {tuple(self.weight.shape)}: a fan-in of 1 has no variance to standardise; use a "
                "plain layer"
            )
        if not math.isfinite(factor):
            raise ValueError(f"factor is {factor}; it must be a finite number")
        shape = (len(self.weight),) + (1,) * (self.weight.dim() - 1)
        self.gain = nn.Parameter(torch.ones(shape, dtype=self.weight.dtype, device=self.weight.device))
        self.factor = float(factor)
        self._done: tuple[tuple[Tensor, Tensor], op.Standardized] | None = None
        self._once: _Once | None = None

    def standardized_weight(self) -> Tensor:
        """W_hat = factor * gain * (W - mean) / sqrt(var*N + 1e-4), with gradient to weight and gain; a tensor of your
        own."""
        return self._standardized().clone()

    def _standardized(self) -> Tensor:
        """As `standardized_weight`, in memory that later calls share."""
        if is_dynamo_compiling() or self.weight.device.type != "cpu":
            return op.standardize(*self._operands())
        if self._once is not None and self._once.serves():
            return self._once.value()
        given = self._operands()
        done = None if by_operators(*given) else self._computed(*given)[1]
        return op.standardize(*given, done=done)

    def _operands(self) -> tuple[Tensor, Tensor]:
        return self.weight, self.gain if self.factor == 1 else self.factor * self.gain

    def _computed(self, weight: Tensor, gain: Tensor) -> tuple[tuple[Tensor, Tensor], op.Standardized]:
        """Copies of weight and gain, and what is computed of them; anew where values are not to be read."""
        if by_operators(weight, gain):
            return (weight.detach(), gain.detach()), op.compute(weight, gain)
        if self._done is None or not all(map(_unchanged, self._done[0], (weight, gain))):
            # what is computed under inference_mode serves a training step, too
            with torch.inference_mode(False), torch.no_grad():
                self._done = (weight.detach().clone(), gain.detach().clone()), op.compute(weight, gain)
        return self._done

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_done": None, "_once": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"factor": 1.0, "_once": None, **state})  # which pickles of 0.1 have not

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.factor == 1 else f", factor={self.factor}")


def _unchanged(before: Tensor, now: Tensor) -> bool:
    # versions and addresses miss writes through .data and by foreign kernels, so values are compared
    return before.dtype == now.dtype and before.device == now.device and torch.equal(before, now)


def _alike(before: Tensor, now: Tensor) -> bool:
    return _unchanged(before, now) or torch.allclose(before, now, rtol=0, atol=0, equal_nan=True)


class _Once:
    """A layer's W_hat for a batch, from its first call on: a leaf, at which the gradients of all calls are summed."""

    def __init__(self, layer: _Standardized) -> None:
        self.layer, self.operands, self.factor = layer, (layer.weight, layer.gain), layer.factor
        self.seen = self._stamps()
        self._value: Tensor | None = None

    def serves(self) -> bool:
        """Whether the layer's weight and gain are those that W_hat is of."""
        weight, gain = self.operands
        return self.layer.weight is weight and self.layer.gain is gain and self._stamps() == self.seen

    def _stamps(self) -> list[tuple[int, int]]:
        return [(p._version, p.data_ptr()) for p in self.operands]

    def value(self) -> Tensor:
        if self._value is None:
            self.given, self.done = self.layer._computed(*self.layer._operands())
            self._value = self.done.value.detach().requires_grad_(any(p.requires_grad for p in self.operands))
        return self._value

    def spread(self) -> None:
        """The sum of the gradients to weight and gain. Raises RuntimeError for a write that left no trace."""
        if self._value is None:
            return
        now = self.layer._operands()
        if self.serves() and not by_operators(*now) and not all(map(_alike, self.given, now)):
            raise RuntimeError(
                f"weight or gain of {self.layer} was written through .data between the steps of a batch, after which "
                "steps went on with the weight of before; no update was made. Write in place under torch.no_grad() "
                "instead, without .data, or after the batch"
            )
        total, self._value.grad = self._value.grad, None
        if total is not None:
            g_weight, g_gain = op.gradient(*self.given, self.done, total)
            for p, g in zip(self.operands, (g_weight, self.factor * g_gain), strict=True):
                if p.requires_grad:  # and has no hooks, which a backward would call
                    p.grad = g if p.grad is None else p.grad.add_(g)


@contextmanager
def standardized_once(net: nn.Module) -> Iterator[None]:
    """Within it each layer of `net` computes its W_hat once, and the gradients of all its calls go through the
    standardisation together where it ends without an error: for steps between which no weight changes.

    A layer whose weight or gain changes (another tensor, or in place) computes W_hat at each call from then on; a write
    through .data is noticed at the end, and raises RuntimeError. Each call has a gradient of its own, too, on a device,
    where that is a launch, and where weights have hooks."""
    layers = [m for m in net.modules() if isinstance(m, _Standardized) and all(map(may_wait, (m.weight, m.gain)))]
    shared = [(layer, _Once(layer)) for layer in layers]
    try:
        for layer, once in shared:
            layer._once = once
        yield
        for _, once in shared:
            once.spread()
    finally:
        for layer in layers:
            layer._once = None


class WSLinear(_Standardized, nn.Linear):
    """nn.Linear with scaled weight standardisation (Xiao et al. 2022, appendix C.1). Arguments as nn.Linear, and

    factor: of the input, in the weights: the same as a `Scale` before the layer, without its passes over spikes and
    trace. Default 1. `gain` [out, 1] is learnable and starts at 1. Raises ValueError for a fan-in of 1 or a factor
    that is not finite.
    """

    def __init__(self, *args: Any, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._init_gain(factor)

    def forward(self, x: Tensor) -> Tensor:
        """y = W_hat x + b; traced spikes give W_hat its gradient from the trace."""
        return F.linear(x, self._standardized(), self.bias)


class WSConv2d(_Standardized, nn.Conv2d):
    """nn.Conv2d with scaled weight standardisation (Xiao et al. 2022, appendix C.1). Arguments as nn.Conv2d, and

    factor: of the input, in the weights: the same as a `Scale` before the layer, without its passes over spikes and
    trace. Default 1. `gain` [out, 1, 1, 1] is learnable and starts at 1. Raises ValueError for a fan-in of 1 or a
    factor that is not finite.
    """

    def __init__(self, *args: Any, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._init_gain(factor)

    def forward(self, x: Tensor) -> Tensor:
        """y = W_hat * x + b; traced spikes give W_hat its gradient from the trace."""
        return self._conv_forward(x, self._standardized(), self.bias)


class Scale(nn.Module):
    """Multiplies by a constant, spikes and trace alike. Default 2.74, the factor of a LIF under sWS."""

    def __init__(self, factor: float = SIGMA_H_INVERSE) -> None:
        super().__init__()
        self.factor = float(factor)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
