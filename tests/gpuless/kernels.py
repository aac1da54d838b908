"""Every compiled kernel by the names of the equations: CUDA's from the built extension, Triton's compiled here."""

import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fastsnn.backends import cuda
from fastsnn.rules import RULES

from . import machine_code

THREADS = 256
TYPES = {"float": "float32", "double": "float64", "__half": "float16", "__nv_bfloat16": "bfloat16"}
BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
SECOND_STAGES = ("_merge", "_total")  # of a sum: float64, one by one
RESETS = ("soft", "hard")


def state_bytes(dtype):
    return 8 if dtype == "float64" else 4


@dataclass
class Compiled:
    """One kernel for one architecture. `width`: elements a thread takes at once, 1 where addresses forbid more."""

    source: str
    name: str
    arch: int
    dtype: str
    width: int
    threads: int
    code: machine_code.Kernel

    @property
    def vector(self):
        """Bytes of a vector of the input."""
        return self.width * BYTES[self.dtype]

    def narrow(self, blocks):
        """Accesses below a vector of the input."""
        return self.code.narrow(blocks, self.vector)

    @property
    def occupancy(self):
        return self.code.occupancy(self.arch, self.threads)

    @property
    def streams(self):
        """Bytes a neuron and step (reads, writes) of the widest loop, if no operand moves twice; None where others come
        in."""
        moved, state = BYTES[self.dtype], state_bytes(self.dtype)
        if self.name.startswith("lif_forward"):  # x, keep; s, u and v of each step, the trace
            return moved + state, moved + state * (2 + sum(slot.every_step for slot in _slots(self.name)))
        if self.name.startswith("lif_backward_online"):  # g_s, keep, u or x; g_x
            return moved + state + (state if "saved" in self.name else moved), moved
        if self.name.startswith("lif_backward_bptt"):  # g_s, keep, u, the gradient of each v; g_x
            return moved + state * 3, moved
        if self.name.startswith("osr_lif_forward"):  # x, keep, u; s, u; the slots of both
            if moved < state:  # the state passes in a loop of its own
                return None
            slots = state * len(_slots(self.name))
            return moved + state * 2 + slots, moved + state + slots
        if self.name == "osr_charge":  # x, v; u
            return (moved + state, state) if moved == state else None
        if self.name == "osr_lif_reduce":  # x, g_s, keep, u; g_y
            return 2 * moved + state * 2, moved
        return {"osr_forward": (moved, moved), "osr_gradient": (2 * moved, moved)}.get(self.name)

    @property
    def unrolled(self):
        """Steps in one turn of the widest loop, by its stores."""
        return self.code.loop_bytes[1] / self.width / self.streams[1]


def _slots(name):
    """Of the rule whose step ends the name."""
    return next(rule.slots for rule in RULES.values() if rule.kernel == name.split()[-1])


def _rule(name):
    """The step in csrc/core/rules/list.h whose type this is."""
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition("::")[2]).lower()
    return "none" if snake == "untraced" else snake


def _cuda_name(demangled):
    """(name, dtype, width) from a C++ name."""
    base, arguments = re.match(r"(?:void )?fastsnn::cuda::(\w+)_kernel(?:<(.*?)>)?\(", demangled).groups()
    if base.endswith(SECOND_STAGES):
        return f"{base} {arguments or ''}".strip(), "float64", 1
    kind, *rest = [part.strip() for part in arguments.split(",")]
    words = [RESETS[int(part[-1])] for part in rest if "Reset" in part]
    rules = [_rule(part) for part in rest if part.startswith("fastsnn::generic::")]
    words += [rule for rule in rules if rule != "none" or base.endswith("forward")]
    words += [{"true": "saved", "false": "recomputed"}[part] for part in rest if part in ("true", "false")]
    width, *bits = [int(part) for part in rest if part.isdigit()]
    words += [f"{number} bits" for number in bits]
    return " ".join([base, *words]), TYPES[kind], width


def cuda_kernels(archs=machine_code.ARCHS):
    """The CUDA core's kernels, from the extension that is installed."""
    for arch, code in machine_code.extension_kernels(cuda._cuda.__file__, archs):
        name, dtype, width = _cuda_name(code.name)
        yield Compiled("cuda", name, arch, dtype, width, THREADS, code)


def triton_folder(folder, archs, only=""):
    """Compiles Triton's kernels into a folder, in a process without the interpreter; returns its index."""
    command = [sys.executable, "triton_build.py", folder, "--archs", *archs, "--only", only]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    subprocess.run([*map(str, command)], check=True, cwd=Path(__file__).parent, env=environment)
    return json.loads((Path(folder) / "index.json").read_text())


def triton_kernels(archs=machine_code.ARCHS, only=""):
    """Triton's kernels, compiled as a launch would for aligned tensors."""
    with tempfile.TemporaryDirectory() as folder:
        rows = triton_folder(folder, archs, only)
        files = [Path(folder) / f"{row['name']}.{row['arch']}.cubin" for row in rows]
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # which wait for the disassembler
            found = [*threads.map(machine_code.kernels, files)]
        for row, (code,) in zip(rows, found, strict=True):
            dtype = row["name"].rsplit("-", 1)[1]
            width = 16 // (state_bytes(dtype) if row["entry"].startswith("lif") else BYTES[dtype])
            yield Compiled("triton", row["name"], row["arch"], dtype, width, 32 * row["num_warps"], code)
