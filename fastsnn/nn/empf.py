"""The EM-PF neuron as a layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import backends
from ..names import VERSIONS
from ..ops import empf as op
from ..ops.lif import check_input
from ..types import flag, number, replaced
from .neuron import Neuron
from .state import counted
from .traced import plain

__all__ = ["EMPF", "EMPFState"]


class EMPFState(NamedTuple):
    """v [N, *] after the last step, or a number that was assigned; None before the first and in version III; t: steps
    done (after a step in a graph of torch.compile a tensor [])."""

    v: Tensor | float | None = None
    t: int | Tensor = 0

    def map(self, fn: Any) -> EMPFState:
        """fn of v."""
        return EMPFState(fn(self.v), self.t) if isinstance(self.v, Tensor) else self


def at_step(values: Tensor, t: int | Tensor) -> Tensor:
    """Those of step t, of values [T, *]."""
    return values.index_select(0, t.view(1)).squeeze(0) if isinstance(t, Tensor) else values[t]


def steps_given(x: Tensor, sequence: bool, steps: int) -> int:
    """How many steps a call with x does. Raises ValueError for a sequence of another number than `steps`."""
    if sequence and len(x) != steps:
        raise ValueError(f"x has T = {len(x)} steps and this layer has parameters for steps = {steps}")
    return len(x) if sequence else 1


def steps_done(t: int | Tensor, given: int, steps: int, device: torch.device) -> int | Tensor:
    """t before a call of `given` steps. Raises RuntimeError where they are too many."""
    remedy = f"steps = {steps}: call fastsnn.reset(net) before a new sequence"
    if isinstance(t, Tensor):
        if torch.compiler.is_compiling():
            torch._assert_async(t + given <= steps, f"a step after the last of {remedy}")
            return t.to(device)
        t = int(t)
    if t + given > steps:
        raise RuntimeError(f"step {t + given} of {remedy}")
    return t


class EMPF(Neuron):
    """EM-PF neuron: float spikes, learnable leak and threshold at each step (Hao et al. 2024; equations/empf.md).

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

    `fastsnn.reset(net)` starts the next sequence. State is not in `state_dict`. torch.compile takes the layer into
    its graph, with fullgraph=True: the first step after a reset and the later ones are two graphs.

    Raises TypeError or ValueError for arguments out of range; forward raises ValueError where T of the input is not
    `steps`, and RuntimeError for a step after the last.
    """

    running_mean: Tensor
    running_var: Tensor
    _lent: Tensor | None  # the state's v, where it was handed out

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
        flag("per_channel", per_channel)
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
    def v(self) -> Tensor | float | None:
        """Potential after the last step; None before the first and in version III.

        What is written into it (`v[mask] = 0`), or assigned, a tensor or a number, is what the next step starts from.
        """
        self._met()
        if isinstance(self._state.v, Tensor) and self._state.v is not self._lent:
            # the graph of the last step keeps the other one
            self._lent = self._state.v.clone()
            self._state = replaced(self._state, v=self._lent)
        return self._state.v

    @v.setter
    def v(self, value: Tensor | float | None) -> None:
        self._met()
        if self.version == "III" and value is not None:
            raise ValueError("version 'III' has no potential between steps, so that none can be assigned")
        value = None if value is None else self._potential_of(value)
        self._lent = value if isinstance(value, Tensor) else None
        self._state = replaced(self._state, v=value)

    def reset(self) -> None:
        """Forget the state: the next call is t = 1."""
        self._met()
        self._state = EMPFState()
        self._lent = None

    def _begun(self) -> bool:
        return bool(self._state.t)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step [N, *], or of all T [T, N, *] in step mode "m"."""
        self._runs()
        x, sequence = plain(x), self._step_mode == "m"
        check_input(x, sequence)
        given = steps_given(x, sequence, self.steps)
        t = steps_done(self._state.t, given, self.steps, self.threshold.device)
        if self.version == "II" and sequence:
            return torch.stack([self._norm_step(x_t, t + i) for i, x_t in enumerate(x)])
        if self.version == "II":
            return self._norm_step(x, t)
        if sequence:
            spikes, v = op.empf_sequence(x, self._before(x, sequence), leak=self.leak, threshold=self.threshold)
        else:
            leak = None if self.leak is None else at_step(self.leak, t)
            spikes, v = op.empf_step(x, self._before(x, sequence), leak=leak, threshold=at_step(self.threshold, t))
        self._keep(v, t + given, x)
        return spikes

    def _before(self, x: Tensor, sequence: bool) -> Tensor | None:
        """v before a call with x."""
        return None if self._state.v is None else self._usable(self._state, x, sequence).v

    def _keep(self, v: Tensor | None, t: int | Tensor, x: Tensor) -> None:
        self._state = EMPFState(v, counted(t, x) if self._step_mode == "s" else t)

    def _norm_step(self, x: Tensor, t: int | Tensor) -> Tensor:
        running = None if self.training else (at_step(self.running_mean, t), at_step(self.running_var, t))
        names = ("leak", "threshold", "alpha", "beta", "weight", "bias")
        parameters = {name: at_step(getattr(self, name), t) for name in names}
        out = op.empf_norm_step(x, self._before(x, False), **parameters, running=running, eps=self.eps)
        if out.mean is not None and out.var is not None:
            self._follow(t, out.mean, out.var, x.numel() // len(out.mean))
        self._keep(out.v, t + 1, x)
        return out.spikes

    @torch.no_grad()
    def _follow(self, t: int | Tensor, mean: Tensor, var: Tensor, count: int) -> None:
        """Running statistics of step t, the variance unbiased, as batch norm has them."""
        for running, new in ((self.running_mean, mean), (self.running_var, var * (count / (count - 1)))):
            row = at_step(running, t).lerp_(new.to(running.dtype), self.momentum)
            if isinstance(t, Tensor):  # then the row is a copy
                running.index_copy_(0, t.view(1), row.unsqueeze(0))

    def explain(self, device: str | torch.device = "cpu") -> str:
        """For every backend whether it would run on `device`, and why."""
        return "\n".join(f"{name}: {verdict}" for name, verdict in backends.explain("empf", device))

    def extra_repr(self) -> str:
        return f"steps={self.steps}, version={self.version!r}, channels={self.channels}, step_mode={self.step_mode!r}"
