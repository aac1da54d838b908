"""The script that counts lines which only relay operands."""

from fastsnn._bench.relays import cpp_lines, python_lines

PYTHON = '''
"""Words."""
import torch

def forward(
    x: Tensor | None,
    flag: bool,
) -> Tensor:
    """Words."""
    y = torch.empty_like(x)
    n = len(x) + 1
    core.forward(
        x,
        n if flag else 0,
        flag=flag,  # why
    )
    if flag:
        return x
    return y
'''
CPP = """
#include "core.h"
// words
void forward(const K& k) {
  if (k.n == 0) return;
  run(k, k.x);
}
"""


def test_what_relays_and_what_works():
    lines, every = python_lines(PYTHON, only_launches=False)
    text = PYTHON.splitlines()
    shown = [text[line - 1].strip() for line in sorted(lines)]
    signature = ["def forward(", "x: Tensor | None,", "flag: bool,", ") -> Tensor:"]
    assert shown == [*signature, "core.forward(", "x,", "flag=flag,  # why", "return x", "return y"]
    assert len(every) == len(text)


def test_of_triton_kernels_only_launches():
    source = "@kernel()\ndef lif(x_p):\n    step(x_p)\n\n\ndef _run(call: Call) -> None:\n    call.run(lif)\n"
    assert python_lines(source, only_launches=True) == ({6, 7}, {6, 7})


def test_of_cpp():
    lines, every = cpp_lines(CPP)
    assert [CPP.splitlines()[line - 1] for line in sorted(lines)] == ["void forward(const K& k) {", "  run(k, k.x);"]
    assert len(every) == len(CPP.splitlines())
