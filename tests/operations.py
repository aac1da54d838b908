"""Which operation ran on which backend with which type: `pytest --operations FILE` writes it down as a table."""

import torch

from fastsnn import backends

from .gpuless import cuda_host


class Recorded:
    """A native core that notes each call of its functions."""

    def __init__(self, core, backend, ran):
        self._core, self._backend, self._ran = core, backend, ran

    def __getattr__(self, name):
        found = getattr(self._core, name)
        if isinstance(found, type) or not callable(found):
            return found

        def noted(*arguments, **named):
            self._note(name, (*arguments, *named.values()))
            return found(*arguments, **named)

        return noted

    def _note(self, name, arguments):
        """The type of an operation is that of its narrowest tensor of floats: states and sums are as wide or wider."""
        dtypes = {value.dtype for value in arguments if isinstance(value, torch.Tensor) and value.is_floating_point()}
        if dtypes:
            narrowest = min(dtypes, key=lambda dtype: (dtype.itemsize, str(dtype)))
            self._ran.add((name, self._backend, str(narrowest).removeprefix("torch.")))


def record(ran):
    """From here on every native core notes in `ran` (operation, backend, type) of each call."""
    for backend, module in backends.REGISTRY.items():
        for kernels in {*module.KERNELS.values()} if backend != "reference" else ():
            kernels._core = kernels._core and Recorded(kernels._core, backend, ran)
    core = cuda_host.core
    cuda_host.core = lambda: Recorded(core(), "cuda-host", ran)


def table(ran):
    """Markdown: a row an operation, a column a backend."""
    columns = sorted({backend for _, backend, _ in ran})
    lines = [f"| operation | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for operation in sorted({operation for operation, _, _ in ran}):
        cells = (", ".join(sorted(d for o, b, d in ran if (o, b) == (operation, column))) for column in columns)
        lines.append(f"| `{operation}` | {' | '.join(cell or '-' for cell in cells)} |")
    return "\n".join(lines) + "\n"
