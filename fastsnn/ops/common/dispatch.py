"""Which way a call takes: straight to a kernel, through the registered operators, or none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

_keys = torch._C._dispatch_keys
_modes = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state
_transforms = torch._C._functorch.peek_interpreter_stack

_KEPT = (Tensor, type(None))

TRANSFORMED = (
    "fastsnn's kernels have no rule for vmap, jvp and other torch.func (functorch) transforms: give them the whole "
    "batch, [N, *], and differentiate by torch.autograd"
)

# dispatch keys of tensors that are memory and nothing else
_ordinary: set[int] = set()


def by_operators(*given: Tensor | None, state: tuple[Any, ...] = ()) -> bool:
    """Whether a call with these tensors is for the registered operators: in a graph of torch.compile, while torch.jit
    or make_fx traces, under a TorchDispatchMode (FakeTensor, FLOP counters), and for tensors that are not just memory.

    state: tensors that a kernel made in most calls, of which only the type is looked at in the usual circumstances.

    Raises RuntimeError for what neither can take: vmap and other torch.func transforms, tangents of forward-mode
    automatic differentiation, DTensor, nested, sparse and other layouts.
    """
    if is_dynamo_compiling():
        return True
    unusual = forward_ad._current_level >= 0 or _modes() or _tracing() is not None or _transforms() is not None
    if unusual or (state and type(state[0]) not in _KEPT):
        return _in_unusual_circumstances((*given, *state))
    for tensor in given:
        if tensor is not None and _keys(tensor).raw_repr() not in _ordinary:
            return _in_unusual_circumstances(given)
    return False


@contextmanager
def straight() -> Iterator[None]:
    """Calls inside go to kernels under a TorchDispatchMode too: for one that counts what a call does without it."""
    global _modes
    before, _modes = _modes, lambda: 0
    try:
        yield
    finally:
        _modes = before


def _in_unusual_circumstances(given: tuple[Any, ...]) -> bool:
    tensors = [value for value in given if isinstance(value, Tensor)]
    if _transforms() is not None:  # what is not wrapped meets what a kernel allocates, which is
        raise RuntimeError(TRANSFORMED)
    if forward_ad._current_level >= 0:
        _refuse_tangents(tensors)
    ordinary = [_is_ordinary(tensor) for tensor in tensors]  # each may be refused
    return _modes() > 0 or _tracing() is not None or not all(ordinary)


def traced_by_jit() -> bool:
    """Whether torch.jit.trace makes a program, which keeps no state. Graphs for counting and export do not count."""
    return not torch.compiler.is_compiling() and torch.jit._trace._trace_module_map is not None


def _is_ordinary(tensor: Tensor) -> bool:
    """Whether kernels can read the tensor's memory. Raises RuntimeError as `by_operators`."""
    functorch = torch._C._functorch
    if functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor):
        raise RuntimeError(TRANSFORMED)
    if tensor.is_nested:
        raise RuntimeError("a nested (jagged) tensor was given; kernels take one shape: pad it, or loop over its parts")
    if tensor.layout != torch.strided:
        raise RuntimeError(f"a tensor of layout {tensor.layout} was given; kernels take strided ones: x.to_dense()")
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(tensor, distributed.DTensor):
        raise RuntimeError("a DTensor was given; kernels run on what this process holds: x.to_local()")
    plain = type(tensor) in (Tensor, torch.nn.Parameter, torch.nn.Buffer)
    if not plain or tensor.is_neg() or tensor._is_zerotensor():
        return False
    _ordinary.add(_keys(tensor).raw_repr())
    return True


def _refuse_tangents(tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError(
                "a dual tensor was given: fastsnn has no forward-mode derivative (jvp); use reverse mode, "
                "torch.autograd.grad or torch.autograd.functional.jacobian"
            )
