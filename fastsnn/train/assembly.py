"""What a run's configuration is made into: data, network, optimizer, schedule and loss."""

from __future__ import annotations

import copy
import inspect
import math
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from .. import data, models, surrogate
from ..data.checks import among
from ..data.registry import load_object
from ..errors import RunError
from ..models.registry import MODELS
from ..nn import EMPF, LIF, BinaryConv2d, plain, reset
from ..online import FTRL, MPDR, train_batch
from ..online import loss as mixed_loss
from ..online.training import Loss, evaluating
from ..optim import STGR
from ..recipes import Recipe
from . import checkpoints
from .config import RECIPES, Config

CONVOLUTIONS: dict[str, type[nn.Module]] = {"binary": BinaryConv2d, "float": nn.Conv2d}  # by --weights


class Parts(NamedTuple):
    data: Any
    net: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    loss: Loss


def assemble(config: Config | Recipe, download: bool, init: Path | None) -> Parts:
    """All parts of a run. init: the checkpoint whose weights it begins with. Raises RunError, before any training,
    where parts do not fit together."""
    if isinstance(config, Config):
        return _digits(config)
    read = _read(config, download).to(config.device)
    net = _network(config, read).to(config.device)
    _probe(config, net, read)
    if init is not None:
        _begin_with(config, net, init)
    return Parts(read, net, *_training(config, net))


def _digits(config: Config) -> Parts:
    read = data.load(config.data).to(config.device)
    net = _digits_network(config, read).to(config.device)
    optimizer: Optimizer = SGD(net.parameters(), config.lr, momentum=0.9)
    if RECIPES[config.rule].stgr:
        optimizer = STGR(optimizer)
    return Parts(read, net, optimizer, CosineAnnealingLR(optimizer, config.epochs), mixed_loss)


def _digits_network(config: Config, read: Any) -> nn.Module:
    if config.rule == "empf":
        seca = None if config.seca == "none" else config.seca
        options: dict[str, Any] = {"conv": CONVOLUTIONS[config.weights], "parallel": config.parallel}
        return models.digits_empf(config.steps, config.version, seca, read.classes, **options)
    training = RECIPES[config.rule]
    if training.norm is not None:
        normed = models.digits_mlp_normed if read.sequential else models.digits_conv_normed
        return normed(config.steps, training.norm, training.rule, read.classes, threshold=training.threshold)
    build = models.digits_mlp if read.sequential else models.digits_conv
    return build(training.rule, read.classes, mpdr=MPDR.paper("cifar10") if training.mpdr else None)


def _read(recipe: Recipe, download: bool) -> Any:
    steps = None if ":" in recipe.data else recipe.steps
    return data.create(recipe.data, root=recipe.root, download=download, steps=steps, **recipe.data_options)


def _network(recipe: Recipe, read: Any) -> nn.Module:
    """A network of `fastsnn.models`, or a user's own; of what the data and the recipe determine it gets what it
    takes."""
    own: Any = load_object(recipe.model, "model") if ":" in recipe.model else None
    options = {**_offered(recipe, read, own or MODELS.get(recipe.model)), **recipe.model_options}
    try:
        net = models.create_model(recipe.model, **options) if own is None else own(**options)
    except Exception as error:  # of any layer, a user's too
        raise RunError(f"recipe {recipe.name}: the network {recipe.model} cannot be made ({said(error)})") from error
    if not isinstance(net, nn.Module):
        raise RunError(f"recipe {recipe.name}: {recipe.model} gives a {type(net).__name__}; it must be a torch module")
    return net


def said(error: Exception) -> str:
    """In one line, with its kind where that is no mere refusal of a value."""
    text = " ".join(str(error).split())
    return text if isinstance(error, (RunError, TypeError, ValueError)) else f"{type(error).__name__}: {text}"


def _offered(recipe: Recipe, read: Any, make: Any) -> dict[str, Any]:
    if make is None:
        return {}
    offered: dict[str, Any] = {"rule": recipe.rule, "norm": recipe.norm, "steps": recipe.steps}
    offered |= {"num_classes": read.classes, "in_channels": read.shape[0], "size": read.shape[-1]}
    offered["in_features"] = math.prod(read.shape)
    taken = inspect.signature(make).parameters
    given = {name: value for name, value in offered.items() if name in taken and value is not None}
    return given | (_neurons(recipe) if any(p.kind is p.VAR_KEYWORD for p in taken.values()) else {})


