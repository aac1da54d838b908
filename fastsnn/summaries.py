"""A network's layers at a glance: shapes, neurons, parameters, rules, operations and their energy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import backends
from .nn import EMPF, LIF, plain, reset
from .nn.neuron import Neuron
from .online.training import evaluating

__all__ = ["Row", "Summary", "summary"]

MAC_PJ, AC_PJ = 4.6, 0.9  # picojoules of a 32-bit multiply-accumulate and accumulate at 45 nm (Horowitz 2014)


class Row(NamedTuple):
    """One layer. shape: of its output for one sample. neurons: of one sample, 0 for layers without. macs, acs: of one
    sample over all steps."""

    name: str
    kind: str
    shape: tuple[int, ...]
    neurons: int
    parameters: int
    rule: str
    backend: str
    macs: float
    acs: float


@dataclass
class Summary:
    """The rows of a network in the order of their first call; print it. Energy in nanojoules for one sample."""

    steps: int
    parameters: int
    rows: list[Row]

    @property
    def neurons(self) -> int:
        return sum(row.neurons for row in self.rows)

    @property
    def macs(self) -> float:
        return sum(row.macs for row in self.rows)

    @property
    def synops(self) -> float:
        """Accumulates that spikes trigger."""
        return sum(row.acs for row in self.rows)

    @property
    def energy(self) -> float:
        return (self.macs * MAC_PJ + self.synops * AC_PJ) / 1000

    def __str__(self) -> str:
        counts = f"{'neurons':>9} {'parameters':>11} {'MACs':>11} {'SynOps':>11}"
        lines = [f"{'layer':24} {'kind':14} {'output':>16} {counts}  rule"]
        for row in self.rows:
            shape, rule = "x".join(map(str, row.shape)), f"{row.rule} {row.backend}".strip()
            counts = f"{row.neurons:9,} {row.parameters:11,} {row.macs:11,.0f} {row.acs:11,.0f}"
            lines.append(f"{row.name:24} {row.kind:14} {shape:>16} {counts}  {rule}")
        lines.append(
            f"{self.parameters:,} parameters, {self.neurons:,} neurons; a sample of T = {self.steps} steps: "
            f"{self.macs:,.0f} multiply-accumulates, {self.synops:,.0f} SynOps, {self.energy:,.1f} nJ"
        )
        lines.append(
            f"Energy: {MAC_PJ} pJ a multiply-accumulate (synapses of the network's own input), {AC_PJ} pJ a SynOp (an "
            "accumulate for each non-zero input and target of the others), 32 bits at 45 nm (Horowitz 2014); norms, "
            "neurons, products of spikes and memory are not in it"
        )
        return "\n".join(lines)


@torch.no_grad()
def summary(net: nn.Module, x: Tensor) -> Summary:
    """What the layers of `net` are and do on x, the input of each step [T, N, *], in evaluation mode.

    A synapse (Linear, Conv) of the network's own input multiplies and accumulates for every element; of any other one
    each non-zero input is an accumulate for every target that it reaches, borders and strides counted exactly. Numbers
    of operations are means over the N samples. State and modes of the network are as after `fastsnn.reset`. Raises
    ValueError where x has no steps or no samples.
    """
    if x.dim() < 2 or 0 in x.shape[:2]:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be [T, N, *], the input of each step")
    counter = _Counter(x)
    hooks = [module.register_forward_hook(partial(counter.after, name)) for name, module in _layers(net)]
    try:
        with evaluating(net):
            reset(net)
            for x_t in x:
                net(x_t)
    finally:
        for hook in hooks:
            hook.remove()
        reset(net)
    return Summary(len(x), sum(p.numel() for p in net.parameters()), [*counter.rows.values()])


def _layers(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Neurons, with what they hold, and modules without others in them."""
    held = {part for module in net.modules() if isinstance(module, Neuron) for part in module.modules()}
    return [
        (name, module)
        for name, module in net.named_modules()
        if isinstance(module, Neuron) or (module not in held and not [*module.children()])
    ]


class _Counter:
    def __init__(self, x: Tensor) -> None:
        self.samples, self.of_input = x.shape[1], {x_t.data_ptr() for x_t in x}
        self.rows: dict[str, Row] = {}

    def after(self, name: str, module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
        out = plain(out)
        if not isinstance(out, Tensor):
            return
        row = self.rows.get(name) or _row(name, module, out)
        x = plain(inputs[0]) if inputs else None
        macs, acs = self._operations(module, x) if isinstance(x, Tensor) else (0.0, 0.0)
        self.rows[name] = row._replace(macs=row.macs + macs, acs=row.acs + acs)

    def _operations(self, module: nn.Module, x: Tensor) -> tuple[float, float]:
        """Multiply-accumulates and accumulates of one sample."""
        of_input = x.data_ptr() in self.of_input
        active = torch.ones_like(x) if of_input else x.ne(0).to(x.dtype)
        if isinstance(module, nn.Linear):
            reached = active.double().sum() * module.out_features
        elif isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            each = module.out_channels // module.groups
            reached = module._conv_forward(active, torch.ones_like(module.weight[::each]), None).double().sum() * each
        else:
            return 0.0, 0.0
        count = float(reached) / self.samples
        return (count, 0.0) if of_input else (0.0, count)


def _row(name: str, module: nn.Module, out: Tensor) -> Row:
    rule = module.rule if isinstance(module, LIF) else f"empf {module.version}" if isinstance(module, EMPF) else ""
    family = "empf" if isinstance(module, EMPF) else "lif"
    return Row(
        name=name or "net",
        kind=type(module).__name__,
        shape=tuple(out.shape[1:]),
        neurons=out[0].numel() if rule else 0,
        parameters=sum(p.numel() for p in module.parameters()),
        rule=rule,
        backend=(backends.running(family, out.device) or "none") if rule else "",
        macs=0.0,
        acs=0.0,
    )
