"""checkpoint.pt: a file of torch.save that ends with a checksum of all bytes before it, and what may be in it.

The checksum stands in the comment at the end of torch's zip archive. Nothing in the file is believed: it is read
without unpickling objects, and every field is compared with what the run's own network and optimizer would have saved
before anything is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RunError
from ..files import write_whole
from ..ops.common.layout import is_dense
from ..recipes import Recipe
from .config import Config

CHECKPOINT = "checkpoint.pt"
BEST = "best.pt"  # the checkpoint of the best epoch
INIT = "init.pt"  # the one whose weights a run began with
FORMAT = 2
UNCHECKED = 1  # format of fastsnn 0.1, without a checksum
FIELDS = {"format", "config", "progress", "seconds_before", "trainer", "rng"}
TAG = b"fastsnn-checkpoint %d sha256 " % FORMAT
DIGITS = 64
END = b"PK\x05\x06"  # a zip archive's last record; its last two bytes are the length of a comment
END_SIZE = 22

# numbers of one epoch, each finite and at least 0
Wrong = Callable[[bool, str], None]  # raises, saying what, where it does not hold
NUMBERS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds", "samples_per_second")
# of one epoch, by layer: a number, or one a step
BY_LAYER = ("firing_rates", "step_rates", "separable_shares", "z_scores", "above_threshold", "mpdr_loss")
# what other versions of torch keep of a scheduler
OF_TORCH = {"verbose", "_get_lr_called_within_step", "_is_initial"}


def write(path: Path, fields: dict[str, Any]) -> None:
    """Write a checkpoint whole. Raises RunError where it cannot be written."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **fields}, buffer)
    archive = buffer.getvalue()
    if archive[-END_SIZE:].find(END) != 0 or archive[-2:] != b"\0\0":
        raise RunError(f"could not write {path}: torch.save of torch {torch.__version__} wrote no plain archive")
    checked = archive[:-2] + (len(TAG) + DIGITS).to_bytes(2, "little") + TAG
    write_whole(path, lambda file: file.write(checked + hashlib.sha256(checked).hexdigest().encode()))


def read(path: Path, option: str = "--resume") -> dict[str, Any]:
    """A checkpoint's fields, whose checksum fits, and its configuration as a Config. option: by which it was given.

    Raises RunError naming the file and what is wrong with it; warns of a file of fastsnn 0.1, which has no checksum.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{option}: {path} does not exist; give the folder of a run (it holds {CHECKPOINT})") from error
    except OSError as error:
        raise RunError(f"{option}: {path} cannot be read ({error.strerror or error})") from error
    checked = _has_checksum(path, data, option)
    try:
        saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise RunError(
            f"{option}: {path} is not a readable checkpoint ({type(error).__name__}); it may be truncated or of "
            "another program: give another run's, or start anew"
        ) from error
    found = saved.get("format") if isinstance(saved, dict) else None
    if type(found) is not int or found not in (FORMAT, UNCHECKED):
        shown = found if type(found) is int else type(found).__name__
        raise RunError(f"{option}: {path} has checkpoint format {shown} and this fastsnn reads {FORMAT}")
    if checked != (found == FORMAT):
        raise RunError(f"{option}: {path} was altered: its checksum does not fit; give another run's, or start anew")
    if not checked:
        warnings.warn(f"{path} is of fastsnn 0.1 and has no checksum: its bytes are not checked", stacklevel=3)
    fits = partial(expect, path, option=option)
    fits(saved.keys() == FIELDS, f"the file holds {_shown(sorted(map(str, saved)))}")
    config = saved["config"]
    fits(isinstance(config, dict) and all(isinstance(name, str) for name in config), "config is no table")
    kind: Any = Recipe if "name" in config else Config
    known = {field.name for field in dataclasses.fields(kind)}
    fits(config.keys() <= known and (not checked or config.keys() == known), "config has other fields")
    try:
        return {**saved, "config": kind(**config)}
    except RunError as error:
        raise RunError(f"{option}: {path} does not fit its run: {error}") from error


def read_weights(path: Path) -> tuple[Config | Recipe, dict[str, Tensor]]:
    """A checkpoint's configuration, any one, and its network's weights. Raises RunError as `read`."""
    saved = read(path, "--init")
    trainer = saved["trainer"]
    net: Any = trainer.get("net") if isinstance(trainer, dict) else None
    whole = isinstance(net, dict) and all(_is_plain(value) for value in net.values())
    expect(path, whole, "trainer.net is no network", "--init")
    return saved["config"], net


def _has_checksum(path: Path, data: bytes, option: str) -> bool:
    """Whether the file ends with one, which fits. Raises RunError for one that does not."""
    end = re.search(rb"fastsnn-checkpoint (\d{1,9}) sha256 ([0-9a-f]{%d})\Z" % DIGITS, data)
    if end is None:
        return False
    if int(end[1]) != FORMAT:
        raise RunError(f"{option}: {path} has checkpoint format {int(end[1])} and this fastsnn reads {FORMAT}")
    if hashlib.sha256(data[:-DIGITS]).hexdigest().encode() != end[2]:
        raise RunError(f"{option}: {path} was altered: its checksum does not fit; give another run's, or start anew")
    return True


def _shown(value: Any) -> str:
    """A value in a message, in one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def expect(path: Path, holds: bool, what: str, option: str = "--resume") -> None:
    """Raises RunError, saying what is wrong in the file, where it does not hold."""
    if not holds:
        raise RunError(f"{option}: {path} does not fit its run: {what}; give another run's, or start anew")


