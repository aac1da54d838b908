"""The LIF operation: checks, autograd.Functions and the functional entry."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import backends, graphs, surrogate
from ...reference.lif import settled, settled_drive
from ...rules import RULES, SLOTS, Rule
from ...types import (
    EMPTY,
    FIELDS,
    FLOATING,
    Forward,
    LIFParams,
    LIFState,
    cached_params,
    flag,
    new,
    of_rule,
    replaced,
    slots_at,
    state_dtype,
    state_of,
)
from ..common import layout, memory
from ..common.autograd import of_neuron
from ..common.dispatch import by_operators, traced_by_jit
from . import graph, passes

__all__ = ["LIFResult", "lif_sequence", "lif_step", "run"]


def check_input(x: Tensor, sequence: bool) -> None:
    """Raises TypeError or ValueError where x is not a floating tensor (with a time dimension for a sequence)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x is {type(x).__name__}; it must be a torch.Tensor of input current")
    if x.dtype not in FLOATING:
        raise TypeError(
            f"x has dtype {x.dtype}; allowed: {', '.join(str(d) for d in FLOATING)}. Convert it with x.float()"
        )
    if sequence and (x.dim() == 0 or x.shape[0] == 0):
        raise ValueError(f"x has shape {tuple(x.shape)}; step_mode 'm' needs [T, N, *] with T >= 1")


def check_state(x: Tensor, state: LIFState, sequence: bool) -> None:
    """Raises ValueError where a state tensor does not fit one step of x."""
    shape = x.shape[1:] if sequence else x.shape
    dtype, device = state_dtype(x.dtype), x.device
    value: Any
    for name, value in zip(FIELDS, state):  # noqa: B905 (strict costs in a hot path)
        if value is None or name == "is_v":
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"state {name} is {value!r} ({type(value).__name__}); it must be a tensor, or None")
        if value.shape != shape or value.dtype != dtype or value.device != device:
            raise ValueError(
                f"state {name} is {tuple(value.shape)}, {value.dtype} on {value.device} and x ({x.dtype}) needs "
                f"{tuple(shape)}, {dtype} on {device}: call fastsnn.reset(net) before a new sequence, or pass a "
                "state that fits"
            )


class OnlineLIF(torch.autograd.Function):
    """Spikes of an online rule, and the moments of u where wanted, as functions of x; v[t-1] is detached, so g_x[t] =
    gain*(g_s[t]*sg(u[t] - th) + g_u[t]), g_u through the moments (lif.md, rptt.md). With `apart` g_u goes to
    `parameters` alone. u, the saved one, is an output for `first_order`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: passes.Call, *parameters: Tensor) -> Any:
        out, moments = passes.save(ctx, x, call)
        return (out.spikes, out.u) if moments is None else (out.spikes, out.u, moments)

    @staticmethod
    @of_neuron
    def backward(ctx: Any, g_s: Tensor | None, _: None, g_moments: Tensor | None = None) -> Any:
        if g_s is None and g_moments is None:
            return (None,) * len(ctx.needs_input_grad)
        p, kernels, sequence, _, _, _, apart = ctx.kept
        saved, moments = passes.load(ctx)
        g_s = layout.fitted(g_s, saved, sequence)
        if moments is None:
            return kernels.backward(p, saved, g_s)[0], None
        ctx.ran = True  # which `has_run` asks of the moments
        mpdr = None if g_moments is None else passes.mpdr_gradient(saved, moments, g_moments, apart)
        g_x, _, _, local = kernels.backward(p, saved, g_s, mpdr=mpdr)
        if apart is None:
            return g_x, None
        more = (None,) * len(apart.parameters) if mpdr is None else apart.gradients(local)
        return None if g_s is None else g_x, None, *more


class BPTTLIF(torch.autograd.Function):
    """Spikes, v, the moments of u and the slots that spikes depend on as functions of x, v and those slots, with the
    gradient through time (equations/lif.md). v is that of the last step, or of every step; u as OnlineLIF's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor | None, call: passes.Call, *drive: Tensor | None) -> Any:
        p, _, _, sequence, *_ = call
        out, moments = passes.save(ctx, x, call)
        return out.spikes, out.v, moments, out.u, *settled_drive(p, out, sequence)

    @staticmethod
    @of_neuron
    def backward(
        ctx: Any, g_s: Tensor | None, g_v: Tensor | None, g_moments: Tensor | None, _: None, *g_drive: Tensor | None
    ) -> Any:
        p, kernels, sequence, v_seq, *_ = ctx.kept
        saved, moments = passes.load(ctx)
        g_v = layout.fitted(g_v, saved, v_seq)
        last, every = (None, g_v) if v_seq else (g_v, None)
        g_s = layout.fitted(g_s, saved, sequence)
        ctx.ran = True
        pulled = moments is not None and g_moments is not None
        more: dict[str, Any] = {"mpdr": passes.mpdr_gradient(saved, moments, g_moments, None)} if pulled else {}
        if g_drive:
            more["g_drive"] = [layout.fitted(g, saved, False) for g in g_drive]
        needs = ctx.needs_input_grad
        g_x, g_v_first, g_first, _ = kernels.backward(p, saved, g_s, last, every, any(needs[1:]), **more)
        first: list[Any] = [g if need else None for g, need in zip(g_first or g_drive, needs[3:], strict=True)]
        return g_x, g_v_first if needs[1] else None, None, *first


