"""One training run and its folder: configuration, metrics, curves, checkpoint."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import backends, data, models
from .nn import EMPF, LIF, BinaryConv2d, plain, reset
from .nn.empf import VERSIONS
from .online import MPDR, BatchResult, SeparableShare, Trainer
from .ops.types import RULES
from .optim import STGR
from .potentials import Distribution, Potentials

CHECKPOINT = "checkpoint.pt"
FORMAT = 1  # of the checkpoint
ATTENTION = ("none", "I", "II")
WEIGHTS: dict[str, type[nn.Module]] = {"binary": BinaryConv2d, "float": nn.Conv2d}


class RunError(Exception):
    """A run cannot start or go on; the message is for the user."""


@dataclass(frozen=True)
class Recipe:
    """What a --rule trains with: the neurons' gradient rule, RPTT's regularisers at the values of CIFAR-10, and what
    normalises the currents ("bn" each step by itself, "osr"; None: the weights are standardised) and the threshold."""

    rule: str
    stgr: bool = False
    mpdr: bool = False
    norm: str | None = None
    threshold: str | None = None

    @property
    def family(self) -> str:
        """Of the neurons' kernels."""
        return "empf" if self.rule == "empf" else "mpdr" if self.mpdr else "osr" if self.norm == "osr" else "lif"


RPTT_ABLATION = {
    "osbp": Recipe("sltt"),
    "osbp+stgr": Recipe("sltt", stgr=True),
    "osbp+mpdr": Recipe("sltt", mpdr=True),
    "rptt": Recipe("sltt", stgr=True, mpdr=True),
}
OSR_ABLATION = {
    "bn": Recipe("sltt", norm="bn"),
    "osr": Recipe("sltt", norm="osr"),
    "osr+ots": Recipe("sltt", norm="osr", threshold="ots"),
}
RECIPES = {**{rule: Recipe(rule) for rule in RULES}, **RPTT_ABLATION, **OSR_ABLATION, "empf": Recipe("empf")}


@dataclass(frozen=True)
class Config:
    """All that determines a run. Raises RunError for values that do not fit together."""

    data: str = "digits"
    rule: str = "ottt"
    mode: str = "O"
    steps: int = 6
    epochs: int = 12
    batch_size: int = 64
    lr: float = 0.1
    seed: int = 0
    device: str = "cpu"
    backend: str | None = None
    version: str = "I"
    seca: str = "none"
    weights: str = "binary"
    backward_steps: int | None = None

    def __post_init__(self) -> None:
        allowed = {"data": data.DATASETS, "rule": tuple(RECIPES), "mode": ("O", "A")}
        allowed |= {"version": VERSIONS, "seca": ATTENTION, "weights": tuple(WEIGHTS)}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise RunError(f"--{name} is {getattr(self, name)!r}; allowed: {', '.join(values)}")
        for name in ("steps", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise RunError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.lr < float("inf"):
            raise RunError(f"--lr is {self.lr}; it must be a positive number")
        check_device(self.device)
        if self.rule == "bptt" and self.mode == "O":
            raise RunError("--rule bptt goes back through all steps at once: use it with --mode A")
        if self.rule in RPTT_ABLATION and self.mode == "A":
            raise RunError(f"--rule {self.rule} updates at every step: leave out --mode A (or use --rule sltt)")
        if self.rule != "empf" and (self.version, self.seca, self.weights) != ("I", "none", "binary"):
            raise RunError(
                f"--version, --seca and --weights are of EM-PF networks: use --rule empf in place of {self.rule}"
            )
        if self.rule == "empf" and self.data == "sequential-digits":
            raise RunError("--rule empf trains a residual network on images: use it with --data digits")
        if self.backward_steps is not None and not 1 <= self.backward_steps <= self.steps:
            raise RunError(f"--backward-steps is {self.backward_steps}; it must be in 1..T = {self.steps}")
        if self.rule == "bptt" and self.backward_steps is not None:
            raise RunError("--rule bptt goes back through all steps at once: leave out --backward-steps")
        if self.data == "sequential-digits" and self.steps != 8:
            raise RunError(f"--steps is {self.steps}; sequential-digits has 8 rows, one a step")

    @classmethod
    def of(cls, **given: Any) -> Config:
        """Defaults of the data set and rule, with the given values that are not None."""
        given = {name: value for name, value in given.items() if value is not None}
        if given.get("data") == "sequential-digits":
            given = {"steps": 8, "epochs": 30, **given}
        if given.get("rule") == "bptt":
            given = {"mode": "A", **given}
        return cls(**given)


def check_device(name: str) -> None:
    """Raises RunError where `name` is no CPU or CUDA device of this machine."""
    try:
        if torch.device(name).type not in ("cpu", "cuda"):
            raise RuntimeError("allowed: cpu, cuda and cuda:N")
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"--device {name} cannot be used ({reason}); --device cpu always can") from error


