"""From batch norms to OSR, and from OSR into the synapse before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import fusion
from torch.nn.utils.parametrize import is_parametrized

from ..stats import group_of_all
from .binary import BinaryConv2d, BinaryLinear
from .osr import OSR, OSR1d, OSR2d, OSR3d
from .tree import hooked, replace
from .weights import WSConv2d, WSLinear

__all__ = ["convert_batchnorm", "fold"]

CONVERTED: dict[type[nn.Module], type[OSR]] = {
    nn.BatchNorm1d: OSR1d,
    nn.BatchNorm2d: OSR2d,
    nn.BatchNorm3d: OSR3d,
    nn.SyncBatchNorm: OSR,
}


def _check_convertible(name: str, norm: nn.Module) -> None:
    """Raises TypeError or ValueError for a batch norm that OSR cannot stand for."""
    if not isinstance(norm, _BatchNorm) or isinstance(norm, OSR):
        return
    what = f"{name or 'net'} is {type(norm).__name__}"
    if isinstance(norm, LazyModuleMixin):
        raise ValueError(f"{what}, which does not know its channels yet: run a batch through the network first")
    if type(norm) not in CONVERTED:
        raise TypeError(
            f"{what}, derived from a batch norm: what it adds would be lost. Convertible are "
            f"{', '.join(kind.__name__ for kind in CONVERTED)}; put one of them in its place first"
        )
    if norm.running_mean is None:
        raise ValueError(f"{what} and tracks no running statistics, which OSR normalises with")
    if hooked(norm):
        raise ValueError(
            f"{what} and has forward hooks, which would be lost: remove them first, and register them anew"
        )
    group = getattr(norm, "process_group", None)
    if group is not None and group is not group_of_all():
        raise ValueError(f"{what} of a process group of its own: OSR's statistics are those of all processes")


def _converted(norm: Any, steps: int) -> OSR:
    """An OSR layer with the parameters, statistics and mode of a BatchNorm."""
    osr = CONVERTED[type(norm)](norm.num_features, steps, norm.eps, 0.9 if norm.momentum is None else 1 - norm.momentum)
    osr.to(norm.running_mean.device, norm.running_mean.dtype)
    osr.load_state_dict({**osr.state_dict(), **norm.state_dict()})
    return osr.requires_grad_(norm.affine and norm.weight.requires_grad).train(norm.training)


def convert_batchnorm(net: nn.Module, steps: int) -> nn.Module:
    """`net` with every BatchNorm1d, 2d, 3d and SyncBatchNorm replaced by OSR of sequences of `steps` steps, in place.

    Parameters, statistics, eps and momentum are kept (a BatchNorm without affine parameters becomes one whose are
    frozen); one that is used twice stays one. A BatchNorm itself is returned converted.

    Raises, before anything is replaced, ValueError for one that tracks no running statistics, is lazy, has forward
    hooks or a process group of its own, TypeError for one of a derived class.
    """
    for name, module in net.named_modules():
        _check_convertible(name, module)
    return replace(net, lambda _, module: _converted(module, steps) if type(module) in CONVERTED else module)


# what `fold` knows the function of, and the plain layer of that
SYNAPSES: dict[type[nn.Module], type[nn.Module]] = {
    **{kind: kind for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)},
    WSLinear: nn.Linear,
    BinaryLinear: nn.Linear,
    WSConv2d: nn.Conv2d,
    BinaryConv2d: nn.Conv2d,
}


def _weight(synapse: Any) -> Tensor:
    """What a synapse multiplies with."""
    if isinstance(synapse, (WSLinear, WSConv2d)):
        return synapse.standardized_weight()
    return synapse.binary_weight() if isinstance(synapse, (BinaryLinear, BinaryConv2d)) else synapse.weight


@torch.no_grad()
def fold(synapse: nn.Module, norm: OSR) -> nn.Module:
    """The linear layer or convolution that does `norm(synapse(x))` in evaluation, a copy.

    A weight that is standardised, binary or parametrized is folded as the one that it multiplies with, into a plain
    layer; BinaryLinear and BinaryConv2d with scale=True stay binary, as their scale takes the norm's factors in.

    Raises TypeError for another synapse (one of a derived class with a forward of its own, or with forward hooks, as
    pruning and torch.nn.utils.weight_norm have), ValueError where one of them is in training mode.
    """
    if synapse.training or norm.training:
        raise ValueError("fold() takes layers in evaluation mode: call .eval() on both")
    # a parametrization makes a class of its own
    parametrized = is_parametrized(synapse)
    kind = type(synapse).__bases__[0] if parametrized else type(synapse)
    if kind not in SYNAPSES or type(norm).forward is not OSR.forward:
        raise TypeError(
            f"synapse is {type(synapse).__name__} and norm {type(norm).__name__}; they must be one of "
            f"{', '.join(known.__name__ for known in SYNAPSES)}, and an OSR, not of a class derived from them"
        )
    if hooked(synapse) or hooked(norm):
        raise TypeError("forward hooks may change what a layer computes: remove them (prune.remove, ...), then fold")
    if parametrized or kind in (WSLinear, WSConv2d) or not getattr(synapse, "scale", True):
        synapse = _plain(synapse, SYNAPSES[kind])
    fuse: Any = fusion.fuse_linear_bn_eval if isinstance(synapse, nn.Linear) else fusion.fuse_conv_bn_eval
    return fuse(synapse, norm)


def _plain(synapse: Any, kind: type[nn.Module]) -> nn.Module:
    """The layer of torch's that does what the synapse does."""
    weight = _weight(synapse)
    options: dict[str, Any] = {"bias": synapse.bias is not None, "device": weight.device, "dtype": weight.dtype}
    if kind is nn.Linear:
        sizes: Any = (synapse.in_features, synapse.out_features)
    else:
        sizes = (synapse.in_channels, synapse.out_channels, synapse.kernel_size)
        options |= {n: getattr(synapse, n) for n in ("stride", "padding", "dilation", "groups", "padding_mode")}
    plain = kind(*sizes, **options).eval()
    values = {"weight": weight} if synapse.bias is None else {"weight": weight, "bias": synapse.bias}
    plain.load_state_dict(values)
    return plain
