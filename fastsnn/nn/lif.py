"""The LIF neuron as a layer."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling

from .. import backends, surrogate
from ..ops import lif as op
from ..ops import ots
from ..ops.common.dispatch import by_operators
from ..ops.mpdr import MPDR, Apart, apart_of
from ..reference.lif import settled
from ..reference.mpdr import z_score
from ..types import (
    EMPTY,
    RULES,
    LIFParams,
    LIFState,
    flag,
    number,
    of_rule,
    replaced,
    slots_at,
    state_dtype,
    state_of,
)
from .neuron import Neuron
from .ots import ThresholdStabilizer
from .recompute import running
from .state import of_samples
from .traced import TracedSpikes, plain

__all__ = ["LIF"]


def defaults_of(rule: str) -> dict[str, Any]:
    """LIF's arguments of the rule's paper. Raises ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; allowed: {', '.join(RULES)}")
    defaults = dict(RULES[rule].paper)
    if "surrogate_function" in defaults:
        name, alpha = defaults["surrogate_function"]
        defaults["surrogate_function"] = surrogate.SURROGATES[name](alpha)
    return defaults


def _parameter(name: str) -> Any:
    """A property that reads and replaces one field of the layer's validated parameters."""

    def get(self: LIF) -> Any:
        return getattr(self._params, name)

    def put(self: LIF, value: Any) -> None:
        self._params = replace(self._params, **{name: value})

    return property(get, put, doc=f"LIFParams.{name}; assigning validates.")


