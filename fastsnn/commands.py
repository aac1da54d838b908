"""What the subcommands of `fastsnn` do; `cli` reads their arguments."""

from __future__ import annotations

import argparse
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from . import __version__, backends, deploy, plots
from .config import Config
from .errors import RunError
from .experiment import Experiment
from .files import write_json
from .online import evaluate
from .threads import POLICY, crowded, sleeps


def info(_: argparse.Namespace) -> int:
    """Print versions, backends with reasons, instruction set and threads."""
    rows = [
        ("fastsnn", __version__),
        ("torch", torch.__version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("threads", f"{torch.get_num_threads()}, which {'sleep' if sleeps() else 'spin'} while they wait ({POLICY})"),
        ("load", crowded() or "fine"),
        *((f"backend {name}", verdict) for name, verdict in backends.available().items()),
    ]
    if backends.refusal("lif", "cpu", torch.device("cpu")) is None:
        from . import _cpu

        rows.append(("instruction set", f"{_cpu.isa()} (can run: {', '.join(_cpu.isas())})"))
        rows.append(("OpenMP", "yes" if _cpu.openmp else "no: the native core uses one thread"))
    rows.append(("CUDA devices", str(torch.cuda.device_count())))
    for name, value in rows:
        print(f"{name:18} {value}")
    return 0


def train(arguments: argparse.Namespace) -> int:
    """Train or resume, show progress, write the run folder."""
    config = arguments.config
    if config is None:
        experiment = Experiment.resume(arguments.resume, arguments.epochs)
    else:
        folder = arguments.out or _default_folder(config)
        _check_empty(folder)
        experiment = Experiment(config, folder)
    with _folder(experiment.folder), backends.use_backend(experiment.config.backend), _stop_on_interrupt(experiment):
        return _train(experiment)


def _default_folder(config: Config) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{config.data}-{config.rule}-{stamp}"


def _check_empty(folder: Path) -> None:
    try:
        taken = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise RunError(f"--out: {folder} cannot be a run's folder ({error.strerror})") from error
    if taken:
        raise RunError(f"--out: {folder} is not empty; give a new folder, or --resume {folder}")


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """The run's folder, made where it is not there; what was made and stayed empty is removed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out: cannot make {folder} ({error})") from error
    try:
        yield
    finally:
        for path in made:
            if not any(path.iterdir()):
                path.rmdir()


@contextmanager
def _stop_on_interrupt(experiment: Experiment) -> Iterator[None]:
    """The first Ctrl-C ends the run after its batch; a second one ends it at once."""

    def stop(_signal: int, _frame: Any) -> None:
        experiment.stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _train(experiment: Experiment) -> int:
    started = time.perf_counter()
    with _display(experiment) as on_batch:
        complete = experiment.run(on_batch)
    if not complete:
        print(f"Interrupted. Go on with: fastsnn train --resume {experiment.folder}")
        return 130
    metrics, potentials = experiment.metrics(), experiment.potentials()
    plots.save(plots.curves(metrics, potentials), experiment.folder / "curves.png")
    if potentials.layers:
        plots.save(plots.histograms(potentials), experiment.folder / "potentials.png")
    write_json(experiment.folder / "metrics.json", metrics)
    last = metrics["epochs"][-1]
    print(
        f"test accuracy {100 * last['test_accuracy']:.2f} % after {last['epoch']} epochs, "
        f"{time.perf_counter() - started:.1f} s on backend {metrics['backend']}; run folder: {experiment.folder}"
    )
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Fold and pack the network of a run and write it, with the run's configuration."""
    experiment = Experiment.resume(arguments.run)
    try:
        net = deploy.pack(deploy.fold(experiment.net.eval()))
    except ValueError as error:
        raise RunError(f"{arguments.run} cannot be folded and packed: {error}") from error
    deploy.save(net, arguments.out, {"config": asdict(experiment.config)})
    print(deploy.sizes(net))
    print(f"written to {arguments.out}")
    return 0


def load(arguments: argparse.Namespace) -> int:
    """Rebuild the network of a file and evaluate it."""
    notes = deploy.read_header(arguments.file)["notes"]
    try:
        config = Config(**notes["config"])
    except (KeyError, TypeError, RunError) as error:
        raise RunError(f"{arguments.file} does not say which run it is of; use fastsnn.deploy.load") from error
    experiment = Experiment(config, arguments.file.parent)
    net = deploy.load(arguments.file, experiment.net)
    result = evaluate(net, experiment.data.test_batches(config.steps))
    print(deploy.sizes(net))
    print(f"test accuracy {100 * result.correct / result.samples:.2f} %")
    return 0


@contextmanager
def _display(experiment: Experiment) -> Iterator[Any]:
    """A progress bar and one line an epoch."""
    try:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise RunError("progress needs rich: pip install 'fastsnn[train]'") from error
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    total = experiment.config.epochs * experiment.batches
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=total, status="")
        shown = experiment.progress.epoch
        clock = (time.perf_counter(), experiment.progress.samples)

        def on_batch(run: Experiment) -> None:
            nonlocal shown, clock
            progress = run.progress
            for row in progress.epochs[shown:]:
                bar.console.print(_line(row), highlight=False, soft_wrap=True)
                shown, clock = shown + 1, (time.perf_counter(), 0)
            seconds = max(time.perf_counter() - clock[0], 1e-9)
            status = (
                f"loss {progress.loss / progress.batch:.4f}  "
                f"accuracy {100 * progress.correct / progress.samples:5.2f} %  "
                f"{(progress.samples - clock[1]) / seconds:.0f} samples/s"
            )
            bar.update(task, completed=progress.epoch * run.batches + progress.batch, status=status)

        yield on_batch
        for row in experiment.progress.epochs[shown:]:
            bar.console.print(_line(row), highlight=False, soft_wrap=True)


def _line(row: dict[str, Any]) -> str:
    rates = " ".join(f"{rate:.3f}" for rate in row["firing_rates"].values())
    return (
        f"epoch {row['epoch']:3}  loss {row['train_loss']:.4f}  train {100 * row['train_accuracy']:6.2f} %  "
        f"test {100 * row['test_accuracy']:6.2f} %  firing rates {rates}  {row['samples_per_second']:.0f} samples/s"
    )


COMMANDS = {"train": train, "export": export, "load": load, "info": info}
