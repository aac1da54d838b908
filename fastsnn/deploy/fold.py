"""The inference form of EM-PF's membrane batch norm (version II), on plain tensors (SPEC section 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Folded(NamedTuple):
    """One step of version II as a vanilla step: m = leak*v + x ; s = (m - threshold)*f ; v = m - s - offset.

    x comes from the folded batch norm of `weight` and `bias`.
    """

    leak: Tensor
    threshold: Tensor
    offset: Tensor
    weight: Tensor
    bias: Tensor


@torch.no_grad()
def fold_membrane_norm(
    leak: Tensor,
    threshold: Tensor,
    alpha: Tensor,
    beta: Tensor,
    norm: tuple[Tensor, Tensor, Tensor, Tensor],
    eps: float,
    weight: Tensor,
    bias: Tensor,
) -> Folded:
    """Fold step t of version II: k = alpha + gamma*beta/sqrt(var+eps), c = beta*(gamma*mu/sqrt(var+eps) - b).

    leak, threshold, alpha, beta: of step t, scalar or [channels]. norm: (gamma, b, mu, var) of its membrane batch norm,
    running statistics, [channels], with `eps`. weight, bias [channels]: of the batch norm that follows the binary
    synapse, which takes the factor k; so there is one a step.
    """
    gamma, shift, mean, var = norm
    inverse = gamma / torch.sqrt(var + eps)
    k = alpha + beta * inverse
    c = beta * (inverse * mean - shift)
    return Folded(k * leak, threshold + c, c, k * weight, k * bias)