def has_run(moments: Tensor) -> bool:
    """Whether a backward came through the call that these moments are of."""
    return getattr(moments.grad_fn, "ran", False)


class LIFOutput(NamedTuple):
    """One call's outcome: spikes, state after it, trace of every step, v (of every step where asked), with MPDR the
    moments of u, [T, 2], with gradient, and the state before it whose memory the call after the next may take."""

    spikes: Tensor
    state: LIFState
    trace: Tensor | None
    v: Tensor | None
    backend: str
    moments: Tensor | None = None
    spare: LIFState = EMPTY


def run(
    p: LIFParams,
    x: Tensor,
    state: LIFState = EMPTY,
    sequence: bool = False,
    v_seq: bool = False,
    spare: LIFState | None = None,
    mpdr: bool = False,
    apart: Any = None,
) -> LIFOutput:
    """One step (or a sequence [T, *]) of p from `state`. spare: of a layer, the `spare` that its step before returned:
    under an online rule the new state takes that memory wherever nothing else holds it, and `state` stays as it is, so
    that a step which is interrupted has not happened; within `memory.in_place` it takes that of `state`. mpdr: with the
    moments of u; apart: the `ops.mpdr.Apart` that keeps their gradient from x.

    Raises TypeError or ValueError for an input or a state that does not fit, RuntimeError for a tensor that no kernel
    takes, BackendError where no backend runs.
    """
    check_input(x, sequence)
    through = by_operators(x, state=state)
    if through or not passes.ready(x, state, sequence):
        check_state(x, state, sequence)
        if through:
            return _by_operators(p, x, state, sequence, v_seq, spare is not None, mpdr)
        x, state = layout.aligned(x, state, sequence)
    kernels = backends.select("mpdr" if mpdr else "lif", x)
    moments = passes.empty_moments(x, sequence) if mpdr else None
    try:
        if p.online:
            return _run_online(p, kernels, x, state, sequence, v_seq, spare, moments, apart)
        return _run_through_time(p, kernels, x, state, sequence, v_seq, moments)
    except (RuntimeError, ValueError):
        check_state(x, state, sequence)
        raise


