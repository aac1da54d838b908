"""Launches of both sources of PTX, for operations as training calls them."""

import pickle
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

import fastsnn
from fastsnn.functional import standardize
from fastsnn.nn.traced import plain

from . import cuda_ptx, toolkit

SOURCES = "cuda", "triton"
PACKAGE = Path(__file__).parents[2]


class Operation(NamedTuple):
    """A layer of n neurons over T steps, or over a later step where T is None; or the standardisation of rows of n."""

    rule: str
    dtype: torch.dtype
    n: int
    T: int | None = None

    def operands(self):
        """Random ones, anew"""
        if self.rule == "standardize":
            return torch.randn(2, self.n).to(self.dtype), torch.rand(2, 1).to(self.dtype)
        return (torch.randn((self.T, self.n) if self.T else self.n).to(self.dtype),)

    def prepared(self):
        """The function to differentiate; that of a step has its state."""
        if self.rule == "standardize":
            return standardize
        layer = fastsnn.LIF.for_rule(self.rule, v_reset=None, step_mode="m" if self.T else "s")
        if not self.T:
            layer(*self.operands())
        return lambda x: plain(layer(x))


class Launched(NamedTuple):
    """Of one operation"""

    forward: list
    backward: list


def _launched(operation, launches):
    function, operands = operation.prepared(), [tensor.requires_grad_() for tensor in operation.operands()]
    launches.clear()
    out = function(*operands)
    forward = list(launches)
    torch.autograd.grad(out, operands, torch.randn_like(out))
    return Launched(forward, launches[len(forward) :])


def launched(source, operations):
    """What forward and backward of each operation launch."""
    if source == "triton":
        return _of_triton(operations)
    with cuda_ptx.running() as launches:
        return [_launched(operation, launches) for operation in operations]


def _of_triton(operations):
    """From a process without the interpreter"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operations"
        path.write_bytes(pickle.dumps(operations))
        # behind all else, so that fastsnn is the installed one
        code = f"import sys; sys.path.append({str(PACKAGE)!r}); from {__name__} import answer; answer({str(path)!r})"
        toolkit.execute_checked([sys.executable, "-c", code], cwd=folder, TRITON_INTERPRET="0")
        return pickle.loads(path.read_bytes())


def answer(path):
    """Replaces the operations in a file by what Triton launches for them."""
    from . import triton_ptx

    operations = pickle.loads(Path(path).read_bytes())
    with triton_ptx.running() as launches:
        found = [_launched(operation, launches) for operation in operations]
    Path(path).write_bytes(pickle.dumps(found))
