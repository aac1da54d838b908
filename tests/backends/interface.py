"""`python -m tests.backends.interface`: writes fastsnn/ops/common/interface.py from what the CPU core declares that
was built in development mode. It loads the core alone: the package refuses one that declares something else."""

import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "fastsnn"
FILE = PACKAGE / "ops" / "common" / "interface.py"
HEADER = '''# ruff: noqa: E501
"""What every kernel takes, as its struct in csrc/core declares it (fastsnn/_cpu.pyi says how to read it): a core that
declares something else is of another fastsnn. Written by `python -m tests.backends.interface`."""

INTERFACE = {
'''


def text(kernels):
    return HEADER + "".join(f'    "{kernel}": "{takes}",\n' for kernel, takes in kernels.items()) + "}\n"


def main():
    (library,) = PACKAGE.glob("_cpu.*.so")
    spec = importlib.util.spec_from_file_location("_cpu", library)
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    FILE.write_text(text(core.kernels))


if __name__ == "__main__":
    main()