def _run_online(
    p: LIFParams,
    kernels: Any,
    x: Tensor,
    state: LIFState,
    sequence: bool,
    v_seq: bool,
    spare: LIFState | None,
    moments: Tensor | None,
    apart: Any,
) -> LIFOutput:
    large = spare is not None and not sequence and x.numel() >= memory.WORTH_ASKING
    into = left = EMPTY
    if large and spare is not None:
        into, left = passes.memory_of_next(replaced(state, keep=None), spare, x)
    if moments is None:
        out = kernels.forward(p, x, state, sequence, v_seq, into)
    else:
        out = kernels.forward(p, x, state, sequence, v_seq, into, moments_out=moments)
    spikes, u = out.spikes, out.u
    if x.requires_grad and torch.is_grad_enabled():
        call = (p, kernels, state, sequence, v_seq, out, moments, apart)
        if moments is None:
            spikes, u = OnlineLIF.apply(x, call)
        else:
            spikes, u, moments = OnlineLIF.apply(x, call, *(() if apart is None else apart.parameters))
        u.detach_()
    ran = _online(p, spikes, u, out, state, sequence, kernels.NAME, moments)
    if not large:
        return ran
    # what others hold must be another tensor of the same memory for `passes` to see it
    return ran._replace(state=ran.state.map(Tensor.detach), spare=left)


def _run_through_time(
    p: LIFParams, kernels: Any, x: Tensor, state: LIFState, sequence: bool, v_seq: bool, moments: Tensor | None
) -> LIFOutput:
    wanted = {} if moments is None else {"moments_out": moments}
    start = settled(p, state)
    v_first: Any = start.potential
    given = slots_at(p.drive, start)
    held = any(value is not None and value.requires_grad for value in (v_first, *given))
    differentiable = torch.is_grad_enabled() and (x.requires_grad or held)
    u_seq = differentiable and sequence and passes.saves_u(p, kernels)
    out = kernels.forward(p, x, start, sequence, v_seq, EMPTY, u_seq, **wanted)
    spikes, v_after, drive = out.spikes, out.v, settled_drive(p, out, sequence)
    if differentiable:
        call = (p, kernels, start, sequence, v_seq, out, moments, None)
        spikes, v_after, moments, _, *drive = BPTTLIF.apply(x, v_first, call, *given)
    return _through_time(p, spikes, v_after, drive, state, v_seq, kernels.NAME, moments)


def _online(
    p: LIFParams,
    spikes: Tensor,
    u: Tensor | None,
    out: Forward,
    state: LIFState,
    sequence: bool,
    name: str,
    moments: Tensor | None,
) -> LIFOutput:
    """After a call from `state`; spikes and u: of `out`, as autograd has them and as the state keeps it."""
    slots, trace = out.slots, out.slots[0] if p.traced else None
    if sequence and trace is not None:
        slots = [trace[-1].clone(), *slots[1:]]
    after = state_of(p.places, u, False, slots, state.keep)
    return new(LIFOutput, (spikes, after, trace, out.v, name, moments, EMPTY))


def _through_time(
    p: LIFParams,
    spikes: Tensor,
    v: Any,
    drive: Sequence[Tensor],
    state: LIFState,
    v_seq: bool,
    name: str,
    moments: Tensor | None,
) -> LIFOutput:
    after = state_of(p.drive, v[-1].clone() if v_seq else v, True, drive, state.keep)
    return new(LIFOutput, (spikes, after, None, v, name, moments, EMPTY))


def _by_operators(
    p: LIFParams, x: Tensor, state: LIFState, sequence: bool, v_seq: bool, of_layer: bool, mpdr: bool
) -> LIFOutput:
    """As `run`: the registered operators have their own gradient."""
    if of_layer:
        _check_export(state, sequence)
    if not p.online:
        state = settled(p, state)
    out, moments = graph.forward(p, x, state, sequence, v_seq, mpdr)
    if p.online:
        return _online(p, out.spikes, out.u, out, state, sequence, graph.NAME, moments)
    return _through_time(p, out.spikes, out.v, out.slots, state, v_seq, graph.NAME, moments)


@graphs.constant
def _exporting() -> bool:
    """In a graph as outside: inside of torch 2.11's, `is_exporting` is always true."""
    return torch.compiler.is_exporting()


