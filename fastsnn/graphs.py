"""What torch.compile is told of a function."""

from __future__ import annotations

from typing import Any, TypeVar

Function = TypeVar("Function", bound=Any)


def constant(function: Function) -> Function:
    """`torch.compiler.assume_constant_result` without its import of torch._dynamo, which takes longer than torch's."""
    function._dynamo_marked_constant = True
    return function
