"""`fastsnn train | export | load | info | bench`. What reads the arguments imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import __version__
from .config import ATTENTION, RECIPES, WEIGHTS, Config
from .errors import BackendError, DeployError, RunError
from .names import BACKENDS, DATASETS, VERSIONS

OPTIONS = (
    *("data", "rule", "mode", "steps", "epochs", "batch_size", "lr", "seed", "device", "backend"),
    *("version", "seca", "weights", "parallel", "backward_steps"),
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
    train.add_argument("--data", choices=DATASETS, help="default: digits")
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


def _main(argv: list[str]) -> int:
    if argv[:1] == ["bench"]:
        _announce()
        from ._bench import main as bench

        return bench(argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.command == "train":
        arguments.config = _configuration(arguments)
        # read where torch loads OpenMP: beside other processes threads that spin are many times slower
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _announce()
    from .commands import COMMANDS

    return COMMANDS[arguments.command](arguments)


def _announce() -> None:
    """A first output: torch takes seconds to import."""
    print(f"fastsnn {__version__}: loading torch", file=sys.stderr, flush=True)


def _configuration(arguments: argparse.Namespace) -> Config | None:
    """Of a new run; None with --resume."""
    given = {name: getattr(arguments, name) for name in OPTIONS}
    if arguments.resume is None:
        return Config.of(**given)
    given |= {"epochs": None, "out": arguments.out}
    taken = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if taken:
        raise RunError(
            f"--resume goes on with the run's own configuration (but --epochs); leave out {', '.join(taken)}"
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
