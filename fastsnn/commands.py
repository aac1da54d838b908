"""What the subcommands of `fastsnn` do; `cli` reads their arguments."""

from __future__ import annotations

import argparse
import platform
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from . import backends, deploy, figures, summaries
from ._version import __version__
from .errors import RunError
from .files import write_json
from .online import evaluate, gradient_alignment
from .recipes import Recipe
from .threads import POLICY, crowded, sleeps
from .train import plots
from .train.boards import Board
from .train.config import Config
from .train.experiment import Experiment, with_root
from .train.profiling import profile

OF_SUMMARY = 64  # samples of the test split


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
        experiment = Experiment.resume(arguments.resume, arguments.epochs, arguments.data_root)
    else:
        folder = arguments.out or _default_folder(config)
        _check_empty(folder)
        experiment = Experiment(config, folder, bool(arguments.download))
    if arguments.profile:
        with backends.use_backend(experiment.config.backend):
            print(profile(experiment))
        return 0
    opened = Board(experiment.folder / "tensorboard") if arguments.tensorboard else nullcontext()
    folder, backend = _folder(experiment.folder), backends.use_backend(experiment.config.backend)
    with folder, backend, _stop_on_interrupt(experiment), opened as board:
        return _train(experiment, board)


def _default_folder(config: Config | Recipe) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = config.name if isinstance(config, Recipe) else f"{config.data}-{config.rule}"
    return Path("runs") / f"{name}-{stamp}"


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
        _make(folder)
        yield
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _make(folder: Path) -> None:
    """Raises RunError where it cannot be made or, before an epoch is trained in vain, written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out: cannot make {folder} ({error})") from error
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise RunError(f"cannot write into {folder} ({error.strerror}); give another one, or make room") from error


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


def _train(experiment: Experiment, board: Board | None) -> int:
    started = time.perf_counter()
    with _display(experiment, board) as on_batch:
        complete = experiment.run(on_batch)
    if not complete:
        print(f"Interrupted. Go on with: fastsnn train --resume {experiment.folder}")
        return 130
    metrics, potentials = experiment.metrics(), experiment.potentials()
    figures.save(plots.curves(metrics, potentials), experiment.folder / "curves.png")
    if not isinstance(experiment.config, Recipe):  # deep networks have too many panels
        if potentials.layers:
            figures.save(plots.histograms(potentials), experiment.folder / "potentials.png")
        figures.save(experiment.one_sample().plot(), experiment.folder / "spikes.png")
    write_json(experiment.folder / "metrics.json", metrics)
    last = metrics["epochs"][-1]
    config = experiment.config
    if isinstance(config, Recipe):
        best = max(row["test_accuracy"] for row in metrics["epochs"])
        paper = "" if config.accuracy is None else f"; the paper reports {config.accuracy:.2f} % for its settings"
        print(f"recipe {config.name}: best test accuracy {100 * best:.2f} %{paper}")
    print(
        f"test accuracy {100 * last['test_accuracy']:.2f} % after {last['epoch']} epochs, "
        f"{time.perf_counter() - started:.1f} s on backend {metrics['backend']}; run folder: {experiment.folder}"
    )
    return 0


def alignment(arguments: argparse.Namespace) -> int:
    """Print the cosine of each parameter's online and BPTT gradient, over samples of the training split."""
    if arguments.samples < 1:
        raise RunError(f"--samples is {arguments.samples}; it must be at least 1")
    experiment = Experiment.resume(arguments.run, root=arguments.data_root, option="RUN")
    order = torch.arange(min(arguments.samples, experiment.data.train_samples))
    x, y = next(iter(experiment.data.train_batches(experiment.config.steps, len(order), order, seed=0)))
    try:
        found = gradient_alignment(experiment.net, x, y, experiment.trainer.options["loss"])
    except ValueError as error:
        raise RunError(f"{arguments.run}: {error}") from error
    for name, cosine in found.items():
        print(f"{name:32} {'no gradient' if cosine is None else f'{cosine:7.4f}'}")
    return 0


def summary(arguments: argparse.Namespace) -> int:
    """Print the layers of a run's network and what they do on a batch of the test split."""
    experiment = Experiment.resume(arguments.run, root=arguments.data_root, option="RUN")
    x, _ = next(iter(experiment.data.test_batches(experiment.config.steps, OF_SUMMARY)))
    print(summaries.summary(experiment.net, x))
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Fold and pack the network of a run and write it, with the run's configuration."""
    experiment = Experiment.resume(arguments.run, root=arguments.data_root, option="RUN")
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
        config = (Recipe if "name" in notes["config"] else Config)(**notes["config"])
    except (KeyError, TypeError, RunError) as error:
        raise RunError(f"{arguments.file} does not say which run it is of; use fastsnn.deploy.load") from error
    experiment = Experiment(with_root(config, arguments.data_root, arguments.file), arguments.file.parent)
    net = deploy.load(arguments.file, experiment.net)
    result = evaluate(net, experiment.data.test_batches(config.steps))
    print(deploy.sizes(net))
    print(f"test accuracy {100 * result.correct / result.samples:.2f} %")
    return 0


@contextmanager
def _display(experiment: Experiment, board: Board | None) -> Iterator[Any]:
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

        def show(row: dict[str, Any]) -> None:
            bar.console.print(_line(row), highlight=False, soft_wrap=True)
            if board is not None:
                board.write(row)

        def on_batch(run: Experiment) -> None:
            nonlocal shown, clock
            progress = run.progress
            for row in progress.epochs[shown:]:
                show(row)
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
            show(row)


def _line(row: dict[str, Any]) -> str:
    rates = " ".join(f"{rate:.3f}" for rate in row["firing_rates"].values())
    top5 = f" (top 5 {100 * row['test_top5']:.2f} %)" if "test_top5" in row else ""
    return (
        f"epoch {row['epoch']:3}  loss {row['train_loss']:.4f}  train {100 * row['train_accuracy']:6.2f} %  "
        f"test {100 * row['test_accuracy']:6.2f} %{top5}  firing rates {rates}  "
        f"{row['samples_per_second']:.0f} samples/s"
    )


COMMANDS = {"train": train, "alignment": alignment, "summary": summary, "export": export, "load": load, "info": info}
