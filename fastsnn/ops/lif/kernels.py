"""The LIF family, with and without MPDR, on one core."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, empty_like

from ...backends import register
from ...backends.core import Core
from ...reference import lif, mpdr
from ...types import EMPTY, Forward, LIFParams, LIFState, MPDRGradient, Saved, new, state_dtype
from ..common.kernels import DTYPES, NeuronFamily


def _empty_float(x: Tensor) -> Tensor:
    return empty_like(x, dtype=torch.float32)


EMPTY_STATE = {dtype: empty_like if state_dtype(dtype) == dtype else _empty_float for dtype in DTYPES}


class LIFKernels(NeuronFamily):
    """LIF kernels of one core; signatures as fastsnn.reference.lif, and fastsnn.reference.mpdr."""

    CALLS = ("lif_", "mpdr_")

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.SAVES_U = core.saves_u

    def forward(
        self,
        p: LIFParams,
        x: Tensor,
        state: LIFState,
        sequence: bool,
        v_seq: bool = False,
        into: LIFState = EMPTY,
        u_seq: bool = False,
        moments_out: Tensor | None = None,
    ) -> Forward:
        one = x[0] if sequence else x
        dtype = x.dtype
        code = DTYPES[dtype]
        empty, spikes = EMPTY_STATE[dtype], empty_like(x)
        u, v = into[0], None
        if u is None:
            u = empty(x if u_seq else one)
        if v_seq or not p.online:
            v = empty(x if v_seq else one)
        before: list[Any] = []
        after: list[Any] = []
        first, like = False, x if p.traced else one
        for place in p.places:
            given, taken = state[place], into[place]
            first = first or given is None
            before.append(given)
            after.append(empty(like) if taken is None else taken)
            like = one
        run = self._core.lif_forward
        if moments_out is not None:
            workspace = self._sums_of_blocks(x, len(moments_out), one.numel())
            run = partial(self._core.mpdr_forward, moments=moments_out, workspace=workspace)
        # the first by position: with more than 15 names Python makes a dict of every call
        run(
            self._params(p),
            self._where(x),
            len(x) if sequence else 1,
            one.numel(),
            code,
            first,
            state[1],
            x=x,
            potential=state[0],
            slots=tuple(before),
            keep=state[4],
            spikes=spikes,
            u_last=None if u_seq else u,
            u_seq=u if u_seq else None,
            v_last=None if v_seq else v,
            v_seq=v if v_seq else None,
            slots_out=tuple(after),
        )
        return new(Forward, (spikes, u, v, after))

    def backward(
        self,
        p: LIFParams,
        saved: Saved,
        g_s: Tensor | None,
        g_v: Tensor | None = None,
        g_v_seq: Tensor | None = None,
        want_v: bool = False,
        mpdr: MPDRGradient | None = None,
        g_drive: Sequence[Tensor | None] = (),
    ) -> tuple[Tensor, Tensor | None, Sequence[Tensor], Tensor | None]:
        like: Any = saved.x if saved.u is None else saved.u
        one = like[0] if saved.sequence else like
        g_x = empty_like(like) if like.dtype == saved.dtype else empty_like(like, dtype=saved.dtype)
        g_v_first = empty_like(one, dtype=state_dtype(saved.dtype)) if want_v else None
        slots: tuple[Any, ...] = ()
        g_last: tuple[Any, ...] = ()
        g_first: tuple[Any, ...] = ()
        if p.drive:
            absent = (None,) * len(p.drive)
            slots, g_last = tuple(saved.drive) or absent, tuple(g_drive) or absent
            g_first = absent if g_v_first is None else tuple(empty_like(g_v_first) for _ in absent)
        run = self._core.lif_backward_online if p.online else self._core.lif_backward_bptt
        local = None
        if mpdr is not None:
            run = self._core.mpdr_backward_online if p.online else self._core.mpdr_backward_bptt
            local = empty_like(g_x) if mpdr.local else None
            run = partial(run, coefficients=mpdr.rows, g_local=local)
        run(
            self._params(p),
            self._where(like),
            len(like) if saved.sequence else 1,
            one.numel(),
            DTYPES[saved.dtype],
            saved.is_v,
            g_spikes=g_s,
            keep=saved.keep,
            u=saved.u,
            x=saved.x,
            potential=saved.potential,
            slots=slots,
            g_v_last=g_v,
            g_slots_last=g_last,
            g_v_seq=g_v_seq,
            g_x=g_x,
            g_v_first=g_v_first,
            g_slots_first=g_first,
        )
        return g_x, g_v_first, g_first, local


register("lif", LIFKernels, lif)
register("mpdr", LIFKernels, mpdr)
