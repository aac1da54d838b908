"""A rule of the Triton kernels whose `advance` returns too few slots does not compile, and the error names rule and
file: python forgetful_triton.py."""

import re
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # behind all else, so that fastsnn is the installed one

import pytest
import torch
import triton
from fastsnn._triton.rules import RULES

from tests.gpuless import triton_build


@triton.jit
def forgetful(p, now, slots):
    return (slots[0],)


def messages(error):
    """Its own and those of its causes."""
    return f"{error}\n{messages(error.__cause__)}" if error else ""


def main():
    RULES["alif"].advance = forgetful
    with triton_build.recorded_launches() as recorded:
        triton_build.forward(triton_build.lif_params("alif"), torch.float32, True, bare=True)
    with pytest.raises(triton.CompilationError) as raised:
        triton_build.compiled(recorded[0], 90)
    assert re.search(r"rule 'alif' \(.*alif.py\): .* must return 2 slots", messages(raised.value))


if __name__ == "__main__":
    main()
