"""What neurons with a state between steps share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from ..types import number, replaced, state_dtype
from .state import Stateful

__all__ = ["Neuron"]


class Neuron(Stateful):
    """A layer whose `_state` is a NamedTuple with `map`: fn of every tensor. `reset()` sets it to that of t = 1.

    Its first field is the potential, or a number that is to be that of every neuron.
    """

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
        self._met()
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        self._met()
        self._state = state

    def _usable(self, state: Any, x: Tensor, sequence: bool) -> Any:
        """state for a call with x: a potential given as a number becomes one of each neuron, and what was made under
        inference_mode a tensor that a graph may keep."""
        potential = state[0]
        if potential is None:
            return state
        if isinstance(potential, float):
            one = x[0] if sequence else x
            return replaced(state, **{state._fields[0]: torch.full_like(one, potential, dtype=state_dtype(x.dtype))})
        if is_dynamo_compiling() or not potential.is_inference():
            return state
        return state.map(Tensor.clone)

    def _potential_of(self, value: Any) -> Tensor | float:
        """A potential that is assigned. Raises TypeError where it is neither a tensor nor a number."""
        return value if isinstance(value, Tensor) else number("v", value)

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
