"""`fastsnn train | recipes | alignment | summary | export | load | info | bench`.

What reads the arguments imports no torch.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ._version import __version__
from .allocator import keep_freed_memory
from .errors import BackendError, DeployError, RunError
from .names import BACKENDS, VERSIONS
from .recipes import Recipe, list_recipes, read
from .train.config import ATTENTION, RECIPES, WEIGHTS, Config

OPTIONS = (
    *("data", "rule", "mode", "steps", "epochs", "batch_size", "lr", "seed", "device", "backend"),
    *("version", "seca", "weights", "parallel", "backward_steps"),
)
OF_DIGITS = ("rule", "version", "seca", "weights", "parallel")
OF_RECIPES = ("model", "settings", "data_root", "init", "download")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="fastsnn", description=__doc__)
    root.add_argument("--version", action="version", version=f"fastsnn {__version__}")
    commands = root.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train",
        help="train a spiking network on real data",
        description="Trains a row of a paper (--recipe), or a small spiking network on handwritten digits, and writes "
        "a run folder.",
    )
    train.add_argument("--recipe", metavar="NAME", help="a row of `fastsnn recipes`, or a .yaml file of your own")
    train.add_argument("--set", action="append", dest="settings", metavar="KEY=VALUE", help="change a recipe's entry")
    train.add_argument("--model", help="another network for a recipe: a name, or module:function of your own")
    train.add_argument("--data", help="digits (default) or sequential-digits; for a recipe a name or module:Class")
    train.add_argument("--data-root", metavar="ROOT", help="the folder that holds a recipe's data")
    train.add_argument("--download", action="store_true", default=None, help="fetch the data where they are missing")
    train.add_argument("--init", metavar="RUN", help="begin with the weights of the run in this folder")
    train.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard, too")
    train.add_argument("--profile", action="store_true", help="show where a step's time goes, and train nothing")
    train.add_argument("--rule", choices=tuple(RECIPES), help="training rule, default: ottt")
    train.add_argument("--mode", choices=("O", "A"), help="O: update each step (default); A: once a batch")
    train.add_argument("--steps", type=int, metavar="T", help="time steps, default: 6 (sequential-digits: 8)")
    train.add_argument("--epochs", type=int, help="default: 12 (sequential-digits: 30); with --resume: in all")
    train.add_argument("--batch-size", type=int, help="default: 64")
    train.add_argument("--lr", type=float, help="learning rate of SGD with momentum 0.9, default: 0.1")
    train.add_argument("--seed", type=int, help="default: 0")
    train.add_argument("--device", help="default: cpu")
    train.add_argument("--backend", choices=BACKENDS, help="force one backend")
    train.add_argument("--version", choices=VERSIONS, help="of EM-PF neurons (--rule empf), default: I")
    train.add_argument("--seca", choices=ATTENTION, help="channel attention of --rule empf, default: none")
    train.add_argument("--weights", choices=WEIGHTS, help="of --rule empf's inner convolutions, default: binary")
    train.add_argument(
        "--parallel",
        action="store_true",
        default=None,
        help="neurons inside --rule empf's blocks are of version III, without state",
    )
    train.add_argument("--backward-steps", type=int, metavar="K", help="random back-propagation, default: all T steps")
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    train.add_argument("--out", type=Path, help="run folder, default: runs/<data>-<rule>-<time>")
    commands.add_parser("recipes", help="the papers' rows that can be trained, beside their figures")
    alignment = commands.add_parser(
        "alignment", help="cosine between the online and the BPTT gradient of a run's network, layer by layer"
    )
    alignment.add_argument("--samples", type=int, default=64, help="of the training split, default: 64")
    summary = commands.add_parser(
        "summary", help="layers of a run's network, their operations on test data, and energy"
    )
    export = commands.add_parser("export", help="write a run's network, folded and packed, to one file")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a safetensors file")
    load = commands.add_parser("load", help="read such a file and evaluate its network on the run's test data")
    load.add_argument("file", type=Path)
    for command in (alignment, summary, export):
        command.add_argument("run", type=Path, help="run folder")
    for command in (alignment, summary, export, load):
        command.add_argument("--data-root", metavar="ROOT", help="where the recipe's data have moved to")
    commands.add_parser("info", help="versions, backends, instruction set, threads, and why")
    bench = commands.add_parser("bench", help="benchmarks", add_help=False)
    bench.add_argument("arguments", nargs=argparse.REMAINDER)
    return root


def main(argv: list[str] | None = None) -> int:
    """Entry of the `fastsnn` command: 0 done, 1 failed, 130 interrupted (a run that had begun wrote a checkpoint)."""
    try:
        status = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("fastsnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # nobody reads on: what Python would still write at its end goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RunError, DeployError, BackendError, ImportError, FloatingPointError, OSError, MemoryError) as error:
        print(f"fastsnn: {error or 'out of memory'}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        print(f"fastsnn: out of memory ({str(error).splitlines()[0]})", file=sys.stderr)
        return 1


def command() -> NoReturn:
    """The process of `main`. Its answer is whole where that returns: an interrupt that comes later is ignored."""
    status = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


def _end(*_: object) -> None:
    os.write(2, b"fastsnn: interrupted\n")
    os._exit(130)


@contextmanager
def _ended_by_an_interrupt() -> Iterator[None]:
    """Around imports: what torch and numpy make of a KeyboardInterrupt in the midst of theirs may be any error."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _main(argv: list[str]) -> int:
    if argv[:1] == ["bench"]:
        _announce()
        from ._bench import main as bench

        return bench(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.command == "recipes":
        return _recipes()
    if arguments.command == "train":
        arguments.config = _configuration(arguments)
        # read where torch loads OpenMP: beside other processes threads that spin are many times slower
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        keep_freed_memory()
    _announce()
    with _ended_by_an_interrupt():
        from .commands import COMMANDS

    return COMMANDS[arguments.command](arguments)


def _announce() -> None:
    """A first output: torch takes seconds to import."""
    print(f"fastsnn {__version__}: loading torch", file=sys.stderr, flush=True)


def _recipes() -> int:
    for recipe in list_recipes():
        figure = "     -" if recipe.accuracy is None else f"{recipe.accuracy:6.2f}"
        print(f"{recipe.name:32} {figure} %  {recipe.model} on {recipe.data}, T = {recipe.steps}; {recipe.paper}")
    return 0


def _configuration(arguments: argparse.Namespace) -> Config | Recipe | None:
    """Of a new run; None with --resume."""
    if arguments.recipe is not None and arguments.resume is None:
        return _recipe(arguments)
    given = {name: getattr(arguments, name) for name in OPTIONS}
    of_recipes = {name: getattr(arguments, name) for name in OF_RECIPES}
    if arguments.resume is None:
        if taken := _taken(of_recipes):
            raise RunError(f"{taken} is for --recipe, which `fastsnn recipes` lists")
        return Config.of(**given)
    given |= of_recipes | {"epochs": None, "data_root": None, "out": arguments.out, "recipe": arguments.recipe}
    if taken := _taken(given):
        raise RunError(
            f"--resume goes on with the run's own configuration (but --epochs and --data-root); leave out {taken}"
        )
    return None


def _taken(given: dict[str, Any]) -> str:
    names = (
        "set" if name == "settings" else name.replace("_", "-") for name, value in given.items() if value is not None
    )
    return ", ".join(f"--{name}" for name in names)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe with the options in it. Options of another network or data set are not those of the recipe's own."""
    if taken := _taken({name: getattr(arguments, name) for name in OF_DIGITS}):
        raise RunError(f"{taken} is of the digits; for a recipe write --set rule=..., --set model_options.version=...")
    recipe = read(arguments.recipe)
    given = {name: getattr(arguments, name) for name in OPTIONS if name not in OF_DIGITS} | {"model": arguments.model}
    given |= {"init_from": arguments.init, "root": arguments.data_root}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("model", "data"):
        if changes.get(name, getattr(recipe, name)) != getattr(recipe, name):
            changes[f"{name}_options"] = {}
    return replace(recipe, **changes).with_settings(arguments.settings or ())


if __name__ == "__main__":
    sys.exit(main())
