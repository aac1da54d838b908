"""The EM-PF neuron as a layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import backends
from ..ops import empf as op
from ..ops.lif import check_input
from ..ops.types import number
from .neuron import Neuron
from .traced import plain

__all__ = ["EMPF", "EMPFState"]

VERSIONS = ("I", "II", "III")


class EMPFState(NamedTuple):
    """v [N, *] after the last step, None before the first and in version III; t: steps done."""

    v: Tensor | None = None
    t: int = 0

    def map(self, fn: Any) -> EMPFState:
        """fn of every tensor."""
        return self if self.v is None else self._replace(v=fn(self.v))


def steps_given(x: Tensor, sequence: bool, done: int, steps: int) -> int:
    """How many of the `steps` a call with x does after those done. Raises ValueError or RuntimeError for a wrong T."""
    given = len(x) if sequence else 1
    if sequence and given != steps:
        raise ValueError(f"x has T = {given} steps and this layer has parameters for steps = {steps}")
    if done + given > steps:
        raise RuntimeError(f"step {done + given} of steps = {steps}: call fastsnn.reset(net) before a new sequence")
    return given


class EMPF(Neuron):
    """EM-PF neuron with float spikes and a learnable leak and threshold at each step (Hao et al. 2024; SPEC section 4).

    m[t] = lam_t*v[t-1] + x[t], s[t] = (m[t] - th_t)*f[t], v[t] = m[t] - s[t], f[t] = 1 where m[t] >= th_t, else 0.
    The gradient is online: v[t-1] is detached. Spikes are plain tensors; ordinary layers follow.

    Args:
        steps: T; the layer has parameters for each step.
        version: "I": as above. "II": fires from alpha_t*m + beta_t*BN_t(m), batch norm of the potential with
            statistics, weight and bias of its own at each step; alpha starts at 1 and beta at 0, which is version I.
            "III": without state, s[t] = (x[t] - th_t)*f[t], so that all steps can run at once. Default "I".
        channels: C of inputs [N, C, *]; needed by version II and by per_channel.
        per_channel: whether leak, threshold, alpha and beta have one value a channel, [T, C], in place of [T].
        leak, threshold: initial values. Default 0.5 and 1.0.
        step_mode: "s": forward takes one step [N, *], the T of them in order; "m": all of them, [T, N, *].
        eps, momentum: of version II's batch norm, as in torch.nn.BatchNorm2d.

    `fastsnn.reset(net)` starts the next sequence. State is not in `state_dict`. torch.compile runs the layer eagerly,
    between graphs.

    Raises TypeError or ValueError for arguments out of range; forward raises ValueError where T of the input is not
    `steps`, and RuntimeError for a step after the last.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        steps: int,
        version: str = "I",
        channels: int | None = None,
        *,
        per_channel: bool = False,
        leak: float = 0.5,
        threshold: float = 1.0,
        step_mode: str = "s",
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps is {steps!r}; it must be the number of time steps T >= 1")
        if version not in VERSIONS:
            raise ValueError(f"version is {version!r}; allowed: {', '.join(VERSIONS)}")
        if channels is None and (version == "II" or per_channel):
            raise ValueError("channels is None; version 'II' and per_channel need it: the C of inputs [N, C, *]")
        if channels is not None and channels < 1:
            raise ValueError(f"channels is {channels}; it must be at least 1")
        self.steps, self.version, self.channels, self.step_mode = steps, version, channels, step_mode
        self.eps, self.momentum = number("eps", eps), number("momentum", momentum)

        def each_step(value: float) -> nn.Parameter:
            shape = (steps, channels) if per_channel and channels is not None else (steps,)
            return nn.Parameter(torch.full(shape, value))

        self.threshold = each_step(number("threshold", threshold))
        self.leak = None if version == "III" else each_step(number("leak", leak))
        if version == "II" and channels is not None:
            self.alpha, self.beta = each_step(1.0), each_step(0.0)
            self.weight = nn.Parameter(torch.ones(steps, channels))
            self.bias = nn.Parameter(torch.zeros(steps, channels))
            self.register_buffer("running_mean", torch.zeros(steps, channels))
            self.register_buffer("running_var", torch.ones(steps, channels))
        self.reset()

    @property
    def v(self) -> Tensor | None:
        """Potential after the last step; None before the first and in version III."""
        return self._state.v

    def reset(self) -> None:
        """Forget the state: the next call is t = 1."""
        self._state = EMPFState()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step [N, *], or of all T [T, N, *] in step mode "m"."""
        x, sequence = plain(x), self._step_mode == "m"
        check_input(x, sequence)
        done = self._state.t
        given = steps_given(x, sequence, done, self.steps)
        if self.version == "II":
            return torch.stack([self._norm_step(x_t) for x_t in x]) if sequence else self._norm_step(x)
        if sequence:
            spikes, v = op.empf_sequence(x, self._state.v, leak=self.leak, threshold=self.threshold)
        else:
            leak = None if self.leak is None else self.leak[done]
            spikes, v = op.empf_step(x, self._state.v, leak=leak, threshold=self.threshold[done])
        self._state = EMPFState(v, done + given)
        return spikes

    def _norm_step(self, x: Tensor) -> Tensor:
        t = self._state.t
        running = None if self.training else (self.running_mean[t], self.running_var[t])
        names = ("leak", "threshold", "alpha", "beta", "weight", "bias")
        parameters = {name: getattr(self, name)[t] for name in names}
        out = op.empf_norm_step(x, self._state.v, **parameters, running=running, eps=self.eps)
        if out.mean is not None and out.var is not None:
            self._follow(t, out.mean, out.var, x.numel() // len(out.mean))
        self._state = EMPFState(out.v, t + 1)
        return out.spikes

    @torch.no_grad()
    def _follow(self, t: int, mean: Tensor, var: Tensor, count: int) -> None:
        """Running statistics of step t, the variance unbiased, as batch norm has them."""
        self.running_mean[t].lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var[t].lerp_((var * (count / (count - 1))).to(self.running_var.dtype), self.momentum)

    def explain(self, device: str | torch.device = "cpu") -> str:
        """For every backend whether it would run on `device`, and why."""
        return "\n".join(f"{name}: {verdict}" for name, verdict in backends.explain("empf", device))

    def extra_repr(self) -> str:
        return f"steps={self.steps}, version={self.version!r}, channels={self.channels}, step_mode={self.step_mode!r}"
