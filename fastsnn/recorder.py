"""What a network's neurons do while it runs: rates, potentials and traces of every layer and step."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import figures
from .nn import EMPF, LIF, OSRLIF, TracedSpikes, plain
from .types import RULES

__all__ = ["Record", "record"]


class Record:
    """Of every neuron layer by its name in the network, in the order of steps; what was recorded stays after the end.

    rates: {layer: [share of neurons that fire at t, over all sequences so far]}. potentials, traces, spikes (bool):
    {layer: [T, N, *]} of the last sequence, detached, on their device. Layers that make no trace, or ran without a
    gradient, are not among traces, nor EM-PF layers of version III among potentials.
    """

    def __init__(self, net: nn.Module, rates: bool, potentials: bool, traces: bool, spikes: bool) -> None:
        self.neurons: dict[str, Any] = {n: m for n, m in net.named_modules() if isinstance(m, (LIF, EMPF))}
        if not self.neurons:
            raise ValueError("net has no LIF and no EMPF neurons to record")
        if potentials and any(neuron.step_mode == "m" for neuron in self.neurons.values()):
            raise ValueError("potentials are recorded step by step and the network has step_mode 'm': set 's'")
        if traces and not any(isinstance(n, LIF) and RULES[n.rule].traced() for n in self.neurons.values()):
            traced = ", ".join(name for name, rule in RULES.items() if rule.traced())
            raise ValueError(f"no neuron of net makes a trace: rules with one are {traced}")
        # a fused layer does not call the neuron that it holds
        self._called = {n: self.neurons.get(n, m) for n, m in net.named_modules() if n in self.neurons}
        for name, module in net.named_modules():
            if isinstance(module, OSRLIF):
                self._called[f"{name}.neuron" if name else "neuron"] = module
        self._rates, self._potentials, self._traces, self._spikes = rates, potentials, traces, spikes
        self._fired: dict[str, list[Tensor]] = {}
        self._seen: dict[str, list[int]] = {}
        self._v: dict[str, list[Tensor]] = {}
        self._a: dict[str, list[Tensor]] = {}
        self._s: dict[str, list[Tensor]] = {}
        self._t = dict.fromkeys(self.neurons, 0)
        self._hooks: list[Any] = []

    def __enter__(self) -> Record:
        for name, module in self._called.items():
            self._hooks.append(module.register_forward_pre_hook(partial(self._before, name)))
            self._hooks.append(module.register_forward_hook(partial(self._after, name)))
        return self

    def __exit__(self, *exc: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @property
    def rates(self) -> dict[str, list[float]]:
        return {n: [int(f) / s for f, s in zip(self._fired[n], self._seen[n], strict=True)] for n in self._fired}

    @property
    def potentials(self) -> dict[str, Tensor]:
        """v after the reset."""
        return {name: torch.stack(values) for name, values in self._v.items() if values}

    @property
    def traces(self) -> dict[str, Tensor]:
        return {name: torch.cat(values) for name, values in self._a.items() if values}

    @property
    def spikes(self) -> dict[str, Tensor]:
        return {name: torch.cat(values) for name, values in self._s.items() if values}

    def plot(self, sample: int = 0) -> Any:
        """A matplotlib figure of one sample of the last sequence, a row a layer: its rates over the steps, and neurons
        against steps for spikes (a raster), potentials and traces, as far as they were recorded.

        Raises RunError without matplotlib, ValueError where nothing was recorded or there is no such sample.
        """
        return figures.recorded(self, sample)

    def _before(self, name: str, _module: nn.Module, _inputs: Any) -> None:
        neuron = self.neurons[name]
        first = not neuron.state.t if isinstance(neuron, EMPF) else not isinstance(neuron.state.potential, Tensor)
        if first or neuron.step_mode == "m":
            self._t[name], self._v[name], self._a[name], self._s[name] = 0, [], [], []

    @torch.no_grad()
    def _after(self, name: str, _module: nn.Module, _inputs: Any, spikes: Tensor) -> None:
        neuron = self.neurons[name]
        steps = plain(spikes).detach() if neuron.step_mode == "m" else plain(spikes).detach()[None]
        for step in steps if self._rates else ():
            self._count(name, step)
        if self._potentials:
            v = neuron.state.v if isinstance(neuron, EMPF) else neuron.v
            if isinstance(v, Tensor):
                self._v[name].append(v.detach().clone())
        if self._spikes:
            self._s[name].append(steps != 0)
        if self._traces and isinstance(spikes, TracedSpikes):
            self._a[name].append(spikes.trace.detach().clone().view_as(steps))

    def _count(self, name: str, step: Tensor) -> None:
        t, fired, seen = self._t[name], self._fired.setdefault(name, []), self._seen.setdefault(name, [])
        if t == len(fired):
            fired.append(torch.zeros((), dtype=torch.int64, device=step.device))
            seen.append(0)
        fired[t] += torch.count_nonzero(step)
        seen[t] += step.numel()
        self._t[name] = t + 1


def record(
    net: nn.Module, rates: bool = True, potentials: bool = False, traces: bool = False, spikes: bool = False
) -> Record:
    """Record what the neurons of `net` do inside a with block.

        with fastsnn.record(net, potentials=True) as seen:
            for x_t in x:
                net(x_t)
        seen.rates["1"], seen.potentials["1"].shape
        seen.plot()

    A layer's sequence begins at its first step after `fastsnn.reset`. Raises ValueError for a network without neurons,
    potentials of step mode "m", and traces of rules that make none. Counts stay on the device until `rates` is read.
    """
    return Record(net, rates, potentials, traces, spikes)
