"""The inference form of EM-PF's membrane batch norm (version II, equations/empf.md), of tensors and networks."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models import EMPFBlock
from ..nn import EMPF, EMPFState, plain, reset
from ..nn.empf import at_step, steps_done, steps_given
from ..nn.neuron import Neuron
from ..nn.state import counted
from ..nn.tree import replace
from .packed import refuse_training

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


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
    synapse, which takes the factor k; so there is one a step. All steps at once: [T, 1] and [T, channels].
    """
    gamma, shift, mean, var = norm
    inverse = gamma / torch.sqrt(var + eps)
    k = alpha + beta * inverse
    c = beta * (inverse * mean - shift)
    return Folded(k * leak, threshold + c, c, k * weight, k * bias)


class StepAffine(Neuron):
    """y[t] = weight[t]*x[t] + bias[t], weight and bias [T, C]: a batch norm that has taken in the one of the potential.

    x [N, C, *], one of the T steps, in order; in step mode "m" [T, N, C, *]. Raises as fastsnn.EMPF for another T.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, step_mode: str = "s") -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.step_mode = step_mode
        self.reset()

    def reset(self) -> None:
        """The next call is t = 1."""
        self._met()
        self._state = EMPFState()

    def _begun(self) -> bool:
        return bool(self._state.t)

    def forward(self, x: Tensor) -> Tensor:
        """y, in x's dtype."""
        self._runs()
        x, sequence = plain(x), self._step_mode == "m"
        given = steps_given(x, sequence, len(self.weight))
        t = steps_done(self._state.t, given, len(self.weight), self.weight.device)
        self._state = EMPFState(t=t + given if sequence else counted(t + given, x))
        inner = [1] * (x.dim() - 2 - sequence)
        weight, bias = (
            (values if sequence else at_step(values, t)).unsqueeze(-2).unflatten(-1, (-1, *inner))
            for values in (self.weight, self.bias)
        )
        return (weight * x + bias).to(x.dtype)

    def extra_repr(self) -> str:
        return f"steps={len(self.weight)}, channels={self.weight.shape[1]}, step_mode={self.step_mode!r}"


def fold(net: nn.Module) -> nn.Module:
    """A copy of `net` for inference whose EM-PF neurons of version II are vanilla ones (version I), a value a channel.

    The potential's batch norm goes into the batch norms that the neuron's current comes from: a `StepAffine` in place
    of a batch norm before the neuron in an nn.Sequential or `fastsnn.models.EMPFBlock`. Where something lies between
    (attention, an identity shortcut, a module that is not known here) there is a `StepAffine` before the neuron. The
    other modules, versions I and III among them, are copied as they are; neurons start anew. `net` stays as it was.

    Raises ValueError where a module is in training mode, parameters or statistics of a neuron hold NaN or infinity, or
    a neuron of version II is of a class derived from fastsnn.EMPF.
    """
    refuse_training(net, "folding")
    folded = copy.deepcopy(net)
    reset(folded)
    uses = Counter(module for _, module in folded.named_modules(remove_duplicate=False))
    before = {neuron: norms for module in folded.modules() for neuron, norms in _sums(module)}
    replaced: dict[nn.Module, nn.Module] = {}
    for name, neuron in folded.named_modules():
        if isinstance(neuron, EMPF) and neuron.version == "II":
            norms = before.get(neuron, [])
            once = all(uses[module] == 1 for module in (neuron, *norms))
            norms = norms if once and all(_takes(norm, neuron) for norm in norms) else []
            replaced |= _vanilla(name or type(neuron).__name__, neuron, norms)
    return replace(folded, lambda _, module: replaced.get(module, module))


def _sums(module: nn.Module) -> Iterator[tuple[nn.Module, list[Any]]]:
    """Neurons in `module` and the layers of which they get the sum, where that is all they get."""
    if type(module) is nn.Sequential:
        yield from ((neuron, [norm]) for norm, neuron in pairwise(module))
    elif type(module) is EMPFBlock:
        if module.seca1 is None:
            yield module.neuron1, [module.bn1]
        if module.seca is None and isinstance(module.shortcut, nn.Sequential):
            yield module.neuron2, [module.bn2, module.shortcut[-1]]


def _takes(norm: Any, neuron: EMPF) -> bool:
    """Whether a layer before the neuron can take the neuron's factors in: a batch norm with running statistics."""
    return type(norm) in NORMS and norm.running_mean is not None and neuron.step_mode == "s"


@torch.no_grad()
def _vanilla(name: str, neuron: EMPF, norms: list[Any]) -> dict[nn.Module, nn.Module]:
    """What stands for the neuron, and for the norms whose sum it gets.

    v is carried without its offset, as version I does: m[t] = leak[t]*(v[t-1] - offset[t-1]) + x[t], so that
    -leak[t]*offset[t-1] belongs to the bias of one of the norms.
    """
    if type(neuron) is not EMPF:
        raise ValueError(
            f"{name} is {type(neuron).__name__}, derived from fastsnn.EMPF: what it does cannot be folded; make the "
            "network with fastsnn.EMPF, and load the parameters into that"
        )
    folded = [_folded(neuron, norm) for norm in norms or [None]]
    if not all(table.isfinite().all() for step in folded for table in step):
        raise ValueError(f"{name}: parameters or statistics hold NaN or infinity; take them from an earlier checkpoint")
    leak, threshold, offset, _, bias = folded[0]
    bias[1:] -= leak[1:] * offset[:-1]
    like = neuron.threshold
    affine = [StepAffine(f.weight.to(like), f.bias.to(like), neuron.step_mode).eval() for f in folded]
    vanilla = EMPF(neuron.steps, "I", neuron.channels, per_channel=True, step_mode=neuron.step_mode).to(like).eval()
    vanilla.load_state_dict({"leak": leak, "threshold": threshold})
    if norms:
        return {neuron: vanilla, **dict(zip(norms, affine, strict=True))}
    return {neuron: nn.Sequential(affine[0], vanilla).eval()}


def _folded(neuron: Any, norm: Any) -> Folded:
    """All steps, [T, C] in float64, of the neuron behind a batch norm, or behind nothing."""
    values = (neuron.leak, neuron.threshold, neuron.alpha, neuron.beta)
    steps = (value.double().reshape(neuron.steps, -1) for value in values)
    membrane = (neuron.weight, neuron.bias, neuron.running_mean, neuron.running_var)
    weight = torch.ones_like(neuron.running_mean[0], dtype=torch.float64)
    bias = torch.zeros_like(weight)
    if norm is not None:
        gamma, shift = (weight, bias) if norm.weight is None else (norm.weight.double(), norm.bias.double())
        weight = gamma / torch.sqrt(norm.running_var.double() + norm.eps)
        bias = shift - weight * norm.running_mean.double()
    leak, threshold, alpha, beta = steps
    tables = tuple(table.double() for table in membrane)
    return fold_membrane_norm(leak, threshold, alpha, beta, tables, neuron.eps, weight, bias)
