"""The sum of a network's regularisers of potentials."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nn import LIF

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
