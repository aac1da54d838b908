"""How far an online gradient points where BPTT's does (Xiao et al. 2022, theorems 1 and 2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..nn import EMPF, LIF, plain, reset
from ..rules import RULES
from .losses import loss as mixed_loss
from .training import Loss

__all__ = ["gradient_alignment"]


def gradient_alignment(
    net: nn.Module, x: Sequence[Tensor] | Tensor, y: Tensor, loss: Loss = mixed_loss
) -> dict[str, float | None]:
    """Cosine between the gradient of the network's rule, accumulated over all steps, and that of the rule through time
    ("bptt"; of adaptive neurons "alif_bptt") with the same weights, surrogates and norms: of every parameter; None
    where one of the two is zero.

    x: the input of each step, [T, N, *]; y as in `train_batch`. The network is copied: its weights, gradients, state
    and mode stay. Dropout is off. Raises ValueError for neurons that have no rule "bptt" (EMPF, thresholds of OTS).
    """
    for name, module in net.named_modules():
        if isinstance(module, EMPF) or (isinstance(module, LIF) and module.stabilizer is not None):
            raise ValueError(
                f"{name or 'net'} has no BPTT gradient here: EM-PF neurons and OTS are trained online alone"
            )
    online, through = _copy(net), _copy(net)
    for module in through.modules():
        if isinstance(module, LIF):
            module.rule = _through_time(module.rule)
        elif hasattr(module, "keep_graph"):  # of models.Delay
            setattr(module, "keep_graph", True)  # noqa: B010
    first, second = (_gradients(one, x, y, loss, at_once) for one, at_once in ((online, False), (through, True)))
    return {name: _cosine(first[name], second[name]) for name in first}


def _through_time(rule: str) -> str:
    """The rule that goes back through all states of the same neuron."""
    own = RULES[rule].parameters
    return next(name for name, other in RULES.items() if not other.online and other.parameters == own)


def _copy(net: nn.Module) -> nn.Module:
    reset(net)
    copied = copy.deepcopy(net).train()
    for module in copied.modules():
        if isinstance(module, LIF):
            module.dropout, module.mpdr = 0.0, None
    return copied


def _gradients(net: nn.Module, x: Sequence[Tensor] | Tensor, y: Tensor, loss: Loss, at_once: bool) -> dict[str, Tensor]:
    terms = []
    net.zero_grad()
    for x_t in x:
        terms.append(loss(plain(net(x_t)), y, len(x)))
        if not at_once:
            terms.pop().backward()
    if at_once:
        torch.stack(terms).sum().backward()
    reset(net)
    parameters = net.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters if p.requires_grad}


def _cosine(a: Tensor, b: Tensor) -> float | None:
    size = a.norm() * b.norm()
    return float((a * b).sum() / size) if size > 0 else None
