"""Shared by the families' autograd.Functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

TWICE = (
    "fastsnn's gradients are first order (once_differentiable) and a derivative of one was asked for, by a gradient "
    "penalty, a Hessian-vector product or the like: surrogate gradients have none. Detach the gradient before it "
    "enters a loss, or leave the layer out of what is differentiated with create_graph=True"
)


class Refusal(torch.autograd.Function):
    """A first-order gradient that raises where it is differentiated, on the way to whatever `roots` depend on."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *roots: Tensor) -> Tensor:
        return gradient.detach()

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(TWICE)


class _Passes(threading.local):
    """Of this thread: whether the present backward pass is one of `up_to_neurons`."""

    end = False


_passes = _Passes()


def ends_at_neurons() -> bool:
    """Whether the present backward pass is one of `up_to_neurons`."""
    return not is_dynamo_compiling() and _passes.end


@contextmanager
def up_to_neurons() -> Iterator[None]:
    """A backward pass inside of another that ends at the neurons it meets."""
    _passes.end = True
    try:
        yield
    finally:
        _passes.end = False


def first_order(backward: Callable[..., Any], neuron: bool = False) -> Callable[..., Any]:
    """A backward that is not differentiable itself: where a graph is made of it, its gradients raise when they are
    differentiated. Roots are what requires gradient among the incoming gradients and the saved tensors: a Function
    saves the inputs that its gradient depends on, or an output, from which they can be reached.

    neuron: passes `up_to_neurons` end here."""

    def choose(ctx: Any, *grads: Any) -> Any:
        # a graph's backward is differentiated by nobody
        if is_dynamo_compiling():
            return backward(ctx, *grads)
        if neuron and _passes.end:
            return (None,) * len(ctx.needs_input_grad)
        if torch.is_grad_enabled():
            return _guarded(backward, ctx, grads)
        try:
            return backward(ctx, *grads)
        except (RuntimeError, ValueError):
            _refuse_batched(grads)
            raise

    return choose


def of_neuron(backward: Callable[..., Any]) -> Callable[..., Any]:
    """`first_order`, and the end of passes `up_to_neurons`."""
    return first_order(backward, neuron=True)


def _guarded(backward: Callable[..., Any], ctx: Any, grads: tuple[Any, ...]) -> Any:
    _refuse_batched(grads)
    with torch.no_grad():
        found = backward(ctx, *grads)
    given = (*grads, *ctx.saved_tensors)
    roots = [tensor for tensor in given if isinstance(tensor, Tensor) and tensor.requires_grad]
    if not roots:
        return found
    refuse = lambda g: Refusal.apply(g, *roots) if isinstance(g, Tensor) else g  # noqa: E731
    return tuple(map(refuse, found)) if isinstance(found, tuple) else refuse(found)


def _refuse_batched(grads: Any) -> None:
    for g in grads:
        if g is not None and torch._C._functorch.is_legacy_batchedtensor(g):
            raise RuntimeError(
                "a batch of gradients (is_grads_batched=True, jacobian(vectorize=True), vmap) reached fastsnn's "
                "kernels, which take one gradient at a time: call torch.autograd.grad once for each"
            )
