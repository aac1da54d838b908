"""Optimizers for updates at every time step: STGR of RPTT (equations/rptt.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from . import backends
from .ops.common.dispatch import by_operators
from .ops.common.layout import is_dense, like
from .ops.stgr.graph import stgr_sgd
from .types import flag, number

__all__ = ["STGR", "rho"]


def rho(epoch: int) -> float:
    """Share of W_ema kept at each step of an epoch: max(0.01, 1/(1 + 0.1*epoch)); 1 at epoch 0."""
    return max(0.01, 1 / (1 + 0.1 * epoch))


class STGR(Optimizer):
    """Spatio-temporal gradient regularisation around any optimizer (RPTT, eq. 5 and 6).

    Each step adds the gradient of a2*L_S, L_S = lam/2*||W - W_ema||^2 + gam/2*||grad l_{t-1}(W)||^2, to that of the
    loss and lets `optimizer` step; then W_ema <- rho*W_ema + (1 - rho)*W, rho = max(0.01, 1/(1 + 0.1*epoch)). In epoch
    0 rho is 1: W_ema stays at the weights of the first step. Set `epoch` as training proceeds
    (`fastsnn.online.Trainer` does).

    The paper does not give every constant a value: its appendix A.2.4 names lambda_STGR, per data set, a strength as
    lambda_MPDR is (a1), which is read as the outer a2, and a "coefficient of the second term", which is gam. The lambda
    of eq. 5 is then left open: 1. So W is pulled to W_ema by 0.006 and the previous gradient counts 0.003.

    Args:
        optimizer: what steps; its parameter groups are shared, so schedulers may take either.
        lam: weight of the pull to the moving average inside L_S. Default 1.0.
        gam: weight of the gradient's norm inside L_S. Default 0.5.
        first_order: the second term's gradient gam*H*g with H ~ I, that is gam*g_{t-1} with the stored gradient of the
            step before (none in the first). False: the Hessian-vector product of the previous step's loss at the new
            weights, for networks that are twice differentiable; `step(closure)` then needs a closure that returns the
            loss and calls no backward. A closure is not in `state_dict`: the first step after loading has no such term.
            For one process: wrappers for many average in a backward, of which there is none.
        a2: strength of L_S; the paper's 0.006 (CIFAR-10, default), 0.009 (CIFAR-100, DVS-CIFAR10), 0.003 (ImageNet).

    `lam`, `gam` and `a2` may differ by parameter group. Costs two tensors a parameter. A parameter without gradient is
    left out of the step. `p.grad` holds the loss's gradient before and after a step. With SGD with momentum on a CPU
    the whole step is one pass over memory; elsewhere, foreach operations.

    With GradScaler: `scaler.step(stgr)`, which unscales before the step; where it skips one, nothing here moves.
    With DistributedDataParallel every rank takes the same step from the averaged gradient. It averages in the first
    backward after a forward alone: what a second one adds to `p.grad` is yours to average, as `train_batch` does.

    g_{t-1} is the gradient of the task's loss alone. Where other terms have a backward of their own, such as
    `fastsnn.online.regularisation`, call `keep_task_gradient` between the two, as `fastsnn.online.train_batch` does;
    without, g_{t-1} is all that `p.grad` held.

    Raises TypeError or ValueError for arguments out of range, RuntimeError for sparse gradients.
    """

    def __init__(
        self, optimizer: Optimizer, lam: float = 1.0, gam: float = 0.5, first_order: bool = True, *, a2: float = 0.006
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {type(optimizer).__name__}; it must be a torch.optim.Optimizer")
        weights = {"lam": lam, "gam": gam, "a2": a2}
        _check(weights)
        self.optimizer, self.first_order, self.epoch = optimizer, flag("first_order", first_order), 0
        self._previous: Callable[[], Tensor] | None = None
        self._task: list[tuple[Tensor, Tensor]] = []
        # schedulers ask the defaults what the optimizer has: momentum, betas
        super().__init__(optimizer.param_groups, {**optimizer.defaults, **weights})
        self.param_groups = optimizer.param_groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; `lam`, `gam` and `a2` of the group override the wrapper's."""
        _check(param_group)
        if any(param_group is group for group in self.optimizer.param_groups):
            super().add_param_group(param_group)
        else:
            self.optimizer.add_param_group({**self.defaults, **param_group})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One regularised step. closure: computes the loss again and its gradient, and returns it (first order);
        computes the loss and returns it, without backward, where first_order is False."""
        if not self.first_order:
            return self._second_order(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check_step()
        if _fusible(self.optimizer):
            self._fused()
        else:
            self._foreach()
        for p, gradient in self._task:
            self.state[p]["previous"].copy_(gradient)
        self._task = []
        return loss

    @torch.no_grad()
    def keep_task_gradient(self, scale: float = 1.0) -> None:
        """Take what `p.grad` holds now, divided by a GradScaler's `scale`, as the g_{t-1} of the step after the next.

        Call it after the backward of the task's loss and before those of other terms. Costs a tensor a parameter until
        the step.
        """
        parameters: Any = [p for group in self.param_groups for p in _with_gradient(group)]
        self._task = [(p, p.grad / scale) for p in parameters]

    def _state(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """W_ema and the previous gradient, in the memory order of p."""
        state = self.state[p]
        if not state:
            state["average"], state["previous"] = p.detach().clone(), torch.zeros_like(p)
        state["average"], state["previous"] = like(state["average"], p), like(state["previous"], p)
        return state["average"], state["previous"]

    def _check_step(self) -> None:
        """Raises, before anything moves, where the step cannot be taken."""
        for group in self.param_groups:
            for name in ("lam", "gam", "a2"):  # a group that was added to the wrapped optimizer
                group.setdefault(name, self.defaults[name])
            _check_gradients(group)
            for p in _with_gradient(group):
                backends.check_forced("stgr", p.device)
                self._check_fit(p, grad=p.grad)

    def _check_fit(self, p: Tensor, **given: Any) -> None:
        """Raises ValueError where what is kept of p, or given, does not fit it."""
        kept = {**self.state.get(p, {}), **given}
        if type(self.optimizer) is SGD:
            kept |= self.optimizer.state.get(p, {})
        for name, value in kept.items():
            if value is not None and (value.shape, value.dtype, value.device) != (p.shape, p.dtype, p.device):
                raise ValueError(
                    f"{name} is {tuple(value.shape)}, {value.dtype} on {value.device} and its parameter "
                    f"{tuple(p.shape)}, {p.dtype} on {p.device}; STGR needs one shape, dtype and device: make a new "
                    "optimizer for a parameter that was replaced"
                )

    def _momentum(self, p: Tensor) -> tuple[Tensor, bool]:
        """SGD's own buffer, in the memory order of p, and whether it is new."""
        buffer = self.optimizer.state[p].get("momentum_buffer")
        return (torch.empty_like(p), True) if buffer is None else (like(buffer, p), False)

    def _fused(self) -> None:
        """SGD with momentum and all of this in one pass."""
        for group in self.param_groups:
            numbers = {"lam": group["a2"] * group["lam"], "gam": group["a2"] * group["gam"], "rho": rho(self.epoch)}
            numbers |= {"lr": float(group["lr"]), "momentum": group["momentum"], "undamped": 1 - group["dampening"]}
            numbers |= {"decay": group["weight_decay"], "nesterov": group["nesterov"]}
            for p in _with_gradient(group):
                average, previous = self._state(p)
                buffer, first = self._momentum(p)
                tensors: Any = (p.grad, average, previous, buffer)
                if by_operators(p, p.grad):
                    named = dict(zip(("grad", "average", "previous", "momentum_buffer"), tensors, strict=True))
                    stgr_sgd(weight=p, **named, first=first, **numbers)
                else:
                    backends.select("stgr", p).sgd(p, tensors, first=first, **numbers)
                self.optimizer.state[p]["momentum_buffer"] = buffer
                torch.autograd.graph.increment_version(p)
        # as a scheduler's wrapper of step does
        self.optimizer._opt_called = True  # type: ignore[attr-defined]

    def _foreach(self) -> None:
        stepped = []
        for group in self.param_groups:
            parameters = _with_gradient(group)
            if not parameters:
                continue
            averages, previous = zip(*map(self._state, parameters), strict=True)
            gradients: Any = [p.grad for p in parameters]
            pieces: Any = ([*map(_local, tensors)] for tensors in (parameters, averages, previous, gradients))
            w, average, pulled, g = pieces
            lam, gam = group["a2"] * group["lam"], group["a2"] * group["gam"]
            torch._foreach_mul_(pulled, gam)
            torch._foreach_add_(pulled, g)
            torch._foreach_add_(pulled, w, alpha=lam)
            torch._foreach_add_(pulled, average, alpha=-lam)
            _set_gradients(parameters, previous)
            stepped.append((parameters, gradients, w, average, pulled, g))
        self.optimizer.step()
        kept = rho(self.epoch)
        for parameters, gradients, w, average, pulled, g in stepped:
            _set_gradients(parameters, gradients)
            torch._foreach_copy_(pulled, g)
            if kept < 1:
                torch._foreach_lerp_(average, w, 1 - kept)

    def _second_order(self, closure: Callable[[], Tensor] | None) -> Tensor:
        if closure is None:
            raise ValueError(
                "first_order=False needs step(closure): a closure that returns the loss and calls no backward"
            )
        parameters = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        if any(_local(p) is not p for p in parameters):
            raise RuntimeError(IN_ONE_PROCESS)
        products = [None] * len(parameters) if self._previous is None else _hessian_gradient(self._previous, parameters)
        with torch.enable_grad(), _in_one_process():
            loss = closure()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        for p, product in zip(parameters, products, strict=True):
            self._state(p)[1].zero_() if product is None else self._state(p)[1].copy_(product)
        self._foreach()
        self._previous = closure
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """W_ema, previous gradients, epoch, and the wrapped optimizer's state."""
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": self.epoch}

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("optimizer", "first_order", "epoch")}
        return {**super().__getstate__(), **kept, "_previous": None, "_task": []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put back what `state_dict` returned. Raises ValueError for a state of something else; nothing moves then."""
        if not {"state", "param_groups", "optimizer", "epoch"} <= state_dict.keys():
            raise ValueError(f"this is not STGR's state: it holds {sorted(state_dict)}; load it into what it is of")
        epoch = state_dict["epoch"]
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ValueError(f"epoch is {epoch!r}; it must be an integer >= 0")
        before = [(optimizer, optimizer.state, optimizer.param_groups) for optimizer in (self, self.optimizer)]
        try:
            super().load_state_dict(_with_strength({key: state_dict[key] for key in ("state", "param_groups")}))
            self.optimizer.load_state_dict(_with_strength(state_dict["optimizer"]))
            self.param_groups = self.optimizer.param_groups
            for group in self.param_groups:
                _check(group)
                for p in group["params"]:
                    _check_kept(self.state.get(p, {}))
                    self._check_fit(p)
        except BaseException:
            for optimizer, state, groups in before:
                optimizer.state, optimizer.param_groups = state, groups
            raise
        self.epoch, self._previous, self._task = epoch, None, []


IN_ONE_PROCESS = (
    "first_order=False differentiates by torch.autograd.grad, which DistributedDataParallel does not average and FSDP2 "
    "does not see: use first_order=True, or train in one process"
)


@contextmanager
def _in_one_process() -> Iterator[None]:
    """Raises RuntimeError where a module for many processes is called inside."""

    def refuse(module: nn.Module, args: Any) -> None:
        if isinstance(module, DistributedDataParallel):
            raise RuntimeError(IN_ONE_PROCESS)

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _check(group: dict[str, Any]) -> None:
    for name in ("lam", "gam", "a2"):
        if name in group and not 0 <= number(name, group[name]) < float("inf"):
            raise ValueError(f"{name} is {group[name]}; it must be at least 0 and finite")


def _with_strength(state: dict[str, Any]) -> dict[str, Any]:
    """A state of fastsnn 0.1, whose lam and gam were whole weights, as one of today."""
    return {**state, "param_groups": [{"a2": 1.0, **group} for group in state["param_groups"]]}


def _check_kept(state: dict[str, Any]) -> None:
    """Raises ValueError where this is not what STGR keeps of a parameter."""
    tensors = all(isinstance(value, Tensor) for value in state.values())
    if state and (state.keys() != {"average", "previous"} or not tensors):
        raise ValueError(f"STGR keeps the tensors average and previous of a parameter, and this state holds {state}")


def _with_gradient(group: dict[str, Any]) -> list[Tensor]:
    return [p for p in group["params"] if p.grad is not None]


def _check_gradients(group: dict[str, Any]) -> None:
    gradients: Any = [p.grad for p in _with_gradient(group)]
    if any(g.is_sparse for g in gradients):
        raise RuntimeError("STGR stores and adds whole gradients and one is sparse: use nn.Embedding(sparse=False)")
    for p in _with_gradient(group):
        placed, given = (getattr(tensor, "placements", None) for tensor in (p, p.grad))
        if placed != given:
            raise RuntimeError(
                f"a gradient is placed {given} and its parameter {placed}: STGR adds their pieces, which must "
                "lie alike: redistribute the gradient"
            )


def _fusible(optimizer: Optimizer) -> bool:
    """Whether the native step does what `optimizer` would do."""
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return (
        type(optimizer) is SGD
        and not hooked
        and backends.running("stgr", "cpu") is not None
        and all(
            group["momentum"] and not group["maximize"] and not group["differentiable"] and _plain(group)
            for group in optimizer.param_groups
        )
    )


def _plain(group: dict[str, Any]) -> bool:
    """Whether every parameter and gradient is one piece of CPU memory in the same order."""
    return all(
        type(p) in (torch.nn.Parameter, Tensor)
        and p.device.type == "cpu"
        and p.dtype in (torch.float32, torch.float64)
        and is_dense(p)
        and p.grad.stride() == p.stride()  # type: ignore[union-attr]
        for p in _with_gradient(group)
    )


def _local(tensor: Any) -> Any:
    """This process's piece of a DTensor (FSDP2); another tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _set_gradients(parameters: list[Tensor], gradients: Sequence[Any]) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g


def _hessian_gradient(loss: Callable[[], Tensor], parameters: list[Tensor]) -> list[Tensor | None]:
    """H*g of the loss at the present weights: the gradient of ||g||^2/2."""
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True, allow_unused=True)
        half_norm = torch.stack([g.square().sum() / 2 for g in gradients if g is not None]).sum()
        if not half_norm.requires_grad:
            return [None] * len(parameters)
        return list(torch.autograd.grad(half_norm, parameters, allow_unused=True))