def _neurons(recipe: Recipe) -> dict[str, Any]:
    """Arguments of every LIF."""
    found: dict[str, Any] = {}
    try:
        if recipe.mpdr is not None:
            found["mpdr"] = MPDR(**recipe.mpdr)
        if recipe.surrogate is not None:
            arguments = dict(recipe.surrogate)
            name = arguments.pop("name", None)
            among("surrogate.name", name, surrogate.SURROGATES)
            found["surrogate_function"] = surrogate.SURROGATES[name](**arguments)
    except (TypeError, ValueError) as error:
        raise RunError(f"recipe {recipe.name}: mpdr or surrogate cannot be made ({error})") from error
    return found


def _probe(recipe: Recipe, net: nn.Module, read: Any) -> None:
    """Raises RunError where the network has no neurons, does not take the data's samples, gives other than their
    classes, or cannot be trained on them."""
    if not any(isinstance(module, (LIF, EMPF)) for module in net.modules()):
        raise RunError(f"recipe {recipe.name}: {recipe.model} has no spiking neurons, fastsnn.LIF or fastsnn.EMPF")
    few = torch.arange(min(2, read.train_samples))
    x, y = next(iter(read.train_batches(recipe.steps, 2, few, seed=0)))
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            tried = copy.deepcopy(net)
            with torch.no_grad(), evaluating(tried):
                out = plain(tried(x[0]))
            reset(tried)
            if isinstance(out, Tensor) and out.shape == (len(few), read.classes):
                options: dict[str, Any] = {"mode": recipe.mode, "backward_steps": recipe.backward_steps}
                with suppress(FloatingPointError):  # a loss or statistics of two samples may not be finite
                    train_batch(tried, x, y, SGD(tried.parameters(), 0.0), **options)
        except Exception as error:  # of any layer, a user's too
            shape = ["N", *read.shape]
            raise RunError(
                f"recipe {recipe.name}: {recipe.model} cannot take a step of {recipe.data}, {shape} ({said(error)})"
            ) from error
    if not isinstance(out, Tensor) or out.shape != (len(few), read.classes):
        given = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise RunError(
            f"recipe {recipe.name}: {recipe.model} gives {given} for two samples and {recipe.data} has "
            f"{read.classes} classes, [2, {read.classes}]; set num_classes"
        )
    if recipe.mpdr is not None and not any(isinstance(module, LIF) and module.mpdr for module in net.modules()):
        raise RunError(f"recipe {recipe.name}: mpdr regularises LIF neurons and {recipe.model} takes none")


def _begin_with(recipe: Recipe, net: nn.Module, path: Path) -> None:
    config, weights = checkpoints.read_weights(path)
    begun = None if recipe.init is None else recipe.init.split()[0]
    named = config.name if isinstance(config, Recipe) else f"{config.data}-{config.rule}"
    if begun not in (None, named):
        raise RunError(
            f"--init: {path} is of {named} and {recipe.name} begins with the weights of {begun}; to begin with these "
            f"give --set init={named}"
        )
    own = net.state_dict()
    for name in [*weights.keys() ^ own.keys(), *(key for key in own if key in weights)]:
        if name not in own or name not in weights or weights[name].shape != own[name].shape:
            raise RunError(f"--init: {path} is of another network: {name} does not fit")
    net.load_state_dict(weights)


def _training(recipe: Recipe, net: nn.Module) -> tuple[Optimizer, LRScheduler, Loss]:
    decay, parameters = recipe.weight_decay, net.parameters()
    optimizer: Optimizer
    if recipe.optimizer == "adam":
        optimizer = Adam(parameters, recipe.lr, weight_decay=decay)
    else:
        optimizer = SGD(parameters, recipe.lr, momentum=recipe.momentum, weight_decay=decay)
    if recipe.stgr is not None:
        try:
            optimizer = STGR(optimizer, **recipe.stgr)
        except (TypeError, ValueError) as error:
            raise RunError(f"recipe {recipe.name}: stgr cannot be made ({error})") from error
    if recipe.decay_every is not None and recipe.decay_by is not None:
        return optimizer, StepLR(optimizer, recipe.decay_every, recipe.decay_by), _loss(recipe, net)
    return optimizer, CosineAnnealingLR(optimizer, recipe.epochs), _loss(recipe, net)


def _loss(recipe: Recipe, net: nn.Module) -> Loss:
    base = partial(mixed_loss, mse=recipe.mse)
    if recipe.ftrl is None:
        return base
    try:
        near = FTRL(net, **recipe.ftrl)
    except (TypeError, ValueError) as error:
        raise RunError(f"recipe {recipe.name}: ftrl cannot be made ({error})") from error

    def kept_near(logits: Tensor, target: Tensor, steps: int) -> Tensor:
        """The term is of training alone."""
        value = base(logits, target, steps)
        return value + near() if torch.is_grad_enabled() else value

    return kept_near
