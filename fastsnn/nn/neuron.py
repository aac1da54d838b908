"""What neurons with a state between steps share."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..ops.types import state_dtype
from .state import Stateful

__all__ = ["Neuron"]


class Neuron(Stateful):
    """A layer whose `_state` is a NamedTuple with `map`: fn of every tensor. `reset()` sets it to that of t = 1."""

    _state: Any
    _step_mode: str

    @property
    def step_mode(self) -> str:
        return self._step_mode

    @step_mode.setter
    def step_mode(self, mode: str) -> None:
        if mode not in ("s", "m"):
            raise ValueError(f"step_mode is {mode!r}; allowed: 's' (one step a call) and 'm' ([T, N, *] a call)")
        self._step_mode = mode

    @property
    def state(self) -> Any:
        """The state between steps; assign one to restore it."""
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        self._state = state

    def detach(self) -> None:
        """Cut the state out of the graph."""
        self._state = self._state.map(Tensor.detach)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)

        def move(tensor: Tensor) -> Tensor:
            like = fn(tensor)
            return tensor.to(like.device, state_dtype(like.dtype))

        self._state = self._state.map(move)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the state's values, not its graph."""
        return {**self.__dict__, "_state": self._state.map(Tensor.detach)}

    def _replicate_for_data_parallel(self) -> Any:
        if self.step_mode == "s":
            raise RuntimeError(
                "DataParallel drops a replica's state after every call, so step_mode 's' would restart each step: use "
                "step_mode='m' ([T, N, *], dim=1), or DistributedDataParallel"
            )
        replica = super()._replicate_for_data_parallel()
        replica.reset()
        return replica
