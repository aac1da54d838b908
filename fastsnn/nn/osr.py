"""Online spiking renormalisation as layers, alone and fused with the neuron behind it (equations/osr.md)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..ops import lif as op_lif
from ..ops import osr as op
from ..ops import ots
from ..ops.osr.passes import Pending
from ..stats import Moments, Running, Sequence, Settled, fold, merge, pooled
from ..types import flag, map_tensors, number
from .lif import LIF, defaults_of
from .state import Stateful, counted
from .traced import TracedSpikes, TraceError

__all__ = ["OSR", "OSRLIF", "OSR1d", "OSR2d", "OSR3d", "OSRState"]


class OSRState(NamedTuple):
    """What a sequence has accumulated: its steps so far (`counted`), and the moments [C] of their inputs."""

    steps: int | Tensor = 0
    n: Tensor | None = None
    mean: Tensor | None = None
    m2: Tensor | None = None

    def map(self, fn: Any) -> OSRState:
        """fn of every tensor."""
        return map_tensors(self, fn)


EMPTY = OSRState()


class OSR(Stateful, _BatchNorm):
    """Online spiking renormalisation of [N, C, *] (Zhu et al. 2024): batch normalisation for online training.

    Each training step normalises with the running statistics, y = weight*(x - running_mean)/sqrt(running_var + eps) +
    bias, which is what evaluation does, and has batch normalisation's gradient with respect to the step's own
    statistics. Those are merged over the sequence's steps and folded into the running ones after step `steps`.

    A sequence that `fastsnn.reset` ends before that is folded then, as a whole sequence; one that goes on begins to
    accumulate anew, with the running statistics just folded. So every step counts once. `fastsnn.load_states` replaces
    what has accumulated, and does not undo a fold.

    Args:
        num_features: channels C.
        steps: steps T of a sequence.
        eps: added to the variance. Default 1e-4.
        momentum: weight of the old running statistics (torch's BatchNorm has that of the new). Default 0.9.
        max_ratio: where the standard deviation of any channel and the running one differ by more than this factor, in
            either direction, the layer normalises this step by its own statistics (a second pass over memory), with
            the gradient of that. The released code has 20, and 50 for event data. None: never, which is the paper as
            printed. 0: always, which is batch normalisation of every step by itself. A device, which no step waits for,
            runs the second pass at every step unless None. Default 20.0.
        strict: raise FloatingPointError for a step with NaN or infinity and leave the statistics as they were; else
            they reach the running statistics as in torch's BatchNorm. On a device `fastsnn.reset` raises it, with the
            number of the step, and no step waits; `online.train_batch` keeps such a step from the weights. Default
            False.

    Parameters and buffers have BatchNorm's names; num_batches_tracked counts folds. In a process group of several ranks
    the statistics are the global batch's, also of unequal batches. One element a channel raises ValueError in training;
    an empty batch changes nothing but counts as a step. Traced spikes raise TraceError: the norm belongs before the
    neuron. In a graph of torch.compile steps are counted in a tensor: the first step after a reset and the later ones
    are two graphs.

    For tools that look for batch norms (freezing, weight decay, FSDP, `torch.optim.swa_utils.update_bn`) it is one;
    with momentum None, which update_bn sets, the running statistics are the mean over sequences. SyncBatchNorm's
    conversion raises: the statistics are those of all ranks already.
    """

    DIMS: tuple[int, ...] | None = None
    track_running_stats = True
    merged = staticmethod(merge)
    weight: nn.Parameter
    bias: nn.Parameter
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        steps: int,
        eps: float = 1e-4,
        momentum: float = 0.9,
        max_ratio: float | None = 20.0,
        strict: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        if max_ratio is not None and number("max_ratio", max_ratio) < 0:
            raise ValueError(f"max_ratio is {max_ratio}; it must be >= 0, or None for no fallback")
        if number("eps", eps) <= 0:
            raise ValueError(f"eps is {eps}; it must be > 0")
        for name, value in (("num_features", num_features), ("steps", steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an integer >= 1")
        self.num_features, self.steps, self.eps = num_features, steps, eps
        self.momentum = momentum
        self.max_ratio, self.strict = max_ratio, flag("strict", strict)
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.refused: Tensor | None = None
        self.state = EMPTY

    @property
    def momentum(self) -> float | None:
        """Weight of the old running statistics; None: they are the mean over all sequences since
        `reset_running_stats`."""
        return self._momentum

    @momentum.setter
    def momentum(self, momentum: float | None) -> None:
        if momentum is not None and not 0 <= number("momentum", momentum) <= 1:
            raise ValueError(f"momentum is {momentum}; it must be in [0, 1], the weight of the old statistics")
        if momentum is not None and self.__dict__.get("_momentum", momentum) is None:
            self.reset()  # what update_bn has begun belongs to its mean
        self._momentum = momentum

    def reset_running_stats(self) -> None:
        """Forget all statistics, those of the sequence, too."""
        self.state = EMPTY
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Start anew: statistics, weight 1 and bias 0."""
        self.reset_running_stats()
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    @property
    def state(self) -> OSRState:
        """What the sequence has accumulated."""
        self._settle()
        self._met()
        return self._state

    @state.setter
    def state(self, value: OSRState) -> None:
        self._met()
        self._state: OSRState = value
        self._pending: Pending | None = None

    def forward(self, x: Tensor) -> Tensor:
        """y of one step [N, C, *], in x's dtype."""
        self._check(x)
        if not self.training:
            return op.evaluate(x, self.weight, self.bias, Running(self.running_mean, self.running_var, self.eps))
        y, moments = op.renormalize(x, self.weight, self.bias, self._running())
        self._accumulate(moments, x)
        return y

    def _check(self, x: Tensor) -> None:
        if isinstance(x, TracedSpikes):
            raise TraceError(
                "normalisation of traced spikes has no meaning on their trace: put it between the synapse and the "
                "neuron, or pass `s.spikes`"
            )
        op.check_input(x, self.num_features, self.DIMS)

    def _running(self) -> Running:
        self._runs()
        return Running(self.running_mean, self.running_var, self.eps, self.max_ratio, self.strict, self._sequence())

    def _sequence(self) -> Sequence | None:
        """What a kernel does with the next step's moments; None where `_add` does."""
        held: Any
        taken, *held = self._state
        if torch.compiler.is_compiling() or isinstance(taken, Tensor) or self._pending is not None:
            return None
        before, ends = None if held[0] is None else Moments(*held), taken + 1 >= self.steps
        pools, share = self.merged is pooled, self._share() if ends else 0.0
        return Sequence(taken + 1, before, pools, ends, share, self.num_batches_tracked, self.refused)

    def _share(self) -> float | Tensor:
        """Weight of a sequence in the running statistics."""
        return 1 / (self.num_batches_tracked.double() + 1) if self.momentum is None else 1 - self.momentum

    def _accumulate(self, step: Moments | Pending | Settled, x: Tensor) -> None:
        if isinstance(step, Settled):
            self._take(step)
            return
        self._settle()
        if isinstance(step, Moments):
            if self.strict and x.numel() and x.device.type != "cpu":
                self._refuse(step)
            self._add(step)
            return
        self._pending = step  # between processes while the layers behind this one work
        if self._state.steps + 1 >= self.steps:
            self._settle()

    def _take(self, step: Settled) -> None:
        """What a kernel has done."""
        total: Any = step.total
        taken = self._state.steps + 1
        ended = taken >= self.steps
        self._state, self.refused = EMPTY if ended else OSRState(taken, *total), step.refused
        if ended:
            torch.autograd.graph.increment_version([self.running_mean, self.running_var, self.num_batches_tracked])

    def _settle(self) -> None:
        """Wait for the step that is pending."""
        if self._pending is not None:
            step, self._pending = self._pending, None
            self._add(step.moments)

    @torch.no_grad()
    def _refuse(self, step: Moments) -> None:
        """Keep the number of the sequence's first step that strict left out."""
        earlier = torch.zeros_like(step.n) if self.refused is None else self.refused
        self.refused = torch.where((earlier == 0) & (step.n == 0), self._state.steps + 1, earlier)

    def raise_deferred(self) -> None:
        """Raises FloatingPointError where strict left out a step of a sequence on a device."""
        if self.refused is None or torch.compiler.is_compiling():
            return
        step, self.refused = int(self.refused), None
        if step:
            raise FloatingPointError(
                f"the input held NaN or infinity at step {step} of the sequence; its statistics were not accumulated"
            )

    @torch.no_grad()
    def _add(self, step: Moments) -> None:
        held: Any
        taken, *held = self._state
        # a copy: the step's backward reads its own, and what is written into the state stays out of it
        total = Moments(*map(Tensor.clone, step)) if held[0] is None else self.merged(Moments(*held), step)
        taken = counted(taken + 1, total.n)
        if isinstance(taken, Tensor):
            # no question about values: a sequence that ends goes on as one of no steps
            ends = taken >= self.steps
            self._fold(total, ends)
            self._state = OSRState(torch.where(ends, 0, taken), *(torch.where(ends, 0, value) for value in total))
        else:
            self._state = OSRState(taken, *total)
            if taken >= self.steps:
                self.reset()

    def _fold(self, total: Moments, ends: Tensor | bool = True) -> None:
        """Into the running statistics, where the sequence ends."""
        fold((self.running_mean, self.running_var), self.num_batches_tracked, total, self._share(), ends)

    @torch.no_grad()
    def reset(self) -> None:
        """End the sequence: what it has accumulated goes into the running statistics."""
        held: Any
        taken, *held = self.state
        if isinstance(taken, Tensor):
            self._fold(Moments(*held), taken > 0)
        elif taken:
            self._fold(Moments(*held))
        # not through the property: in a graph of torch 2.11 what follows would read the old one
        self._state, self._pending = EMPTY, None

    def detach(self) -> None:
        """The state has no graph."""

    def extra_repr(self) -> str:
        text = f"{self.num_features}, steps={self.steps}, eps={self.eps}, momentum={self.momentum}"
        return text + f", max_ratio={self.max_ratio}" + (", strict=True" if self.strict else "")

    def _apply(self, fn: Any, recurse: bool = True) -> OSR:
        super()._apply(fn, recurse)
        self.state = self.state.map(lambda tensor: tensor.to(self.running_mean.device))
        return self

    def __getstate__(self) -> dict[str, Any]:
        self._settle()
        return self.__dict__.copy()

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError(
            "DataParallel drops what its replicas accumulate, so OSR would lose its statistics: use "
            "DistributedDataParallel"
        )


class OSR1d(OSR):
    __doc__ = (OSR.__doc__ or "").replace("[N, C, *]", "[N, C] or [N, C, L]", 1)
    DIMS = (2, 3)


class OSR2d(OSR):
    __doc__ = (OSR.__doc__ or "").replace("[N, C, *]", "[N, C, H, W]", 1)
    DIMS = (4,)


class OSR3d(OSR):
    __doc__ = (OSR.__doc__ or "").replace("[N, C, *]", "[N, C, D, H, W]", 1)
    DIMS = (5,)


class VanillaBN(OSR):
    """Batch normalisation of every step [N, C, *] by itself, which Zhu et al. 2024 compare OSR with (appendix C).

    Evaluation uses running statistics that are updated once a sequence, by the means over its steps of their means and
    of their biased variances. Arguments as OSR's.
    """

    merged = staticmethod(pooled)

    def __init__(
        self, num_features: int, steps: int, eps: float = 1e-4, momentum: float = 0.9, strict: bool = False
    ) -> None:
        super().__init__(num_features, steps, eps, momentum, 0.0, strict)


class OSRLIF(nn.Module):
    """OSR and the LIF behind it; training steps of an online rule run fused, in one pass over memory.

    The same as `nn.Sequential(OSR2d(num_features, steps, ...), LIF(...))`, whose layers it has as `norm` (of [N, C, *])
    and `neuron`. Rule "bptt", step mode "m" ([T, N, C, *]), `store_v_seq`, MPDR and evaluation run them one after the
    other; torch.compile unrolls step mode "m", a graph for each T.

    threshold="ots" (Zhu et al. 2024's OSR+OTS) takes a second pass: th[t] depends on all of u[t], so that no neuron
    fires before the last one is charged (equations/ots.md). Its training steps run fused in either step mode, outside
    of torch.compile.

    Args: num_features, steps, eps, momentum, max_ratio, strict as OSR's; the others, by keyword, as `fastsnn.LIF`'s.
    """

    def __init__(
        self,
        num_features: int,
        steps: int,
        *,
        eps: float = 1e-4,
        momentum: float = 0.9,
        max_ratio: float | None = 20.0,
        strict: bool = False,
        **neuron: Any,
    ) -> None:
        super().__init__()
        self.norm = OSR(num_features, steps, eps, momentum, max_ratio, strict)
        self.neuron = LIF(**neuron)

    @classmethod
    def for_rule(cls, rule: str, num_features: int, steps: int, **kwargs: Any) -> OSRLIF:
        """With the neuron's defaults of the rule's paper, as `LIF.for_rule`."""
        return cls(num_features, steps, **{**defaults_of(rule), **kwargs}, rule=rule)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step [N, C, *] or, in step mode "m", of a sequence [T, N, C, *]."""
        norm, neuron = self.norm, self.neuron
        stabilized = neuron.stabilizer is not None
        if neuron.step_mode == "m":
            if not (stabilized and self.training):
                return neuron(torch.stack([norm(x_t) for x_t in x]))
            op_lif.check_input(x, True)
            neuron.v_seq = None
            return torch.stack([self._step(x_t) for x_t in x])
        fuses = stabilized or (neuron._params.online and neuron.mpdr is None and not neuron.store_v_seq)
        return self._step(x) if self.training and fuses else neuron(norm(x))

    def _step(self, x: Tensor) -> Tensor:
        """A training step of both, in the passes over memory that they need together."""
        norm, neuron = self.norm, self.neuron
        norm._check(x)
        if neuron.stabilizer is not None:
            ots.check_params(neuron._params)
        params, state = neuron._before(x, False)
        op_lif.check_state(x, state, False)
        given = x, norm.weight, norm.bias, norm._running(), params, state
        if neuron.stabilizer is None:
            ran, moments = op.renormalized_lif(*given)
        else:
            ran, moments = op.stabilized_lif(*given, partial(neuron.stabilizer, start=params.threshold))
        norm._accumulate(moments, x)
        return neuron._after(ran, False)
