"""Update modes of OTTT (equations/ottt.md), random back-propagation of EM-PF (empf.md), and a trainer around them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..nn import EMPF, LIF, plain, reset
from ..nn.neuron import Neuron
from ..nn.osr import OSR
from ..nn.weights import standardized_once
from ..ops.common import memory
from ..ops.common.dispatch import by_operators
from ..ops.synapse import backward, steps_together
from ..optim import STGR
from ..types import number
from .finite import finite_loss, raise_unless_finite
from .graph import GraphedUpdates
from .losses import hits, predictions
from .losses import loss as mixed_loss
from .regularisers import GradientApart, regularisation

Loss = Callable[[Tensor, Tensor, int], Tensor]


class BatchResult(NamedTuple):
    """Of one batch: the loss summed over time, correct predictions, samples (positions, where each has a class)."""

    loss: float
    correct: int
    samples: int


def _through_time(net: nn.Module) -> str | None:
    """The first rule of the network's that goes back through time; None where there is none."""
    neurons = (module for module in net.modules() if isinstance(module, LIF))
    return next((neuron.rule for neuron in neurons if not neuron._params.online), None)


def _regularised(net: nn.Module) -> bool:
    return any(isinstance(module, LIF) and module.mpdr is not None for module in net.modules())


def _whole_sequences(net: nn.Module) -> bool:
    """Whether a call of the network takes all steps, [T, N, *]. Raises ValueError where its neurons differ in that."""
    modes = {module.step_mode: name for name, module in net.named_modules() if isinstance(module, Neuron)}
    if len(modes) > 1:
        raise ValueError(
            f"{modes['s']} has step_mode 's' and {modes['m']} 'm'; x holds the input of each step, which is a call of "
            "its own with 's' and part of one call with 'm': set one of them in the whole network"
        )
    return "m" in modes


def _each_step(net: nn.Module, x: Sequence[Tensor] | Tensor) -> Iterator[Tensor]:
    """The output of each step, computed when it is asked for where steps are calls of their own."""
    if not _whole_sequences(net):
        return (plain(net(x_t)) for x_t in x)
    outputs = plain(net(x if isinstance(x, Tensor) else torch.stack([*x])))
    if len(outputs) != len(x):
        raise ValueError(
            f"x has T = {len(x)} steps and the network returned {tuple(outputs.shape)}; with step_mode 'm' it must "
            "return the output of each step, [T, N, *]"
        )
    return iter(outputs)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """`net` in evaluation mode; after it, every module in the mode that it was in."""
    before = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        yield
    finally:
        for module, training in before:
            module.training = training


def _check(
    net: nn.Module, x: Sequence[Tensor] | Tensor, mode: str, backward_steps: int | None, clip: float | None
) -> None:
    if mode not in ("O", "A"):
        raise ValueError(f"mode is {mode!r}; allowed: 'O' (an update each step) and 'A' (one update a batch)")
    if len(x) < 1:
        raise ValueError("x has no time steps; it must hold one input a step, [T, N, *]")
    if backward_steps is not None and not 1 <= backward_steps <= len(x):
        raise ValueError(f"backward_steps is {backward_steps}; it must be in 1..T = {len(x)}, or None for all")
    if clip is not None and not number("clip", clip) > 0:
        raise ValueError(f"clip is {clip}; it must be > 0, the largest norm of the gradient, or None for no clipping")
    if _whole_sequences(net) and (mode == "O" or backward_steps is not None):
        raise ValueError(
            "the network's neurons have step_mode 'm' and take all steps in one call, which has one backward: use "
            "mode='A' without backward_steps, or set their step_mode to 's'"
        )
    for name, module in net.named_modules():
        if isinstance(module, EMPF) and module.step_mode == "s" and module.steps != len(x):
            raise ValueError(f"x has T = {len(x)} steps and {name or 'net'} has parameters for steps = {module.steps}")
    rule = _through_time(net)
    if rule is not None and (mode == "O" or backward_steps is not None):
        raise ValueError(
            f"rule {rule!r} differentiates through all steps at once: it has no mode 'O' and no random "
            "back-propagation; use mode='A', or an online rule (sltt, ottt, ndot)"
        )


def train_batch(
    net: nn.Module,
    x: Sequence[Tensor] | Tensor,
    y: Tensor,
    optimizer: Optimizer,
    *,
    mode: str = "O",
    backward_steps: int | None = None,
    loss: Loss = mixed_loss,
    clip: float | None = None,
    generator: torch.Generator | None = None,
) -> BatchResult:
    """Train on one batch: x holds the input of each step ([T, N, *], or any sequence of T tensors).

    mode "O": zero_grad, backward and step at every t; state and dropout masks persist across the update.
    mode "A": gradients accumulate over t, one step at the end. On the CPU a traced synapse takes them for up to three
    steps in one product, and those of standardised weights go through the standardisation together: both are in
    `.grad` after the last step. A network of rule "bptt", or of step mode "m", is trained in mode "A" with one backward
    through all steps.
    backward_steps K: random back-propagation; K steps, drawn anew for each batch, have a gradient, the others
    run without a graph; the loss stays divided by T (Hao et al. 2024, section 4.3).
    clip: largest norm of the gradient before each update. generator: of the draw of K.

    `regularisation(net)` joins each step's loss, undivided; what is returned is the loss alone. With an `optim.STGR`
    the two have a backward each, as g_{t-1} is of the loss alone.

    Raises ValueError for a mode, K, T, clip or rule that do not fit together, FloatingPointError for a loss that is not
    finite, RuntimeError for a standardised weight written through `.data` between the steps of mode "A". Whatever is
    raised in step t leaves weights and optimizer as the updates before t left them, in mode "A" as they were; running
    statistics keep what they saw, as torch's batch norm does.
    """
    options: dict[str, Any] = {"backward_steps": backward_steps, "loss": loss, "clip": clip, "generator": generator}
    return result(*update(net, x, y, optimizer, mode=mode, **options), predictions(y))