def _check_export(state: LIFState, sequence: bool) -> None:
    """Raises RuntimeError where an exported program, which keeps no state, would differ from the layer."""
    if (_exporting() or traced_by_jit()) and (not sequence or state.potential is not None):
        raise RuntimeError(
            "an exported program starts every call at t = 1 and keeps no state: use step_mode='m' ([T, N, *] a call), "
            "and call fastsnn.reset(net) before torch.export or torch.jit.trace"
        )


class LIFResult(NamedTuple):
    """spikes in x's dtype; v after reset, trace and ratio in the state's dtype (None where the rule has none). A rule
    with other slots returns them behind these, by their names, as they are after the reset."""

    spikes: Tensor
    v: Tensor
    trace: Tensor | None
    ratio: Tensor | None


def _result_of(rule: Rule) -> Any:
    more = [slot.name for slot in rule.slots if slot.name not in LIFResult._fields]
    return namedtuple(LIFResult.__name__, (*LIFResult._fields, *more)) if more else LIFResult


_RESULTS = {rule.name: _result_of(rule) for rule in RULES.values()}


def _functional(
    x: Tensor, state: LIFState, more: dict[str, Any], params: Any, sequence: bool, v_seq: bool = False
) -> LIFResult:
    """more: slots, and parameters of the rule, by name."""
    slots = {name: more.pop(name) for name in SLOTS if name in more}
    p = cached_params(*(*params, of_rule(params[-1], more)))
    state = replaced(state, **slots) if slots else state
    if p.online:
        state = state.map(Tensor.detach)
    ran = run(p, x, state, sequence, v_seq)
    after = settled(p, ran.state) if ran.v is None or p.drive else ran.state
    result = _RESULTS[p.rule]
    others = [getattr(after, name) for name in result._fields[3:]]
    return result(ran.spikes, after.potential if ran.v is None else ran.v, ran.trace, *others)


def lif_step(
    x: Tensor,
    v: Tensor | None = None,
    trace: Tensor | None = None,
    ratio: Tensor | None = None,
    *,
    keep: Tensor | None = None,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    surrogate_function: surrogate.Surrogate = surrogate.Sigmoid(),  # noqa: B008 (immutable)
    detach_reset: bool = False,
    rule: str = "bptt",
    **more: Any,
) -> LIFResult:
    """One LIF step with explicit state (equations/lif.md; Xiao et al. 2022, Jiang et al. 2024, Meng et al. 2023).

    x [N, *], input current. v, trace, ratio: state before the step, shape of x, float64 for float64 x and
    float32 otherwise; None before the first step. keep: dropout mask of the sequence, 0 or 1/(1-p), of the
    state's dtype. The rest as `fastsnn.LIF`; by keyword also the rule's other slots, as its state, and its parameters.

    Returns spikes, v, trace a[t], ratio e[t] and the rule's other slots. Gradients: to x, and under rules through time
    through v and such slots.
    Raises TypeError and ValueError for arguments that do not fit, BackendError where no backend runs.
    """
    params = (tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, rule)
    return _functional(x, LIFState(v, True, trace, ratio, keep), more, params, False)


def lif_sequence(
    x: Tensor,
    v: Tensor | None = None,
    trace: Tensor | None = None,
    ratio: Tensor | None = None,
    *,
    keep: Tensor | None = None,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    surrogate_function: surrogate.Surrogate = surrogate.Sigmoid(),  # noqa: B008 (immutable)
    detach_reset: bool = False,
    rule: str = "bptt",
    store_v_seq: bool = False,
    **more: Any,
) -> LIFResult:
    """All T steps of x [T, N, *] in one kernel; equals the loop over `lif_step` exactly.

    Arguments and errors as `lif_step`. Returns spikes [T, N, *], v after the last step (of every step,
    [T, N, *], with store_v_seq), the trace of every step [T, N, *] and the last ratio.
    """
    params = (tau, decay_input, v_threshold, v_reset, surrogate_function, detach_reset, rule)
    store = flag("store_v_seq", store_v_seq)
    return _functional(x, LIFState(v, True, trace, ratio, keep), more, params, True, store)