def _number(value: Any, least: float = -math.inf, most: float = math.inf, of: type[Any] = float) -> bool:
    """Whether value is a finite number of that very type in a range."""
    return type(value) is of and math.isfinite(value) and least <= value <= most


def check(
    saved: dict[str, Any],
    path: Path,
    state: dict[str, Any],
    parameters: list[Tensor],
    batches: int,
    samples: int,
    layers: set[str],
    option: str,
) -> None:
    """Raises RunError where a field is of another type, range or shape than a run of this configuration has.

    state: the trainer's `state_dict` before its first step; parameters: its optimizer's; batches and samples: of an
    epoch; layers: of neurons; option: by which the file was given.
    """
    config: Config | Recipe = saved["config"]
    wrong = partial(expect, path, option=option)
    wrong(_number(saved["seconds_before"], 0), f"seconds_before is {_shown(saved['seconds_before'])}")
    rng = saved["rng"]
    wrong(_is_plain(rng) and rng.dtype == torch.uint8, f"rng is {_shown(type(rng))}")
    try:
        torch.Generator().set_state(rng)
    except RuntimeError as error:
        wrong(False, f"rng is no state of a generator ({_shown(str(error))})")
    _check_progress(saved["progress"], config, batches, samples, layers, wrong)
    trainer, epoch = saved["trainer"], saved["progress"]["epoch"]
    wrong(isinstance(trainer, dict) and trainer.keys() == state.keys(), "trainer has other fields")
    _check_net(trainer["net"], state["net"], wrong)
    _check_scheduler(trainer["scheduler"], state["scheduler"], epoch, config, wrong)
    optimizer = trainer["optimizer"]
    _check_optimizer(optimizer, state["optimizer"], parameters, epoch, config.lr, "trainer.optimizer", wrong)


def _check_progress(
    progress: Any, config: Config | Recipe, batches: int, samples: int, layers: set[str], wrong: Wrong
) -> None:
    names = {"epoch", "batch", "loss", "correct", "samples", "epochs"}
    wrong(isinstance(progress, dict) and progress.keys() == names, "progress has other fields")
    epoch, batch, rows = progress["epoch"], progress["batch"], progress["epochs"]
    wrong(_number(epoch, 0, config.epochs, int), f"progress.epoch is {_shown(epoch)} of {config.epochs}")
    wrong(_number(batch, 0, batches - 1, int), f"progress.batch is {_shown(batch)} of {batches}")
    wrong(batch == 0 or epoch < config.epochs, f"progress.batch is {batch} and all epochs are done")
    seen = min(batch * config.batch_size, samples)
    wrong(
        _number(progress["samples"], seen, seen, int), f"progress.samples is {_shown(progress['samples'])}, not {seen}"
    )
    wrong(_number(progress["correct"], 0, seen, int), f"progress.correct is {_shown(progress['correct'])}")
    wrong(
        _number(progress["loss"]) and (batch > 0 or progress["loss"] == 0),
        f"progress.loss is {_shown(progress['loss'])}",
    )
    wrong(isinstance(rows, list) and len(rows) == epoch, f"progress.epochs has not {epoch} epochs")
    for i, row in enumerate(rows):
        wrong(
            isinstance(row, dict) and _is_epoch(row, i + 1, config.steps, layers), f"progress.epochs[{i}] is no epoch"
        )


def _is_epoch(row: dict[str, Any], number: int, steps: int, layers: set[str]) -> bool:
    wanted = {"epoch", "firing_rates", "separable_shares", *NUMBERS}
    if (
        not wanted <= row.keys() <= {*wanted, *BY_LAYER, "test_top5"}
        or type(row["epoch"]) is not int
        or row["epoch"] != number
    ):
        return False
    if not all(_number(row[name], *((0, 1) if name.endswith("accuracy") else ())) for name in NUMBERS):
        return False
    if not _number(row.get("test_top5", 0.0), 0, 1):
        return False
    if not (row["seconds"] > 0 and row["samples_per_second"] > 0):
        return False
    rates = row["firing_rates"]
    if not isinstance(rates, dict) or rates.keys() != layers:
        return False
    steps_of = row.get("step_rates", rates)  # fastsnn 0.1 had none
    if not isinstance(steps_of, dict) or steps_of.keys() != layers:
        return False
    known = {name: None if name == "separable_shares" else layers for name in BY_LAYER}  # shares: of synapses
    return all(_is_by_layer(row[name], steps, known[name]) for name in known.keys() & row.keys())


