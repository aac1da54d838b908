"""The sum of a network's regularisers of potentials, and its gradient apart from the task's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..nn import LIF
from ..optim import STGR

__all__ = ["regularisation"]


def regularisation(net: nn.Module) -> Tensor:
    """a1*L_M summed over the neurons of `net` with MPDR, and over the steps of their last call (RPTT, eq. 4): [].

    A term of the loss, to be added at every step, `(loss + regularisation(net)).backward()`; it then has the loss's
    scale and counts once. 0 for a network without MPDR. Raises RuntimeError where a neuron has not run since its reset.
    """
    terms = []
    for name, neuron in net.named_modules():
        if isinstance(neuron, LIF) and neuron.mpdr is not None:
            own = neuron.mpdr_loss
            if own is None:
                raise RuntimeError(f"{name or 'net'} has MPDR and no potentials yet: call net(x) before")
            terms.append(neuron.mpdr.weight * own.sum())
    return torch.stack(terms).sum() if terms else torch.zeros(())


class GradientApart:
    """The gradient of `regularisation`, kept from `p.grad`, which holds the task's, until an STGR has seen that.

    As the task's it is the mean over processes. DistributedDataParallel averages in the first backward after a forward
    alone, which is the task's.
    """

    def __init__(self, net: nn.Module) -> None:
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.gradients: list[Tensor | None] = [None] * len(self.parameters)
        self.wrappers = [module for module in net.modules() if isinstance(module, DistributedDataParallel)]

    def add(self, term: Tensor) -> None:
        """Backward of one more term, after the task's with retain_graph=True."""
        if not term.requires_grad:
            return
        self._exchange()
        try:
            term.backward()
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for i, p in enumerate(self.parameters):
            p.grad, self.gradients[i] = self.gradients[i], p.grad

    @torch.no_grad()
    def join(self, optimizer: STGR) -> None:
        """Into `p.grad`; the optimizer keeps what that held."""
        optimizer.keep_task_gradient()
        for wrapper in self.wrappers:
            self._average(wrapper)
        for i, p in enumerate(self.parameters):
            own, self.gradients[i] = self.gradients[i], None
            if own is not None and p.grad is not None:
                p.grad += own
            elif own is not None:
                p.grad = own

    def _average(self, wrapper: DistributedDataParallel) -> None:
        group: Any = wrapper.process_group
        wrapped = set(wrapper.parameters())
        for i, p in enumerate(self.parameters):
            own = self.gradients[i]
            if p in wrapped and (own is not None or p.grad is not None):
                own = torch.zeros_like(p) if own is None else own
                torch.distributed.all_reduce(own, group=group)
                self.gradients[i] = own / group.size()
