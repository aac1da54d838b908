"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any, TypeVar

from torch import nn

from ..nn import LIF

__all__ = ["create_model", "list_models", "register"]

Make = TypeVar("Make", bound=Callable[..., nn.Module])
MODELS: dict[str, Callable[..., nn.Module]] = {}


def register(make: Make) -> Make:
    """The function under its own name, for `create_model`; its parameters are what the model takes."""
    MODELS[make.__name__] = make
    return make


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` takes, those that match the shell-style `pattern`."""
    return sorted(name for name in MODELS if fnmatch(name, pattern))


def create_model(name: str, **options: Any) -> nn.Module:
    """The network of that name. options: as the function of that name in `fastsnn.models` takes, such as rule, norm,
    num_classes, in_channels, steps.

    Raises ValueError for an unknown name or option, with the nearest known one.
    """
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; allowed: {', '.join(list_models())}{_nearest(name, MODELS)}")
    known = _options(MODELS[name])
    for option in options:
        if option not in known:
            allowed = f"{option} is no option of {name}; allowed: {', '.join(known)}{_nearest(option, known)}"
            raise ValueError(allowed)
    return MODELS[name](**options)


def _options(make: Callable[..., nn.Module]) -> list[str]:
    """Names of a network's options; further ones are its neurons'."""
    taken = inspect.signature(make).parameters
    named = [name for name, parameter in taken.items() if parameter.kind is not parameter.VAR_KEYWORD]
    more = [] if len(named) == len(taken) else list(inspect.signature(LIF).parameters)
    return list(dict.fromkeys(named + more))


def _nearest(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), 1)
    return f". Did you mean {near[0]}?" if near else ""
