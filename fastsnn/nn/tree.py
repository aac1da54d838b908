"""Changes of a network's modules."""

from __future__ import annotations

from typing import Any

from torch import nn


def replace(net: nn.Module, make: Any, prefix: str = "", done: dict[nn.Module, nn.Module] | None = None) -> nn.Module:
    """`net` with make(name, module) in place of every module; where that is the module itself, its children follow.

    A module used twice stays one.
    """
    done = {} if done is None else done
    if net not in done:
        done[net] = make(prefix, net)
        for name, child in net._modules.items():
            if child is not None and done[net] is net:
                net._modules[name] = replace(child, make, f"{prefix}.{name}".lstrip("."), done)
    return done[net]


def hooked(module: nn.Module) -> bool:
    """Whether hooks may make a call of the module something else than its forward."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