def update(
    net: nn.Module,
    x: Sequence[Tensor] | Tensor,
    y: Tensor,
    optimizer: Optimizer,
    mode: str = "O",
    backward_steps: int | None = None,
    loss: Loss = mixed_loss,
    clip: float | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """All steps of a batch and their updates: the loss of each step [T] and the correct predictions, on the device.
    Nothing is read from a device before the last step is done: a loss that is not finite, or a step that a strict norm
    refuses, makes the gradients of every update after it zero. Raises as `train_batch`, but for such a loss there."""
    _check(net, x, mode, backward_steps, clip)
    steps = len(x)
    kept = range(steps) if backward_steps is None else torch.randperm(steps, generator=generator)[:backward_steps]
    chosen = {int(t) for t in kept}
    apart = GradientApart(net) if _regularised(net) and isinstance(optimizer, STGR) else None
    reset(net)
    optimizer.zero_grad()
    with _one_batch(net, summed=mode == "A" and apart is None):
        losses, finite, logits_sum = _steps(net, x, y, optimizer, chosen, apart, mode=mode, loss=loss, clip=clip)
    if mode == "A":
        _update(net, optimizer, clip, finite, apart)
    reset(net)
    return losses, hits(logits_sum, y)


@contextmanager
def _one_batch(net: nn.Module, summed: bool) -> Iterator[None]:
    """Around all steps of a batch, between two resets. summed: gradients are for one update after it."""
    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    with ExitStack() as stack:
        stack.enter_context(memory.in_place())
        if summed and alone:  # processes that average wait for each gradient
            stack.enter_context(standardized_once(net))
            stack.enter_context(steps_together())
        yield


def _steps(
    net: nn.Module,
    x: Sequence[Tensor] | Tensor,
    y: Tensor,
    optimizer: Optimizer,
    chosen: set[int],
    apart: GradientApart | None,
    *,
    mode: str,
    loss: Loss,
    clip: float | None,
) -> tuple[Tensor, Any, Any]:
    """Every step forward and backward, with its update in mode "O": losses, whether all are finite, and the sum of the
    logits."""
    steps, whole, regularised = len(x), _whole_sequences(net), _regularised(net)
    at_once = whole or _through_time(net) is not None
    terms: list[Tensor] = []
    norms = [module for module in net.modules() if isinstance(module, OSR) and module.strict]
    with torch.enable_grad():
        outputs = _each_step(net, x)
    losses: list[Tensor] = []
    values: list[Tensor] = []
    finite: Any = True
    logits_sum: Any = 0
    for t in range(steps):
        with torch.set_grad_enabled(t in chosen):
            logits = next(outputs)
            step_loss = loss(logits, y, steps)
            if at_once and regularised and (t == 0 or not whole):
                terms.append(regularisation(net))
        value, finite = _finite(step_loss.detach(), finite, t, steps)
        values.append(value)
        finite = _all_accepted(finite, norms)
        logits_sum = logits_sum + logits.detach()
        if t in chosen and not at_once:
            _backward(step_loss, regularisation(net) if regularised else None, apart)
            if mode == "O":
                _update(net, optimizer, clip, finite, apart)
        elif at_once:
            losses.append(step_loss)
    if at_once:
        _backward(sum(losses), sum(terms) if terms else None, apart)
    return torch.stack(values), finite, logits_sum


def _backward(task: Any, term: Any, apart: GradientApart | None) -> None:
    if apart is not None and term is not None:
        task.backward(retain_graph=True)
        apart.add(term)
    else:
        backward(task if term is None else task + term)


def result(losses: Tensor, correct: Tensor, samples: int) -> BatchResult:
    """What `update` left on the device, in one read. Raises FloatingPointError where a loss is not finite."""
    *values, right = torch.cat([losses.double(), correct.double().view(1)]).tolist()
    for t, value in enumerate(values):
        raise_unless_finite(value, t, len(values))
    return BatchResult(sum(values), int(right), samples)


def _finite(value: Tensor, finite: Any, t: int, steps: int) -> tuple[Tensor, Any]:
    """A step's loss, and whether all so far are finite: known at once on the CPU, where another one raises before any
    update with it; else a tensor of the device."""
    if value.device.type != "cpu":
        now = value.isfinite()
        return value, now if finite is True else now & finite
    if by_operators(value):
        return finite_loss(loss=value, step=t, steps=steps), True
    raise_unless_finite(float(value), t, steps)
    return value, True


def _all_accepted(finite: Any, norms: list[OSR]) -> Any:
    """finite, and whether no norm of a device has left out a step."""
    for norm in norms:
        if norm.refused is not None:
            finite = finite & (norm.refused == 0)
    return finite


def _update(net: nn.Module, optimizer: Optimizer, clip: float | None, finite: Any, apart: GradientApart | None) -> None:
    if apart is not None and isinstance(optimizer, STGR):
        apart.join(optimizer)
    if finite is not True:
        for p in net.parameters():
            if p.grad is not None:
                p.grad.masked_fill_(~finite, 0)
    if clip is not None:
        nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    # an autocast around all steps keeps casts of the weights that were
    torch.clear_autocast_cache()


@torch.no_grad()
def evaluate(net: nn.Module, batches: Iterable[tuple[Any, Tensor]], loss: Loss = mixed_loss) -> BatchResult:
    """Loss and correct predictions over (x, y) batches in evaluation mode; prediction = argmax of sum_t o[t].

    x as in `train_batch`. Every module is left in the mode that it was in, after an error, too.
    """
    sums: Any = 0
    samples = 0
    with evaluating(net), memory.in_place():
        for x, y in batches:
            reset(net)
            outputs = [*_each_step(net, x)]
            batch_loss = torch.stack([loss(o, y, len(x)) for o in outputs]).double().sum() * predictions(y)
            correct = hits(sum(outputs), y)  # type: ignore[arg-type]
            sums = sums + torch.stack([batch_loss, correct.double()])  # read once, after the last batch
            samples += predictions(y)
        reset(net)
    total, right = sums.tolist() if samples else (0.0, 0)
    return BatchResult(total / max(samples, 1), int(right), samples)


class Trainer:
    """`train_batch` with its options kept, and state that can be saved between batches.

    Args: as `train_batch`; scheduler, where given, and the epoch of an `optim.STGR` step at each call of `epoch_done`.
        graph: run a batch's whole update (all steps forward and backward, the optimizer) as one graph, of CUDA or, on
        the CPU, of torch.fx: the same numbers without the time of Python, autograd and launches. The first three
        batches of a shape run eagerly, and on the CPU the first replay is compared with the layers; other
        hyper-parameters and settings of layers are captured anew, but a learning rate that is a tensor
        (SGD(fused=True)). What cannot be captured runs eagerly, after a warning with the reason, which `graph_refusal`
        holds. Give Adam and the like fused=True on the CPU, capturable=True on CUDA. Layers and the loss must not
        decide anything else in Python from one batch to the next. Default False.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None = None,
        *,
        graph: bool = False,
        **options: Any,
    ) -> None:
        self.net, self.optimizer, self.scheduler, self.options = net, optimizer, scheduler, options
        self._graphs = GraphedUpdates(net, optimizer) if graph else None

    @property
    def graph_refusal(self) -> str | None:
        """Why the last batch did not run as a graph though `graph` asks for it; None where nothing is in the way."""
        return None if self._graphs is None else self._graphs.refusal

    def train_batch(self, x: Sequence[Tensor] | Tensor, y: Tensor) -> BatchResult:
        """One batch. A network in evaluation mode is set to training mode; modules of one in training mode, such as
        frozen norms, stay as they are."""
        if not self.net.training:
            self.net.train()
        if self._graphs is None:
            return train_batch(self.net, x, y, self.optimizer, **self.options)

        def run(x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
            return update(self.net, x, y, self.optimizer, **self.options)

        return result(*self._graphs.run(run, x, y, dict(self.options)), predictions(y))

    def evaluate(self, batches: Iterable[tuple[Any, Tensor]]) -> BatchResult:
        """As `evaluate`, with the training loss."""
        return evaluate(self.net, batches, self.options.get("loss", mixed_loss))

    def epoch_done(self) -> None:
        if isinstance(self.optimizer, STGR):
            self.optimizer.epoch += 1
        if self.scheduler is not None:
            self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Network, optimizer and scheduler; load it with `load_state_dict`."""
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Put back what `state_dict` returned. Raises the error of the part that is refused, or ValueError for what is
        no trainer's state; all is then as before."""
        if not isinstance(saved, dict) or not {"net", "optimizer", "scheduler"} <= saved.keys():
            raise ValueError("this is no trainer's state: it needs net, optimizer and scheduler")
        before = copy.deepcopy(self.state_dict())
        scheduler = None if self.scheduler is None else dict(self.scheduler.__dict__)
        try:
            self.net.load_state_dict(saved["net"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.scheduler is not None:
                self.scheduler.load_state_dict(saved["scheduler"])
        except BaseException:
            self.net.load_state_dict(before["net"])
            self.optimizer.load_state_dict(before["optimizer"])
            if self.scheduler is not None and scheduler is not None:
                self.scheduler.__dict__ = scheduler
            raise
