"""Networks by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
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

    Raises ValueError for an unknown name or option, with the nearest known one, and for values out of range.
    """
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; allowed: {', '.join(list_models())}{_nearest(name, MODELS)}")
    known = _options(MODELS[name])
    for option in options:
        if option not in known:
            allowed = f"{option} is no option of {name}; allowed: {', '.join(known)}{_nearest(option, known)}"
            raise ValueError(allowed)
    _check_counts(MODELS[name], options)
    return MODELS[name](**options)


def _check_counts(make: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    """Raises ValueError for a number of channels, classes, steps, ... that is no whole number of at least 1, and for
    other than as many widths as the default has."""
    taken = inspect.signature(make).parameters
    for name in options.keys() & taken.keys():
        value, kind, default = options[name], taken[name].annotation, taken[name].default
        least = 0 if name == "poolings" else 1
        if name == "widths":
            fits = isinstance(value, Sequence) and len(value) == len(default) and all(_counts(v, 1) for v in value)
            if not fits:
                raise ValueError(f"{name} is {value!r}; it must be {len(default)} whole numbers of at least 1")
        elif (kind == "int" or (kind == "int | None" and value is not None)) and not _counts(value, least):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def _counts(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _options(make: Callable[..., nn.Module]) -> list[str]:
    """Names of a network's options; further ones are its neurons'."""
    taken = inspect.signature(make).parameters
    named = [name for name, parameter in taken.items() if parameter.kind is not parameter.VAR_KEYWORD]
    more = [] if len(named) == len(taken) else list(inspect.signature(LIF).parameters)
    return list(dict.fromkeys(named + more))


def _nearest(name: str, known: Any) -> str:
    near = get_close_matches(name, list(known), 1)
    return f". Did you mean {near[0]}?" if near else ""