@dataclass
class Progress:
    """Where a run stands: epochs done, batches done in this epoch, and the epoch's sums so far."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    correct: int = 0
    samples: int = 0
    epochs: list[dict[str, Any]] = field(default_factory=list)


class Experiment:
    """A run in its folder. `run()` trains to the end or until `stop` is set; what it wrote can be resumed.

    A resumed run is bitwise the run that was not interrupted (same device, threads and versions).
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.stop = False
        self.progress = Progress()
        self.seconds_before = 0.0
        torch.manual_seed(config.seed)
        self.data = data.load(config.data).to(config.device)
        self.net = _network(config, self.data).to(config.device)
        optimizer: torch.optim.Optimizer = torch.optim.SGD(self.net.parameters(), config.lr, momentum=0.9)
        if RECIPES[config.rule].stgr:
            optimizer = STGR(optimizer)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        options = {"mode": config.mode, "backward_steps": config.backward_steps}
        self.trainer = Trainer(self.net, optimizer, scheduler, **options)
        self.neurons: dict[str, Any] = {
            name: module for name, module in self.net.named_modules() if isinstance(module, (LIF, EMPF))
        }

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.data.train_y) // self.config.batch_size)

    @property
    def threshold(self) -> float | None:
        """The threshold of all neurons; None where each layer and step has its own."""
        first = next(iter(self.neurons.values()))
        return first.v_threshold if _constant_threshold(first) else None

    def run(self, on_batch: Callable[[Experiment], None] = lambda _: None) -> bool:
        """Train; True where the run is complete, False where it was stopped. on_batch is called after each batch."""
        while self.progress.epoch < self.config.epochs:
            if not self._epoch(on_batch):
                self.save()
                return False
            self.save()
        return True

    def _order(self) -> Tensor:
        """The epoch's order of samples, a function of seed and epoch alone."""
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.progress.epoch)
        return torch.randperm(len(self.data.train_y), generator=generator)

    def _epoch(self, on_batch: Callable[[Experiment], None]) -> bool:
        progress, start = self.progress, time.perf_counter()
        done = progress.batch * self.config.batch_size
        for x, y in self.data.train_batches(self.config.steps, self.config.batch_size, self._order()[done:]):
            result = self._train_batch(x, y)
            progress.batch += 1
            progress.loss += result.loss
            progress.correct += result.correct
            progress.samples += result.samples
            on_batch(self)
            if self.stop and progress.batch < self.batches:
                self.seconds_before += time.perf_counter() - start
                return False
        self._finish_epoch(self.seconds_before + time.perf_counter() - start)
        return not self.stop or progress.epoch == self.config.epochs

    def _train_batch(self, x: Any, y: Tensor) -> BatchResult:
        try:
            return self.trainer.train_batch(x, y)
        except ValueError as error:
            epoch = self.progress.epoch + 1
            raise RunError(
                f"training stopped in epoch {epoch} ({error}); {self.folder} keeps its checkpoint"
            ) from error

    def _finish_epoch(self, seconds: float) -> None:
        progress = self.progress
        self.trainer.epoch_done()
        with SeparableShare(self.net) as separable:
            rates, moments, test = self._evaluate()
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss / progress.batch,
            "train_accuracy": progress.correct / progress.samples,
            "test_loss": test.loss,
            "test_accuracy": test.correct / test.samples,
            "firing_rates": rates,
            "separable_shares": separable.shares(),
            **self._distributions(moments),
            "seconds": seconds,
            "samples_per_second": progress.samples / seconds,
        }
        self.progress = Progress(epoch=progress.epoch + 1, epochs=[*progress.epochs, row])
        self.seconds_before = 0.0

    def _evaluate(self) -> tuple[dict[str, float], dict[str, Distribution], Any]:
        """Over the test split: every layer's firing rate, under online rules with a constant threshold the moments of
        its u, and the result."""
        fired = dict.fromkeys(self.neurons, 0.0)
        seen = dict.fromkeys(self.neurons, 0)
        online = [name for name, n in self.neurons.items() if _constant_threshold(n) and RULES[n.rule].online]
        moments = {name: Distribution(self.config.steps) for name in online}

        def count(name: str) -> Callable[..., None]:
            def hook(neuron: Any, _inputs: Any, spikes: Tensor) -> None:
                fired[name] += int(torch.count_nonzero(plain(spikes)))
                seen[name] += spikes.numel()
                if name in online:
                    moments[name].add(torch.as_tensor(neuron.state.potential))

            return hook

        hooks = [neuron.register_forward_hook(count(name)) for name, neuron in self.neurons.items()]
        try:
            result = self.trainer.evaluate(self.data.test_batches(self.config.steps))
        finally:
            for hook in hooks:
                hook.remove()
        return {name: fired[name] / seen[name] for name in fired}, moments, result

    def _distributions(self, moments: dict[str, Distribution]) -> dict[str, Any]:
        """Z-score, and with MPDR L_M, of every layer and step of the test split."""
        rows = {"z_scores": {name: m.z_score(self.neurons[name].v_threshold) for name, m in moments.items()}}
        regularised = {name: self.neurons[name].mpdr for name in moments}
        losses = {name: moments[name].loss(mpdr) for name, mpdr in regularised.items() if mpdr is not None}
        return {**(rows if moments else {}), **({"mpdr_loss": losses} if losses else {})}

    @torch.no_grad()
    def potentials(self) -> Potentials:
        """Every neuron's potential at every step over the test split: u of LIF under online rules, else v; EM-PF's
        version III has none."""
        rows: dict[str, list[Tensor]] = {}
        self.net.eval()
        for x, _ in self.data.test_batches(self.config.steps):
            reset(self.net)
            seen: dict[str, list[Tensor]] = {}
            for x_t in x:
                self.net(x_t)
                for name, neuron in self.neurons.items():
                    potential = neuron.state.potential if isinstance(neuron, LIF) else neuron.v
                    if potential is not None:
                        seen.setdefault(name, []).append(torch.as_tensor(potential).flatten().cpu())
            for name, values in seen.items():
                rows.setdefault(name, []).append(torch.stack(values))
        reset(self.net)
        self.net.train()
        rule = RULES.get(RECIPES[self.config.rule].rule)
        kind = "u before reset" if rule is not None and rule.online else "v after reset"
        return Potentials({name: torch.cat(values, 1) for name, values in rows.items()}, kind, self.threshold)

    def save(self) -> None:
        """Write checkpoint, metrics and configuration; each replaces the old file only once it is whole."""
        state = {
            "format": FORMAT,
            "config": asdict(self.config),
            "progress": asdict(self.progress),
            "seconds_before": self.seconds_before,
            "trainer": self.trainer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        write_whole(self.folder / CHECKPOINT, lambda file: torch.save(state, file))
        write_json(self.folder / "config.json", asdict(self.config))
        write_json(self.folder / "metrics.json", self.metrics())

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {
            "config": asdict(self.config),
            "complete": self.progress.epoch == self.config.epochs,
            "backend": backends.running(RECIPES[self.config.rule].family, self.config.device) or "none",
            "epochs": self.progress.epochs,
        }

    @classmethod
    def resume(cls, folder: Path) -> Experiment:
        """The run of a folder, where it stopped. Raises RunError where its checkpoint cannot be read."""
        saved = read_checkpoint(folder / CHECKPOINT)
        experiment = cls(Config(**saved["config"]), folder)
        experiment.trainer.load_state_dict(saved["trainer"])
        experiment.progress = Progress(**saved["progress"])
        experiment.seconds_before = saved["seconds_before"]
        torch.set_rng_state(saved["rng"])
        return experiment


def _constant_threshold(neuron: nn.Module) -> bool:
    return isinstance(neuron, LIF) and neuron.stabilizer is None


def _network(config: Config, read: Any) -> nn.Module:
    if config.rule == "empf":
        seca = None if config.seca == "none" else config.seca
        return models.digits_empf(config.steps, config.version, seca, read.classes, conv=WEIGHTS[config.weights])
    recipe = RECIPES[config.rule]
    if recipe.norm is not None:
        normed = models.digits_mlp_normed if read.sequential else models.digits_conv_normed
        return normed(config.steps, recipe.norm, recipe.rule, read.classes, threshold=recipe.threshold)
    build = models.digits_mlp if read.sequential else models.digits_conv
    return build(recipe.rule, read.classes, mpdr=MPDR.paper("cifar10") if recipe.mpdr else None)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's contents. Raises RunError naming the file and what is wrong with it."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"--resume: {path} does not exist; give the folder of a run (it holds {CHECKPOINT})") from error
    except Exception as error:
        raise RunError(
            f"--resume: {path} is not a readable checkpoint ({type(error).__name__}); it may be truncated or of "
            "another program: resume another run, or start anew"
        ) from error
    wanted = {"format", "config", "progress", "seconds_before", "trainer", "rng"}
    if not isinstance(saved, dict) or not wanted <= saved.keys() or saved["format"] != FORMAT:
        found = saved.get("format") if isinstance(saved, dict) else None
        raise RunError(f"--resume: {path} has checkpoint format {found!r} and this fastsnn reads {FORMAT}")
    known = {f.name for f in dataclasses.fields(Config)}
    if saved["config"].keys() != known:
        raise RunError(f"--resume: {path} holds another version's configuration ({sorted(saved['config'])})")
    return saved


def write_whole(path: Path, write: Callable[[Any], None]) -> None:
    """Write beside `path` and move into place: a full disk or a crash leaves the old file as it was.

    Raises RunError where it cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise RunError(f"could not write {path} ({error}); the file from before, if any, is unchanged") from error


def write_json(path: Path, value: Any) -> None:
    write_whole(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))