class LIF(Neuron):
    """Leaky integrate-and-fire neuron with surrogate gradient, through time or online.

    u[t] = lam*v[t-1] + x[t], s[t] = H(u[t] - th), v[t] = reset of u[t], lam = 1 - 1/tau (equations/lif.md).
    Arguments, meaning and defaults are those of SpikingJelly's LIFNode; change the import and a network runs.

    Args:
        tau: membrane time constant in steps, > 1. Default 2.0.
        decay_input: whether the input is divided by tau. Default True.
        v_threshold: threshold th; `inf` never fires. Default 1.0.
        v_reset: potential after a spike; None subtracts the threshold (soft reset). Default 0.0.
        surrogate_function: one of `fastsnn.surrogate`, or SpikingJelly's of the same name. Default Sigmoid(4).
        detach_reset: keep the reset out of the gradient (rule "bptt"). Default False.
        step_mode: "s": forward takes one step [N, *] and keeps state between calls; "m": forward takes
            [T, N, *] and runs all steps in one kernel. Default "s".
        store_v_seq: keep v after every step in `v_seq` [T, N, *]. Default False.
        rule: gradient rule. "bptt": through time. "sltt": spatial only (Meng et al. 2023). "ottt", "ndot",
            "ndot_released": spatial, and synapses behind take their weight gradient from the trace of
            Xiao et al. 2022 (a[t] = lam*a[t-1] + s[t]) or Jiang et al. 2024 (eq. 12 and appendix A.2). Default "bptt".
        dropout: probability of dropping a neuron for the whole sequence, in training; kept spikes are scaled
            by 1/(1-p); the reset and the ratio of "ndot" see the unmasked spike, the trace and the ratio of
            "ndot_released" (as its code has it) the masked one. Default 0.
        mpdr: `fastsnn.online.MPDR`, a regularisation of the distribution of u; `moments`, `mpdr_loss` and `z_score`
            then tell of the last call, with gradient: `fastsnn.online.regularisation(net)` is the loss's term. In
            evaluation too (not inside torch.compile, which trains propagate=True alone). Default None.
        threshold: "ots": the threshold follows the mean and deviation of the layer's u, from v_threshold at t = 1 on
            (online threshold stabiliser, Zhu et al. 2024; rules "sltt" and "ottt"): th[t] = mean + q*std over the whole
            tensor of a step, q such that th[1] = v_threshold. A soft reset subtracts th[t]. A sample's spikes then
            depend on its batch, in evaluation too. None: constant. Default None.
        fixed_threshold: with "ots", keep a running th for each t in training (a buffer of the layer) and use it in
            evaluation, where samples no longer depend on each other. Default False.

    In training mode a traced rule returns `TracedSpikes`; in evaluation every rule returns plain spikes.
    `v` is the potential after reset, as in SpikingJelly. State is not in `state_dict`; it stays until
    `fastsnn.reset(net)`, and another input shape without a reset raises.

    torch.compile takes the neuron into its graph, with fullgraph=True; the first step after a reset and the later
    ones are two graphs; step mode "m" with threshold="ots" is unrolled, a graph for each T. torch.export takes step
    mode "m": the exported program starts every call at t = 1.

    Raises TypeError or ValueError for arguments out of range, and for "ndot" rules with hard reset.
    """

    tau = _parameter("tau")
    decay_input = _parameter("decay_input")
    v_threshold = _parameter("v_threshold")
    v_reset = _parameter("v_reset")
    detach_reset = _parameter("detach_reset")
    # whether the last step was one of training whose moments nobody has asked for
    _unread = False

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        surrogate_function: Any = surrogate.Sigmoid(),  # noqa: B008 (immutable)
        detach_reset: bool = False,
        step_mode: str = "s",
        store_v_seq: bool = False,
        *,
        rule: str = "bptt",
        dropout: float = 0.0,
        mpdr: MPDR | None = None,
        threshold: str | None = None,
        fixed_threshold: bool = False,
        **parameters: float,
    ) -> None:
        super().__init__()
        own = of_rule(rule, parameters)
        self._params = LIFParams(tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, rule, own)
        if not 0 <= number("dropout", dropout) < 1:
            raise ValueError(f"dropout is {dropout}; it must be in [0, 1)")
        self.__dict__["_surrogate"] = surrogate_function
        self.step_mode = step_mode
        self.store_v_seq = store_v_seq
        self.dropout = dropout
        self.mpdr = mpdr
        self.stabilizer = self._stabilizer(threshold, fixed_threshold)
        self.reset()

    @property
    def rule(self) -> str:
        """Assigning one keeps the parameters that both rules have, and gives its others the paper's values."""
        return self._params.rule

    @rule.setter
    def rule(self, rule: str) -> None:
        names = {parameter.name for parameter in RULES[rule].parameters} if rule in RULES else set()
        kept = {name: value for name, value in self.rule_parameters.items() if name in names}
        params = replace(self._params, rule=rule, of_rule=of_rule(rule, kept))
        if params.drive != self._params.drive:  # of the old rule, whose slots the potential goes with
            self._state = settled(self._params, self._state)
        self._params = params

    @property
    def rule_parameters(self) -> dict[str, float]:
        """The rule's own parameters by name; assigning some of them validates."""
        return dict(
            zip((parameter.name for parameter in self._params.kind.parameters), self._params.of_rule, strict=True)
        )

    @rule_parameters.setter
    def rule_parameters(self, values: dict[str, float]) -> None:
        self._params = replace(self._params, of_rule=of_rule(self.rule, {**self.rule_parameters, **values}))

    @property
    def surrogate_function(self) -> Any:
        """As given: one of SpikingJelly's may change its alpha between calls."""
        return self._surrogate

    @surrogate_function.setter
    def surrogate_function(self, given: Any) -> None:
        self._params = replace(self._params, surrogate=given)
        self.__dict__["_surrogate"] = given

    def __setattr__(self, name: str, value: Any) -> None:
        # SpikingJelly's surrogates are modules, which torch takes for children
        if name == "surrogate_function":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def store_v_seq(self) -> bool:
        return self._store_v_seq

    @store_v_seq.setter
    def store_v_seq(self, store: bool) -> None:
        if isinstance(store, str):
            raise TypeError(
                f"store_v_seq is {store!r}; it must be True or False. SpikingJelly before version 2 has `backend` in "
                "its place: leave that out, fastsnn.use_backend chooses"
            )
        self._store_v_seq = flag("store_v_seq", store)

    def _stabilizer(self, threshold: str | None, fixed: bool) -> ThresholdStabilizer | None:
        flag("fixed_threshold", fixed)
        if threshold not in (None, "ots"):
            raise ValueError(f"threshold is {threshold!r}; allowed: None (constant, v_threshold) and 'ots'")
        if threshold is None:
            if fixed:
                raise ValueError("fixed_threshold=True needs threshold='ots': without, the threshold is constant")
            return None
        if self.mpdr is not None:
            raise ValueError("threshold='ots' and mpdr both act on u; use one of them")
        ots.check_params(self._params)
        return ThresholdStabilizer(fixed)

    @classmethod
    def for_rule(cls, rule: str, **kwargs: Any) -> LIF:
        """A neuron with the defaults of the rule's paper (soft reset, decay_input False, its surrogate).

        Keyword arguments override them. Raises ValueError for an unknown rule.
        """
        return cls(**{**defaults_of(rule), **kwargs}, rule=rule)

    @property
    def mpdr(self) -> MPDR | None:
        return self._mpdr

    @mpdr.setter
    def mpdr(self, mpdr: MPDR | None) -> None:
        if not isinstance(mpdr, MPDR | None):
            raise TypeError(f"mpdr is {type(mpdr).__name__}; it must be a fastsnn.online.MPDR, or None")
        self._mpdr = mpdr

    @property
    def moments(self) -> Tensor | None:
        """With MPDR: mean and biased variance of u of each step of the last call, [T, 2] in float64 (T = 1 for a step),
        with gradient. None before the first call after a reset."""
        self._unread = False
        return self._moments

    @property
    def mpdr_loss(self) -> Tensor | None:
        """With MPDR: L_M (without its weight) of each step of the last call, [T], to be added to the loss."""
        moments = self.moments
        return None if moments is None or self._mpdr is None else self._mpdr.loss(moments)

    @property
    def z_score(self) -> Tensor | None:
        """With MPDR: (th - m)/sd of u of each step of the last call, [T]."""
        return None if self._moments is None else z_score(self._moments, self._params.threshold)

    @property
    def state(self) -> LIFState:
        """The state between steps; assign one to restore it. What is written into its tensors holds from the next
        step on."""
        self._met()
        return self._shared(self._state)

    @state.setter
    def state(self, state: LIFState) -> None:
        self._met()
        self._state = self._shared(LIFState(*state))
        restarts = self._restarting()
        self._restarts = restarts is not None and state[restarts] is not None

    def _restarting(self) -> int | None:
        """Where in a state the slot stands whose start is infinite; its values are finite."""
        p = self._params
        starts = [place for place, slot in zip(p.places, p.kind.slots, strict=True) if math.isinf(slot.start)]
        return starts[0] if starts else None

    def _shared(self, state: LIFState) -> LIFState:
        """The state as other tensors of the same memory: an online rule takes the memory of its own alone again."""
        return state.map(Tensor.detach) if self._params.online else state

    @property
    def v(self) -> Tensor | float:
        """Potential after the last step's reset; the reset potential as a number before the first step.

        What is written into it (`v[mask] = 0`), or assigned, a tensor or a number, is what the next step starts from.
        """
        self._met()
        state = self._state
        if state.potential is None:
            return self._params.v_start
        if not isinstance(state.potential, Tensor):
            return state.potential
        if not state.is_v:
            # a tensor of the state, so that the next step sees what is written into it
            state = self._state = settled(self._params, state)
        return self._shared(state).potential  # type: ignore[return-value]

    @v.setter
    def v(self, value: Tensor | float) -> None:
        self._met()
        state = settled(self._params, self._state) if self._params.drive else self._state
        self._state = self._shared(replaced(state, potential=self._potential_of(value), is_v=True))

    @property
    def trace(self) -> Tensor | None:
        """Eligibility trace after the last step; None before the first, and where the rule has none."""
        return self.state.trace

    def restarted(self, mask: Tensor) -> LIFState:
        """The state where the samples of mask [N] are at t = 1. Raises ValueError where mask does not fit."""
        state = self._state
        held = [value for value in state if isinstance(value, Tensor)]
        if not held:
            return state
        again = of_samples(mask, held[0])

        def anew(value: Tensor | None, start: Any) -> Tensor | None:
            return None if value is None else torch.where(again, start, value)

        p, state = self._params, settled(self._params, self._usable(state, held[0], False))
        slots = [anew(value, slot.start) for value, slot in zip(slots_at(p.places, state), p.kind.slots, strict=True)]
        keep = anew(state.keep, 1.0 if state.keep is None else self._draw_keep(state.keep))
        return state_of(p.places, anew(state.potential, p.v_start), True, slots, keep)

    def reset(self) -> None:
        """Forget the state: the next call is t = 1."""
        self._expect_term()
        self._met()
        self._state = self._spare = EMPTY
        self._restarts = False
        self.v_seq: Tensor | None = None
        self._backend: str | None = None
        self._moments: Tensor | None = None
        if self.stabilizer is not None:
            self.stabilizer.reset()

    def detach(self) -> None:
        """Cut the state out of the graph."""
        self._expect_term()
        super().detach()
        self.v_seq = None if self.v_seq is None else self.v_seq.detach()
        self._moments = None if self._moments is None else self._moments.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of one step [N, *], or of a sequence [T, N, *] in step mode "m".

        Raises TypeError or ValueError for an input that is not floating or does not fit the state.
        """
        x, sequence = plain(x), self._step_mode == "m"
        if self.stabilizer is not None:
            return self._stabilized(x, sequence, self.stabilizer)
        params, state = self._before(x, sequence)
        mpdr, apart = (False, None) if self._mpdr is None else self._regularised(x, self._mpdr)
        v_seq = self._store_v_seq and sequence
        ran = op.run(params, x, state, sequence, v_seq, self._spare, mpdr, apart)
        return self._after(ran, sequence)

    def _stabilized(self, x: Tensor, sequence: bool, stabilizer: ThresholdStabilizer) -> Tensor:
        """As forward, with the stabilised threshold: its steps cannot share a kernel."""
        if sequence:
            op.check_input(x, True)
            self.v_seq = None
            return torch.stack([self._stabilized(x_t, False, stabilizer) for x_t in x])
        ots.check_params(self._params)
        params, state = self._before(x, False)
        stabilize = partial(stabilizer, start=params.threshold)
        return self._after(ots.run(params, x, state, stabilize), False)

    def _before(self, x: Tensor, sequence: bool) -> tuple[LIFParams, LIFState]:
        """What a call runs with."""
        in_graph = is_dynamo_compiling()
        if not in_graph:
            running(self)
        params, state = self._params, self._state
        if self._surrogate is not params.surrogate:
            params = self._present()
        potential = state[0]
        if potential is not None and (in_graph or potential.__class__ is not Tensor or potential.is_inference()):
            state = self._usable(state, x, sequence)
        if not self.training:
            params = params.untraced
            slots = slots_at(params.places, state)
            return params, state_of(params.places, state.potential, state.is_v, slots, None)
        if self.dropout and state.keep is None:
            op.check_input(x, sequence)
            state = replaced(state, keep=self._draw_keep(x[0] if sequence else x))
        return params, self._before_first(state, sequence) if self._restarts else state

    def _present(self) -> LIFParams:
        """The layer's parameters, with the present alpha of a surrogate of SpikingJelly's."""
        given, p = self._surrogate, self._params
        if surrogate.is_as(given, p.surrogate):
            return p
        if is_dynamo_compiling():
            raise RuntimeError(
                "surrogate_function changed after the layer read it, which a graph of torch.compile cannot follow: "
                "assign it again, neuron.surrogate_function = neuron.surrogate_function, before the next call"
            )
        self._params = replace(p, surrogate=given)  # type: ignore[arg-type]
        return self._params

    def _before_first(self, state: LIFState, sequence: bool) -> LIFState:
        """For a kernel, which starts all neurons or none at t = 1: there the trace is 0, whatever its factor."""
        place: Any = self._restarting()
        value: Any = state[place]
        first = torch.isinf(value)
        if sequence and bool(first.any()):
            raise RuntimeError(
                f"single samples start anew (fastsnn.reset(net, mask)) and rule {self.rule!r} can do that in step_mode "
                "'s' alone: their first step follows another formula; run that step by itself, or reset all"
            )
        return replaced(state, **{LIFState._fields[place]: value.masked_fill(first, 0.0)})

    def _after_first(self, state: LIFState) -> LIFState:
        """With the slot that samples in their first step have."""
        place: Any = self._restarting()
        before, after = (None, None) if place is None else (self._state[place], state[place])
        if state.potential is None or not isinstance(before, Tensor) or not isinstance(after, Tensor):
            return state
        v: Any = settled(self._params, state).potential
        alone = self._params.kind.first(self._params, v)
        return replaced(state, **{LIFState._fields[place]: torch.where(before.isinf(), alone, after)})

    def _after(self, ran: op.LIFOutput, sequence: bool) -> Tensor:
        """Keeps the new state and returns the spikes, with their trace where there is one."""
        own = self.__dict__  # nn.Module's own way to its attributes costs as much as a small step
        state, old, training = ran.state, own["_state"], own["training"]
        if not training and (old.trace is not None or old.keep is not None):
            # what training goes on with
            kept = {
                LIFState._fields[place]: old[place] for place in self._params.places if place not in self._params.drive
            }
            state = replaced(state, keep=old.keep, **kept)
        elif training and own["_restarts"]:
            state = self._after_first(state)
            self._restarts = False
        own["_spare"], own["_state"], own["_backend"] = ran.spare, state, ran.backend
        if own["_store_v_seq"]:
            self._store(ran.v if sequence else self.v, sequence)
        if ran.moments is not None:
            own["_moments"] = ran.moments
            own["_unread"] = training and not is_dynamo_compiling() and ran.moments.requires_grad
        return ran.spikes if ran.trace is None else TracedSpikes.of(ran.spikes, ran.trace)

    def _regularised(self, x: Tensor, mpdr: MPDR) -> tuple[bool, Apart | None]:
        """Whether this call takes the moments of u, and what keeps their gradient from lower layers."""
        self._expect_term()
        in_graph = by_operators(x)
        if in_graph and not self.training:
            return False, None
        if not (mpdr.propagate or self._params.online):
            raise ValueError(
                "rule 'bptt' carries MPDR's gradient through time together with the loss's, so that it cannot be kept "
                "from lower layers; pass MPDR(propagate=True)"
            )
        if in_graph and not mpdr.propagate:
            raise RuntimeError(
                "MPDR(propagate=False) keeps its gradient from lower layers by autograd's nodes, which a graph of "
                "torch.compile or of a tracer does not have: pass propagate=True, or train outside of torch.compile"
            )
        return True, None if mpdr.propagate else apart_of(x)

    def _expect_term(self) -> None:
        """Warns where the last call was a step of training, with its backward, and nobody asked for its term."""
        if is_dynamo_compiling() or not self._unread:
            return
        self._unread = False
        if self._moments is not None and op.has_run(self._moments):
            warnings.warn(
                "a LIF has mpdr and the loss of its last step has no term of it, so that mpdr did nothing there: add "
                "fastsnn.online.regularisation(net) to the loss of every step (fastsnn.online.train_batch does)",
                stacklevel=2,
            )

    def _store(self, v: Any, sequence: bool) -> None:
        if sequence:
            self.v_seq = v
        else:
            # a copy: what is written into v does not change it
            self.v_seq = torch.cat([*([] if self.v_seq is None else [self.v_seq]), v.unsqueeze(0)])

    def _draw_keep(self, x: Tensor) -> Tensor:
        """Dropout mask of a sequence: 0 or 1/(1-p)."""
        ones = torch.ones_like(x, dtype=state_dtype(x.dtype), requires_grad=False)
        return nn.functional.dropout(ones, self.dropout, True)

    def explain(self, device: str | torch.device = "cpu") -> str:
        """Which backend ran last, and for every backend whether it would run on `device` and why."""
        rows = backends.explain("lif" if self._mpdr is None else "mpdr", device)
        lines = [
            f"last call: {self._backend or 'none yet'}",
            *(f"{name}: {verdict}" for name, verdict in rows),
        ]
        return "\n".join(lines)

    def extra_repr(self) -> str:
        p = self._params
        text = (
            f"rule={p.rule!r}, tau={p.tau}, decay_input={p.decay_input}, v_threshold={p.v_threshold}, "
            f"v_reset={p.v_reset}, surrogate_function={p.surrogate}, detach_reset={p.detach_reset}, "
            f"step_mode={self.step_mode!r}"
        )
        text += "".join(f", {name}={value}" for name, value in self.rule_parameters.items())
        text += f", dropout={self.dropout}" if self.dropout else ""
        return text + (f", mpdr={self.mpdr}" if self.mpdr else "")

    def __getstate__(self) -> dict[str, Any]:
        """Values, not their graph."""
        kept = {name: getattr(self, name) for name in ("v_seq", "_moments")}
        kept_state = {**super().__getstate__(), "_spare": EMPTY, "_unread": False}
        return {**kept_state, **{name: None if t is None else t.detach() for name, t in kept.items()}}
