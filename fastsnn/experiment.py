"""One training run and its folder: configuration, metrics, curves, checkpoint."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import backends, checkpoints, data, models
from .checkpoints import CHECKPOINT
from .config import OSR_ABLATION, RECIPES, RPTT_ABLATION, Config
from .errors import RunError
from .files import write_json
from .nn import EMPF, LIF, BinaryConv2d, plain, reset
from .online import MPDR, BatchResult, SeparableShare, Trainer
from .online.training import evaluating
from .optim import STGR
from .potentials import Distribution, Potentials, charged

CONVOLUTIONS: dict[str, type[nn.Module]] = {"binary": BinaryConv2d, "float": nn.Conv2d}  # by --weights

__all__ = ["CHECKPOINT", "OSR_ABLATION", "RECIPES", "RPTT_ABLATION", "Config", "Experiment", "Progress", "RunError"]


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
        check_device(config.device)
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
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
        options: dict[str, Any] = {"mode": config.mode, "backward_steps": config.backward_steps}
        self.trainer = Trainer(self.net, optimizer, self.scheduler, **options)
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
        seed = self.config.seed * 1_000_003 + self.progress.epoch
        generator = torch.Generator().manual_seed(seed if -(2**63) <= seed < 2**64 else seed % 2**64)
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
            kept = (self.folder / CHECKPOINT).exists()
            raise RunError(
                f"training stopped in epoch {epoch} ({error}); "
                + (f"{self.folder} keeps its checkpoint" if kept else "no checkpoint was written yet")
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
        """Over the test split: every layer's firing rate, the moments of u of LIF with a constant threshold, and the
        result."""
        fired = dict.fromkeys(self.neurons, 0.0)
        seen = dict.fromkeys(self.neurons, 0)
        moments = {name: Distribution(self.config.steps) for name, n in self.neurons.items() if _constant_threshold(n)}

        def count(name: str) -> Callable[..., None]:
            def hook(neuron: Any, _inputs: Any, spikes: Tensor) -> None:
                fired[name] += int(torch.count_nonzero(plain(spikes)))
                seen[name] += spikes.numel()

            return hook

        hooks = [neuron.register_forward_hook(count(name)) for name, neuron in self.neurons.items()]
        for name, distribution in moments.items():
            add = partial(_each_potential, distribution.add)
            hooks.append(self.neurons[name].register_forward_pre_hook(add))
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
        """Every neuron's potential at every step over the test split: u of LIF, v of EM-PF, whose version III has
        none."""
        rows: dict[str, list[Tensor]] = {}
        seen: dict[str, list[Tensor]] = {}

        def keep(name: str, potential: Tensor | None) -> None:
            if potential is not None:
                seen.setdefault(name, []).append(potential.flatten().cpu())

        hooks = [
            neuron.register_forward_pre_hook(partial(_each_potential, partial(keep, name)))
            if isinstance(neuron, LIF)
            else neuron.register_forward_hook(partial(_each_potential_after, partial(keep, name)))
            for name, neuron in self.neurons.items()
        ]
        with evaluating(self.net):
            for x, _ in self.data.test_batches(self.config.steps):
                reset(self.net)
                for x_t in x:
                    self.net(x_t)
                for name, values in seen.items():
                    rows.setdefault(name, []).append(torch.stack(values))
                seen.clear()
        for hook in hooks:
            hook.remove()
        reset(self.net)
        kind = "v after reset" if self.config.rule == "empf" else "u before reset"
        return Potentials({name: torch.cat(values, 1) for name, values in rows.items()}, kind, self.threshold)

    def save(self) -> None:
        """Write checkpoint, metrics and configuration; each replaces the old file only once it is whole."""
        fields = {
            "config": asdict(self.config),
            "progress": asdict(self.progress),
            "seconds_before": self.seconds_before,
            "trainer": self.trainer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        checkpoints.write(self.folder / CHECKPOINT, fields)
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
    def resume(cls, folder: Path, epochs: int | None = None) -> Experiment:
        """The run of a folder, where it stopped; epochs: how many it shall have in all, where not as before.

        Raises RunError where its checkpoint cannot be read, was altered or does not fit, or has that many epochs
        already. Warns of a checkpoint of fastsnn 0.1, which has no checksum.
        """
        path = folder / CHECKPOINT
        saved = checkpoints.read(path)
        try:
            experiment = cls(saved["config"], folder)
        except (RuntimeError, MemoryError) as error:
            raise RunError(f"--resume: {path} asks for a network that cannot be made ({error})") from error
        experiment._check(saved, path)
        experiment.trainer.load_state_dict(saved["trainer"])
        experiment.progress = Progress(**saved["progress"])
        experiment.seconds_before = saved["seconds_before"]
        torch.set_rng_state(saved["rng"])
        if epochs is not None:
            experiment._extend(epochs)
        return experiment

    def _check(self, saved: dict[str, Any], path: Path) -> None:
        """Raises RunError where what a checkpoint holds does not fit this run, which has not begun."""
        trainer = self.trainer
        parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        samples, layers = len(self.data.train_y), set(self.neurons)
        checkpoints.check(saved, path, trainer.state_dict(), parameters, self.batches, samples, layers)

    def _extend(self, epochs: int) -> None:
        """The learning rate goes on along the cosine of that many epochs."""
        done = self.progress.epoch
        if epochs <= done:
            raise RunError(f"--epochs is {epochs} and {self.folder} has trained {done} epochs; give more, in all")
        self.config = dataclasses.replace(self.config, epochs=epochs)
        self.scheduler.T_max = epochs
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = self.config.lr * (1 + math.cos(math.pi * done / epochs)) / 2


def _each_potential(use: Callable[[Tensor], None], neuron: LIF, inputs: tuple[Tensor]) -> None:
    """A hook before a neuron's step: use(u)."""
    use(charged(neuron, *inputs))


def _each_potential_after(use: Callable[[Tensor | None], None], neuron: EMPF, *_: Any) -> None:
    """A hook after a neuron's step: use(v)."""
    use(neuron.state.v)


def _constant_threshold(neuron: nn.Module) -> bool:
    return isinstance(neuron, LIF) and neuron.stabilizer is None


def _network(config: Config, read: Any) -> nn.Module:
    if config.rule == "empf":
        seca = None if config.seca == "none" else config.seca
        options: dict[str, Any] = {"conv": CONVOLUTIONS[config.weights], "parallel": config.parallel}
        return models.digits_empf(config.steps, config.version, seca, read.classes, **options)
    recipe = RECIPES[config.rule]
    if recipe.norm is not None:
        normed = models.digits_mlp_normed if read.sequential else models.digits_conv_normed
        return normed(config.steps, recipe.norm, recipe.rule, read.classes, threshold=recipe.threshold)
    build = models.digits_mlp if read.sequential else models.digits_conv
    return build(recipe.rule, read.classes, mpdr=MPDR.paper("cifar10") if recipe.mpdr else None)
