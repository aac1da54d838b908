"""`python bench/instructions.py [TREE ...]`: instructions that a call takes, counted by callgrind, of this tree and of
other trees with a built core: a figure that other processes of the machine do not touch.

A call: the native binding alone, or a layer's step with all of Python. Its count is the difference
of two loops, the mean over several seeds of Python's hashes, which move it by a few per cent. Needs valgrind with its
headers, and g++.
"""

import argparse
import ctypes
import inspect
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

REQUESTS = """
#include <valgrind/callgrind.h>
extern "C" void start() { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
extern "C" void stop(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""
LOOPS = 100, 300
SEEDS = range(6)
NEURONS = 64
DUMP = re.compile(r"Trigger: Client Request: ([^\n]+) (\d+)\n.*?^totals: (\d+)", re.DOTALL | re.MULTILINE)


class Recorder:
    """A core that keeps the last call of each binding."""

    def __init__(self, core):
        self.core, self.calls = core, {}

    def __getattr__(self, name):
        function = getattr(self.core, name)
        if not inspect.isroutine(function):
            return function

        def record(*args, **named):
            self.calls[name] = function, args, named
            return function(*args, **named)

        return record


def written(function, args, named):
    """The call as code has it, whose names are one constant."""
    by_position = {f"_{i}": value for i, value in enumerate(args)}
    text = ", ".join([*by_position, *(f"{name}={name}" for name in named)])
    return eval(f"lambda: function({text})", {"function": function, **by_position, **named})


def cases():
    """(name, function without arguments): bindings, layers."""
    import torch

    import fastsnn
    from fastsnn import backends, deploy

    torch.manual_seed(0)
    torch.set_num_threads(1)
    kernels = backends.REGISTRY["cpu"].KERNELS
    core = Recorder(kernels["lif"]._core)
    for family in kernels.values():
        family._core = core
    neuron, packed = fastsnn.LIF.for_rule("ottt"), deploy.pack(torch.nn.Sequential(fastsnn.BinaryLinear(64, 32)).eval())
    x = torch.rand(1, NEURONS, requires_grad=True)
    spikes = torch.ones(1, 64)
    g = torch.ones(1, NEURONS)

    def step():
        s = neuron(x)
        torch.autograd.grad(s.spikes, x, g)

    @torch.no_grad()
    def product():
        packed(spikes)

    for _ in range(2):  # the first step has no state
        step()
        product()
    called = dict(core.calls)
    for family in kernels.values():
        family._core = core.core
    for name in ("lif_forward", "lif_backward", "packed_product"):
        call = next(call for kernel, call in called.items() if kernel.startswith(name))
        yield f"binding {name}", written(*call)
    yield "layer step, forward and backward (ottt)", step
    yield "layer packed_linear", product


def count(library):
    """Runs under callgrind; every loop is a dump of its own."""
    requests = ctypes.CDLL(library)
    for name, function in cases():
        for loops in (5, *LOOPS):  # the first translates the code
            requests.start()
            for _ in range(loops):
                function()
            requests.stop(f"{name} {loops}".encode())


def counted(tree, library, seed):
    """Instructions a call, by name, of the package in this tree."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, __file__, "--under-callgrind", library]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree), "PYTHONHASHSEED": str(seed)}
        subprocess.run(command, check=True, env=environment, capture_output=True)
        totals = {}
        for file in Path(folder).iterdir():
            for name, loops, total in DUMP.findall(file.read_text()):
                totals.setdefault(name, {})[int(loops)] = int(total)
    few, many = LOOPS
    return {name: (by[many] - by[few]) / (many - few) for name, by in totals.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("trees", nargs="*", type=Path)
    parser.add_argument("--under-callgrind", metavar="LIBRARY")
    given = parser.parse_args()
    if given.under_callgrind:
        return count(given.under_callgrind)
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/requests.so"
        subprocess.run(
            ["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", library], check=True, text=True, input=REQUESTS
        )
        rows = [[counted(tree, library, seed) for seed in SEEDS] for tree in (*given.trees, Path(__file__).parents[1])]
    for name in rows[-1][0]:
        figures = [mean(by[name] for by in row) for row in rows]
        ratios = "".join(f"  x{figures[-1] / figure:.3f}" for figure in figures[:-1])
        print(f"{name:45}", *(f"{figure:10.0f}" for figure in figures), ratios)
    return None


if __name__ == "__main__":
    main()