def _is_by_layer(values: Any, steps: int, layers: set[str] | None) -> bool:
    """Whether each layer has a number, or a list of one a step (None where it is not finite)."""

    def fits(value: Any) -> bool:
        if isinstance(value, list):
            return len(value) == steps and all(step is None or _number(step) for step in value)
        return _number(value)

    return isinstance(values, dict) and all(
        isinstance(name, str) and (layers is None or name in layers) and fits(value) for name, value in values.items()
    )


def _is_plain(value: Any) -> bool:
    """Whether value is a tensor as torch.save wrote ours: dense, on the CPU, outside of autograd."""
    return (
        type(value) is Tensor
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.requires_grad
        and not value.is_quantized
        and is_dense(value)
    )


def _check_net(net: Any, own: dict[str, Any], wrong: Wrong) -> None:
    wrong(isinstance(net, dict) and net.keys() == own.keys(), "trainer.net holds other layers")
    for name, value in own.items():
        wrong(_is_plain(net[name]) and _like(net[name], value), f"trainer.net.{name} is {_described(net[name])}")


def _like(tensor: Tensor, model: Tensor) -> bool:
    return tensor.shape == model.shape and tensor.dtype == model.dtype


def _described(value: Any) -> str:
    return f"{tuple(value.shape)}, {value.dtype}" if isinstance(value, Tensor) else _shown(value)


def _check_scheduler(scheduler: Any, own: dict[str, Any], epoch: int, config: Config | Recipe, wrong: Wrong) -> None:
    given = isinstance(scheduler, dict) and own.keys() - OF_TORCH <= scheduler.keys() <= own.keys() | OF_TORCH
    wrong(given, "trainer.scheduler has other fields")
    expected = {"last_epoch": epoch, "T_max": config.epochs, "_step_count": epoch + 1}
    for name in scheduler.keys() & own.keys():
        value, model = scheduler[name], expected.get(name, own[name])
        if name == "_last_lr":
            fits = isinstance(value, list) and len(value) == len(model) and all(_is_rate(lr, config.lr) for lr in value)
        else:
            fits = name in OF_TORCH or (type(value) is type(model) and value == model)
        wrong(fits, f"trainer.scheduler.{name} is {_shown(value)}")


def _is_rate(lr: Any, largest: float) -> bool:
    return _number(lr, -1e-9 * largest, (1 + 1e-9) * largest)


def _check_optimizer(
    optimizer: Any, own: dict[str, Any], parameters: list[Tensor], epoch: int, lr: float, where: str, wrong: Wrong
) -> None:
    """STGR's state holds the wrapped optimizer's beside its own."""
    wrong(isinstance(optimizer, dict) and optimizer.keys() == own.keys(), f"{where} has other fields")
    _check_groups(optimizer["param_groups"], own["param_groups"], lr, where, wrong)
    kept = {"average", "previous"} if "optimizer" in own else _kept(own["param_groups"][0])
    states, indices = optimizer["state"], range(len(parameters))
    known = isinstance(states, dict) and all(type(index) is int and index in indices for index in states)
    known = known and bool(states or epoch == 0)
    wrong(known, f"{where}.state is of other parameters")
    for index, values in states.items():
        wrong(isinstance(values, dict) and values.keys() == kept, f"{where}.state[{index}] has other fields")
        for name, value in values.items():
            like = torch.empty((), dtype=torch.float32) if name == "step" else parameters[index]
            fits = _is_plain(value) and _like(value, like)
            wrong(fits, f"{where}.state[{index}].{name} is {_described(value)}")
    if "optimizer" in own:
        of_stgr = optimizer["epoch"]
        wrong(type(of_stgr) is int and of_stgr == epoch, f"{where}.epoch is {_shown(of_stgr)}")
        inner = f"{where}.optimizer"
        _check_optimizer(optimizer["optimizer"], own["optimizer"], parameters, epoch, lr, inner, wrong)


def _kept(group: dict[str, Any]) -> set[str]:
    """What SGD with momentum, or Adam, keeps of a parameter."""
    return {"step", "exp_avg", "exp_avg_sq"} if "betas" in group else {"momentum_buffer"}


def _check_groups(groups: Any, own: list[dict[str, Any]], lr: float, where: str, wrong: Wrong) -> None:
    wrong(isinstance(groups, list) and len(groups) == len(own), f"{where}.param_groups has other groups")
    for group, model in zip(groups, own, strict=True):
        # fastsnn 0.1 had no a2
        known = isinstance(group, dict) and model.keys() - {"a2"} <= group.keys() <= model.keys()
        wrong(known, f"{where}.param_groups has other options")
        for name, value in group.items():
            if name == "lr":
                fits = _is_rate(value, lr)
            elif name in ("lam", "gam", "a2"):
                fits = _number(value, 0)
            else:
                fits = type(value) is type(model[name]) and value == model[name]
            wrong(fits, f"{where}.param_groups holds {name} = {_shown(value)}")
