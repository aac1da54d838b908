"""The script that counts lines which only relay operands."""

from fastsnn._bench.relays import cpp_lines, named, python_lines

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
CORE = """
struct LifForward {
  int64_t T, n;
  const void* x;  // [T, n], of slots
  void* slots_out[kMostSlots];
  bool empty() const { return T == 0; }
};
"""
CPP = """
#include "core.h"
// n is x
void forward(const LifForward& k) {
  if (k.n == 0) return;
  Core::lif_forward_online(k);
  run(k.x,
      k.slots_out);
  int overflow = 0;
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


def test_of_cpp_what_names_a_kernel_or_an_operand():
    lines, every = cpp_lines(CPP, named(CORE))
    shown = [CPP.splitlines()[line - 1].strip() for line in sorted(lines)]
    assert shown == ["void forward(const LifForward& k) {", "Core::lif_forward_online(k);", "run(k.x,", "k.slots_out);"]
    assert len(every) == len(CPP.splitlines())
