"""One training run and its folder: configuration, metrics, curves, checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from .. import backends, models
from ..errors import RunError
from ..files import write_json
from ..nn import EMPF, LIF, plain, reset
from ..online import BatchResult, SeparableShare, Trainer
from ..online.training import evaluating
from ..recipes import Recipe
from ..recorder import Record, record
from ..rules import RULES
from . import checkpoints
from .assembly import CONVOLUTIONS, assemble
from .checkpoints import BEST, CHECKPOINT, INIT
from .config import OSR_ABLATION, RECIPES, RPTT_ABLATION, Config
from .potentials import Distribution, Potentials, charged

SHOWN = 4  # samples whose potentials a recipe's figures have

__all__ = [
    "CHECKPOINT",
    "CONVOLUTIONS",
    "OSR_ABLATION",
    "RECIPES",
    "RPTT_ABLATION",
    "Config",
    "Experiment",
    "Progress",
    "RunError",
    "models",
]


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

    A resumed run is bitwise the run that was not interrupted (same device, threads and versions). download: fetch the
    data where they are missing and their owner allows it.
    """

    def __init__(self, config: Config | Recipe, folder: Path, download: bool = False) -> None:
        check_device(config.device)
        self.config, self.folder = config, folder
        self.stop = False
        self.progress = Progress()
        self.seconds_before = 0.0
        torch.manual_seed(config.seed)
        self.init = _init(config, folder)
        self.data, self.net, optimizer, self.scheduler, loss = assemble(config, download, self.init)
        clip = config.clip if isinstance(config, Recipe) else None
        options: dict[str, Any] = {"mode": config.mode, "backward_steps": config.backward_steps, "clip": clip}
        self.trainer = Trainer(self.net, optimizer, self.scheduler, loss=loss, **options)
        self.neurons: dict[str, Any] = {
            name: module for name, module in self.net.named_modules() if isinstance(module, (LIF, EMPF))
        }

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return -(-self.data.train_samples // self.config.batch_size)

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

    @property
    def _seed(self) -> int:
        """Of the epoch's order and augmentation, a function of the run's seed and the epoch alone."""
        seed = self.config.seed * 1_000_003 + self.progress.epoch
        return seed if -(2**63) <= seed < 2**64 else seed % 2**64

    def _order(self) -> Tensor:
        generator = torch.Generator().manual_seed(self._seed)
        return torch.randperm(self.data.train_samples, generator=generator)

    def train_batches(self) -> Any:
        """What is left of the present epoch."""
        done, config = self.progress.batch * self.config.batch_size, self.config
        return self.data.train_batches(config.steps, config.batch_size, self._order()[done:], seed=self._seed % 2**62)

    def _epoch(self, on_batch: Callable[[Experiment], None]) -> bool:
        progress, start = self.progress, time.perf_counter()
        for x, y in self.train_batches():
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
            kept = (self.folder / CHECKPOINT).exists()
            raise RunError(
                f"training stopped in epoch {epoch} ({error}); "
                + (f"{self.folder} keeps its checkpoint" if kept else "no checkpoint was written yet")
            ) from error

    def _finish_epoch(self, seconds: float) -> None:
        progress = self.progress
        self.trainer.epoch_done()
        with SeparableShare(self.net) as separable:
            rates, moments, test, top5 = self._evaluate()
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss / progress.batch,
            "train_accuracy": progress.correct / progress.samples,
            "test_loss": test.loss,
            "test_accuracy": test.correct / test.samples,
            **({} if top5 is None else {"test_top5": top5 / test.samples}),
            "firing_rates": {name: sum(steps) / len(steps) for name, steps in rates.items()},
            "step_rates": rates,
            "separable_shares": separable.shares(),
            **self._distributions(moments),
            "seconds": seconds,
            "samples_per_second": progress.samples / seconds,
        }
        self.progress = Progress(epoch=progress.epoch + 1, epochs=[*progress.epochs, row])
        self.seconds_before = 0.0

    def _evaluate(self) -> tuple[dict[str, list[float]], dict[str, Distribution], BatchResult, int | None]:
        """Over the test split: every layer's firing rate at each step, the moments of u of LIF with a constant
        threshold, the result, and how often the class is among the five largest outputs, where there are more."""
        steps = self.config.steps
        moments = {name: Distribution(steps) for name, n in self.neurons.items() if _constant_threshold(n)}
        hooks: list[Any] = []
        for name, distribution in moments.items():
            neuron = self.neurons[name]
            hooks.append(_each_potential(neuron, partial(distribution.add, threshold=neuron.v_threshold)))
        top5 = TopFive() if self.data.classes > 5 else None
        try:
            with record(self.net) as seen:
                result = self.trainer.evaluate(self._test_batches(top5, hooks))
        finally:
            for hook in hooks:
                hook.remove()
        return seen.rates, moments, result, None if top5 is None else top5.correct

    def _test_batches(self, top5: TopFive | None, hooks: list[Any]) -> Iterator[tuple[Any, Tensor]]:
        if top5 is not None:
            hooks.append(self.net.register_forward_hook(lambda _net, _inputs, out: top5.add(plain(out))))
        for x, y in self.data.test_batches(self.config.steps):
            yield x, y
            if top5 is not None:
                top5.judge(y)

    def _distributions(self, moments: dict[str, Distribution]) -> dict[str, Any]:
        """Z-score, and with MPDR L_M, of every layer and step of the test split."""
        rows: dict[str, Any] = {
            "z_scores": {name: m.z_score(self.neurons[name].v_threshold) for name, m in moments.items()}
        }
        rows |= {"above_threshold": {name: m.above_threshold() for name, m in moments.items()}}
        regularised = {name: self.neurons[name].mpdr for name in moments}
        losses = {name: moments[name].loss(mpdr) for name, mpdr in regularised.items() if mpdr is not None}
        return {**(rows if moments else {}), **({"mpdr_loss": losses} if losses else {})}

    @torch.no_grad()
    def potentials(self) -> Potentials:
        """Every neuron's potential at every step over the test split, of a recipe's over its first samples alone: u of
        LIF, v of EM-PF, whose version III has none."""
        rows: dict[str, list[Tensor]] = {}
        seen: dict[str, list[Tensor]] = {}

        def keep(name: str, potential: Tensor | None) -> None:
            if potential is not None:
                seen.setdefault(name, []).append(potential.flatten().cpu())

        hooks = [
            _each_potential(neuron, partial(keep, name))
            if isinstance(neuron, LIF)
            else neuron.register_forward_hook(partial(_each_potential_after, partial(keep, name)))
            for name, neuron in self.neurons.items()
        ]
        with evaluating(self.net):
            for x, _ in self.data.test_batches(self.config.steps):
                reset(self.net)
                for x_t in x:
                    self.net(x_t[:SHOWN] if isinstance(self.config, Recipe) else x_t)
                for name, values in seen.items():
                    rows.setdefault(name, []).append(torch.stack(values))
                seen.clear()
                if isinstance(self.config, Recipe):
                    break
        for hook in hooks:
            hook.remove()
        reset(self.net)
        kind = "v after reset" if self.config.rule == "empf" else "u before reset"
        return Potentials({name: torch.cat(values, 1) for name, values in rows.items()}, kind, self.threshold)

    @torch.no_grad()
    def one_sample(self) -> Record:
        """The spikes of every neuron on the first sample of the test split."""
        x, _ = next(iter(self.data.test_batches(self.config.steps)))
        reset(self.net)
        with evaluating(self.net), record(self.net, rates=False, spikes=True) as seen:
            for x_t in x:
                self.net(x_t[:1])
        reset(self.net)
        return seen

    def save(self) -> None:
        """Write checkpoint, metrics and configuration; each replaces the old file only once it is whole. After an epoch
        of the best test accuracy so far the checkpoint is kept beside as best.pt, too."""
        fields = {
            "config": asdict(self.config),
            "progress": asdict(self.progress),
            "seconds_before": self.seconds_before,
            "trainer": self.trainer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.init is not None and self.init != self.folder / INIT:
            shutil.copyfile(self.init, self.folder / INIT)
            self.init = self.folder / INIT
        checkpoints.write(self.folder / CHECKPOINT, fields)
        if self.progress.batch == 0 and self._is_best():
            checkpoints.write(self.folder / BEST, fields)
        write_json(self.folder / "config.json", asdict(self.config))
        write_json(self.folder / "metrics.json", self.metrics())

    def _is_best(self) -> bool:
        accuracies = [row["test_accuracy"] for row in self.progress.epochs]
        return bool(accuracies) and accuracies[-1] > max(accuracies[:-1], default=-1.0)

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds."""
        config = self.config
        family = config.family if isinstance(config, Recipe) else RECIPES[config.rule].family
        return {
            "config": asdict(config),
            "complete": self.progress.epoch == config.epochs,
            "backend": backends.running(family, config.device) or "none",
            "epochs": self.progress.epochs,
        }

    @classmethod
    def resume(
        cls, folder: Path, epochs: int | None = None, root: str | None = None, option: str = "--resume"
    ) -> Experiment:
        """The run of a folder, where it stopped; epochs: how many it shall have in all, where not as before; root: the
        folder of a recipe's data, where they have moved; option: by which the folder was given.

        Raises RunError where its checkpoint cannot be read, was altered or does not fit, or has that many epochs
        already. Warns of a checkpoint of fastsnn 0.1, which has no checksum.
        """
        path = folder / CHECKPOINT
        saved = checkpoints.read(path, option)
        _check_folder(folder, saved["config"], option)
        try:
            experiment = cls(with_root(saved["config"], root, folder), folder)
        except (RuntimeError, MemoryError) as error:
            raise RunError(f"{option}: {path} asks for a network that cannot be made ({error})") from error
        experiment._check(saved, path, option)
        experiment.trainer.load_state_dict(saved["trainer"])
        experiment.progress = Progress(**saved["progress"])
        experiment.seconds_before = saved["seconds_before"]
        torch.set_rng_state(saved["rng"])
        if epochs is not None:
            experiment._extend(epochs)
        return experiment

    def _check(self, saved: dict[str, Any], path: Path, option: str) -> None:
        """Raises RunError where what a checkpoint holds does not fit this run, which has not begun."""
        trainer = self.trainer
        parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        samples, layers = self.data.train_samples, set(self.neurons)
        checkpoints.check(saved, path, trainer.state_dict(), parameters, self.batches, samples, layers, option)

    def _extend(self, epochs: int) -> None:
        """The learning rate goes on along the cosine of that many epochs, or in its steps."""
        done = self.progress.epoch
        if epochs <= done:
            raise RunError(f"--epochs is {epochs} and {self.folder} has trained {done} epochs; give more, in all")
        self.config = dataclasses.replace(self.config, epochs=epochs)
        if not isinstance(self.scheduler, CosineAnnealingLR):
            return
        self.scheduler.T_max = epochs
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = self.config.lr * (1 + math.cos(math.pi * done / epochs)) / 2


def with_root(config: Config | Recipe, root: str | None, path: Path) -> Config | Recipe:
    """The configuration of `path` with its data in root, or where they were. Raises RunError where it has none."""
    if root is None:
        return config
    if not isinstance(config, Recipe):
        raise RunError(f"--data-root: {path} is of a run on {config.data}, which has no files")
    return dataclasses.replace(config, root=root)


def _init(config: Config | Recipe, folder: Path) -> Path | None:
    """The checkpoint whose weights a run begins with: the folder's own copy, else the run's that the recipe names.
    Raises RunError where the recipe lacks something."""
    if isinstance(config, Config):
        return None
    if config.missing is not None:
        raise RunError(f"recipe {config.name}: {config.missing}")
    if config.init_from is None:
        return None
    if (folder / INIT).exists():
        return folder / INIT
    source = Path(config.init_from)
    return source / (BEST if (source / BEST).exists() else CHECKPOINT) if source.is_dir() else source


def _check_folder(folder: Path, config: Config | Recipe, option: str) -> None:
    """Raises RunError where the checkpoint is of another recipe than the folder."""
    path = folder / "config.json"
    if not isinstance(config, Recipe) or not path.exists():
        return
    try:
        named = json.loads(path.read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{option}: {path} is no recipe run's configuration ({error})") from error
    if named != config.name:
        raise RunError(f"{option}: {folder} is a run of recipe {named} and its checkpoint is one of {config.name}")


class TopFive:
    """How often a sample's class is among the five largest outputs, summed over the steps."""

    def __init__(self) -> None:
        self.correct = 0
        self._sum: Tensor | None = None

    def add(self, logits: Tensor) -> None:
        """One step."""
        self._sum = logits.detach() if self._sum is None else self._sum + logits.detach()

    def judge(self, y: Tensor) -> None:
        """The batch whose steps were added."""
        assert self._sum is not None
        self.correct += int((self._sum.topk(5, 1).indices == y[:, None]).sum())
        self._sum = None


def _each_potential(neuron: LIF, use: Callable[[Any], None]) -> Any:
    """A hook at every step of a neuron: use(u). That is the state an online rule leaves, else it is computed before."""
    if RULES[neuron.rule].online and neuron.stabilizer is None and not neuron.store_v_seq:
        return neuron.register_forward_hook(lambda *_: use(neuron.state.potential))
    return neuron.register_forward_pre_hook(lambda _neuron, inputs: use(charged(neuron, *inputs)))


def _each_potential_after(use: Callable[[Tensor | None], None], neuron: EMPF, *_: Any) -> None:
    """A hook after a neuron's step: use(v)."""
    use(neuron.state.v)


def _constant_threshold(neuron: nn.Module) -> bool:
    return isinstance(neuron, LIF) and neuron.stabilizer is None
