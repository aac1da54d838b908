"""`fastsnn train | export | load | info | bench`."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from . import __version__, backends, data, deploy, plots
from .experiment import ATTENTION, RECIPES, WEIGHTS, Config, Experiment, RunError, write_json
from .nn.empf import VERSIONS
from .online import evaluate

OPTIONS = (
    *("data", "rule", "mode", "steps", "epochs", "batch_size", "lr", "seed", "device", "backend"),
    *("version", "seca", "weights", "backward_steps"),
)


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="fastsnn", description=__doc__)
    root.add_argument("--version", action="version", version=f"fastsnn {__version__}")
    commands = root.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train",
        help="train a spiking network on real data",
        description="Trains a small spiking network on handwritten digits and writes a run folder.",
    )
    train.add_argument("--data", choices=data.DATASETS, help="default: digits")
    train.add_argument("--rule", choices=tuple(RECIPES), help="training rule, default: ottt")
    train.add_argument("--mode", choices=("O", "A"), help="O: update each step (default); A: once a batch")
    train.add_argument("--steps", type=int, metavar="T", help="time steps, default: 6 (sequential-digits: 8)")
    train.add_argument("--epochs", type=int, help="default: 12 (sequential-digits: 30)")
    train.add_argument("--batch-size", type=int, help="default: 64")
    train.add_argument("--lr", type=float, help="learning rate of SGD with momentum 0.9, default: 0.1")
    train.add_argument("--seed", type=int, help="default: 0")
    train.add_argument("--device", help="default: cpu")
    train.add_argument("--backend", choices=list(backends.REGISTRY), help="force one backend")
    train.add_argument("--version", choices=VERSIONS, help="of EM-PF neurons (--rule empf), default: I")
    train.add_argument("--seca", choices=ATTENTION, help="channel attention of --rule empf, default: none")
    train.add_argument("--weights", choices=WEIGHTS, help="of --rule empf's inner convolutions, default: binary")
    train.add_argument("--backward-steps", type=int, metavar="K", help="random back-propagation, default: all T steps")
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    train.add_argument("--out", type=Path, help="run folder, default: runs/<data>-<rule>-<time>")
    export = commands.add_parser("export", help="write a run's network, folded and packed, to one file")
    export.add_argument("run", type=Path, help="run folder")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a safetensors file")
    load = commands.add_parser("load", help="read such a file and evaluate its network on the run's test data")
    load.add_argument("file", type=Path)
    commands.add_parser("info", help="versions, backends, instruction set, threads, and why")
    bench = commands.add_parser("bench", help="benchmarks", add_help=False)
    bench.add_argument("arguments", nargs=argparse.REMAINDER)
    return root


def main(argv: list[str] | None = None) -> int:
    """Entry of the `fastsnn` command: 0 done, 1 failed, 130 interrupted (a checkpoint was written)."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["bench"]:
        from ._bench import main as bench

        return bench(argv[1:])
    arguments = parser().parse_args(argv)
    try:
        return COMMANDS[arguments.command](arguments)
    except (RunError, deploy.DeployError, backends.BackendError, ImportError, FloatingPointError) as error:
        print(f"fastsnn: {error}", file=sys.stderr)
        return 1


def info(_: argparse.Namespace) -> int:
    """Print versions, backends with reasons, instruction set and threads."""
    rows = [
        ("fastsnn", __version__),
        ("torch", torch.__version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("threads", str(torch.get_num_threads())),
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
    given = {name: getattr(arguments, name) for name in OPTIONS}
    if arguments.resume is not None:
        taken = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        taken += ["--out"] if arguments.out is not None else []
        if taken:
            raise RunError(f"--resume goes on with the run's own configuration; leave out {', '.join(taken)}")
        experiment = Experiment.resume(arguments.resume)
    else:
        config = Config.of(**given)
        experiment = Experiment(config, _new_folder(arguments.out, config))
    with backends.use_backend(experiment.config.backend), _stop_on_interrupt(experiment):
        return _train(experiment)


def _new_folder(out: Path | None, config: Config) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / f"{config.data}-{config.rule}-{stamp}"
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"--out: {folder} is not empty; give a new folder, or --resume {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out: cannot make {folder} ({error})") from error
    return folder


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
    except (KeyError, TypeError) as error:
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


if __name__ == "__main__":
    sys.exit(main())
