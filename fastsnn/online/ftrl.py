"""FTRL-OTTT: the loss term that keeps weights close to those of a phase of fewer steps (Jiang et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..types import number

__all__ = ["FTRL"]


class FTRL:
    """rho*||W - W_ref||_2^2, or rho*||W - W_ref||_1 (Jiang et al. 2024, section 4.3), W_ref the weights of this moment.

    Train with few time steps first; make an FTRL of the network then, and add the term to the loss of every step while
    training goes on with more of them:

        near = FTRL(net, rho=1e-4)
        train_batch(net, x, y, optimizer, loss=lambda o, y, T: online.loss(o, y, T) + near())

    Args:
        net: whose parameters that require gradient are W; one copy of them is kept. The paper has no value of rho.
        rho: weight of the term, >= 0.
        norm: "l2", the squared norm, or "l1". Default "l2".

    Raises TypeError or ValueError for arguments out of range.
    """

    def __init__(self, net: nn.Module, rho: float, norm: str = "l2") -> None:
        if not 0 <= number("rho", rho) < float("inf"):
            raise ValueError(f"rho is {rho}; it must be at least 0 and finite")
        if norm not in ("l1", "l2"):
            raise ValueError(f"norm is {norm!r}; allowed: l1, l2")
        self.rho, self.norm = rho, norm
        self._pairs = [(p, p.detach().clone()) for p in net.parameters() if p.requires_grad]
        if not self._pairs:
            raise ValueError("net has no parameters that require gradient")

    def __call__(self) -> Tensor:
        """The term at the present weights, []."""
        away = [p - reference.to(p) for p, reference in self._pairs]
        sizes = [d.abs().sum() if self.norm == "l1" else d.square().sum() for d in away]
        return self.rho * torch.stack([*map(_whole, sizes)]).sum()


def _whole(total: Any) -> Tensor:
    """Of all processes' pieces of a parameter (FSDP2)."""
    return total.full_tensor() if hasattr(total, "full_tensor") else total
