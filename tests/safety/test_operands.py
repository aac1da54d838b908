"""The core touches nothing that is not its own: what a call lacks is an error that names it."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import backends
from fastsnn import functional as F
from fastsnn.ops.standardize import compute

from ..cases import TORCH
from ..gpuless import toolkit
from . import sanitized

MANY = 3_000_000
OPERATORS = torch.ops.fastsnn
params = fastsnn.LIF.for_rule("ottt")._params.arguments
needs_cpu = pytest.mark.skipif(backends.cpu._cpu is None, reason="needs the CPU core")
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="closes pages with mprotect")
pytestmark = needs_cpu


def child(code, **environment):
    """A Python process that runs code; a signal is a negative returncode."""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def mutate(*arguments, **environment):
    command = [sys.executable, "-m", "tests.safety.mutate", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    ran, refused = (int(part.split()[0]) for part in done.stdout.split(": ")[1].split(", "))
    assert ran > 0
    assert refused > 0
    return done


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_mutated_calls_of_bindings_stay_inside_their_operands(seed):
    mutate("cpu", 2500, seed)


@needs_linux
@pytest.mark.slow
def test_mutated_calls_of_operators_stay_inside_their_operands():
    mutate("operators", 1500)


@needs_linux
@pytest.mark.slow
@pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers())
def test_mutated_calls_of_the_cuda_core_stay_inside_their_operands():
    mutate("cuda-host", 1000)


@needs_linux
@pytest.mark.slow
@pytest.mark.skipif(bool(sanitized.lacks()), reason=sanitized.lacks())
def test_mutated_calls_under_the_sanitizers():
    sanitized.library()
    mutate("cpu", 1000, 5, "address", **sanitized.preload())


@needs_linux
def test_one_element_too_far_is_a_signal():
    code = "import ctypes, torch; from tests.safety.guarded import guarded\n"
    code += "x = guarded(torch.ones(5)); print(x.sum().item(), flush=True); ctypes.string_at(x.data_ptr() + {}, 4)"
    inside, beyond = child(code.format(16)), child(code.format(20))
    assert (inside.returncode, inside.stdout) == (0, "5.0\n")
    assert beyond.returncode < 0
    assert beyond.stdout == "5.0\n"


def weight_replaced(layer):
    y = layer(torch.randn(2, 4))
    layer.weight.data = torch.randn(MANY, 4)
    y.sum().backward()


def done_of_another_weight():
    w = torch.randn(MANY, 2, requires_grad=True)
    F.standardize(w, torch.ones(MANY, 1), done=compute(torch.randn(2, 2), torch.ones(2, 1))).sum().backward()


def backward_by_hand():
    fastsnn.LIF.for_rule("sltt")(torch.randn(MANY, requires_grad=True)).grad_fn.apply(torch.ones(4), None, None)


def osr_of_other_channels(train):
    norm = fastsnn.OSR1d(3, 2).train(train)
    norm.num_features = MANY
    with torch.no_grad():
        norm(torch.randn(2, MANY))


def osr_with_a_short_bias():
    norm = fastsnn.OSR1d(1000, 2)
    norm.bias = nn.Parameter(torch.zeros(1))
    norm(torch.randn(2, 1000))


def call_lif_forward(T=1, n=8, **operands):
    """Of eight neurons, with these operands in place of what fits."""
    optional = dict.fromkeys(("potential", "keep", "u_last", "u_seq", "v_last", "v_seq"))
    given = {"x": torch.zeros(8), "spikes": torch.zeros(8), "slots": (), "slots_out": (), **optional, **operands}
    p = backends.cpu.KERNELS["lif"]._params(fastsnn.LIF()._params)
    backends.cpu._cpu.lif_forward(p=p, where=1, T=T, n=n, dtype=0, first=True, potential_is_v=False, **given)


REFUSED = {
    "weight of a binary layer replaced": (
        lambda: weight_replaced(fastsnn.BinaryLinear(4, 4)),
        "binarize_backward: g_out has 16 elements of float32 on cpu; needed: 12000000 elements of float32 on cpu",
    ),
    "weight of a standardised layer replaced": (
        lambda: weight_replaced(fastsnn.WSLinear(4, 4)),
        "standardize_backward: gain has 4 elements of float32 on cpu; needed: 3000000 elements",
    ),
    "done of another weight": (done_of_another_weight, "done holds a W_hat of shape (2, 2) for weight's (3000000, 2)"),
    "a backward by hand": (backward_by_hand, "lif_backward_online: g_spikes has 4 elements"),
    "channels of OSR": (lambda: osr_of_other_channels(True), "osr_forward: weight has 3 elements of float32"),
    "channels of OSR in evaluation": (lambda: osr_of_other_channels(False), "osr_forward: weight has 3 elements"),
    "a short bias": (osr_with_a_short_bias, "osr_forward: bias has 1 elements of float32 on cpu; needed: 1000"),
    "lif_forward": (
        lambda: OPERATORS.ots_charge(torch.randn(MANY), torch.zeros(4), *params),
        "ots_charge: v has 4 elements of float32 on cpu; needed: 3000000 elements of float32 on cpu",
    ),
    "packed words": (
        lambda: OPERATORS.packed_product(
            torch.ones(2, 64), torch.zeros(1, dtype=torch.int32), 1, [32, 64], None, None, [1, 1], [0, 0], [1, 1]
        ),
        "packed_product: words has 1 elements of int32 on cpu; needed: 64 elements of int32 on cpu",
    ),
    "float64 spikes": (
        lambda: OPERATORS.packed_product(
            torch.ones(2, 32).double(), torch.zeros(1, 1, 1, 16).int(), 1, [16, 32], None, None, [1, 1], [0, 0], [1, 1]
        ),
        "dtype: packed weights multiply float32, bfloat16 and float16",
    ),
    "another dtype": (
        lambda: call_lif_forward(spikes=torch.zeros(8).half()),
        "lif_forward: spikes has 8 elements of float16 on cpu; needed: 8 elements of float32 on cpu",
    ),
    "gaps": (
        lambda: call_lif_forward(potential=torch.zeros(16)[::2]),
        "lif_forward: potential has 8 elements of float32 on cpu with gaps or overlap; needed: 8 elements",
    ),
    "an overlap": (
        lambda: call_lif_forward(u_last=torch.zeros(1).expand(8)),
        "lif_forward: u_last has 8 elements of float32 on cpu with gaps or overlap",
    ),
    "no memory": (
        lambda: call_lif_forward(keep=torch.zeros(8, device="meta")),
        "lif_forward: keep has no memory to read",
    ),
    "an address between elements": (
        lambda: call_lif_forward(keep=torch.frombuffer(bytearray(33), dtype=torch.float32, count=8, offset=1)),
        "lif_forward: keep has 8 elements of float32 on cpu at an address that is no multiple of their size",
    ),
    "a slot": (
        lambda: call_lif_forward(slots=(torch.zeros(8),)),
        "lif_forward: slots holds 1 operands; needed: 0",
    ),
    "nothing": (lambda: call_lif_forward(x=None), "lif_forward: x is None; needed: 8 elements of float32 on cpu"),
}


# what older torch refuses by itself, or says otherwise
OLDER = {}
if TORCH < (2, 14):
    OLDER["a backward by hand"] = RuntimeError, "Trying to backward through the graph a second time"
if TORCH < (2, 11):
    OLDER["no memory"] = ValueError, "lif_forward: keep has 8 elements of float32 on cpu without memory"


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_names_the_operand_that_does_not_fit(name):
    call, message = REFUSED[name]
    error, message = OLDER.get(name, (ValueError, message))
    with pytest.raises(error) as refused:
        call()
    assert message in str(refused.value)


def test_sizes_that_overflow_are_refused():
    for T, n in ((2**40, 2**40), (-1, 8), (1, -8), (2**62, 4)):
        with pytest.raises(ValueError, match="lif_forward: the sizes of x are negative or overflow"):
            call_lif_forward(T, n)


def test_an_object_with_an_address_is_no_tensor():
    class Address:
        def data_ptr(self):
            return 16

    operands = dict.fromkeys(("weight", "g_out", "g_weight"), Address())
    with pytest.raises(TypeError, match=r"weight is Address; it must be a torch\.Tensor"):
        backends.cpu._cpu.binarize_backward(where=1, rows=4, cols=4, dtype=0, **operands)


OUT_OF_MEMORY = """
import resource, torch, fastsnn
torch.set_num_threads(2)
x = torch.full((1_000_000, 66), .3, requires_grad=True)
s = fastsnn.LIF(step_mode='m')(x)
g = torch.ones_like(s)
size = int(next(line for line in open('/proc/self/status') if line.startswith('VmSize')).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 500_000_000,) * 2)
try:
    s.backward(g)
except MemoryError:
    print('MemoryError')
"""


@needs_linux
def test_out_of_memory_in_a_kernel_of_two_threads_is_an_error():
    done = child(OUT_OF_MEMORY, OMP_NUM_THREADS="2")
    assert (done.returncode, done.stdout) == (0, "MemoryError\n"), done.stderr[-500:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_kernels_run_on_a_small_stack(dtype):
    code = (
        "import threading, torch\nfrom tests.safety import calls\ntorch.set_num_threads(1)\n"
        f"calls.run_layers({dtype}, 5)\nthreading.stack_size(64 * 1024)\n"
        f"thread = threading.Thread(target=calls._neurons, args=({dtype}, 5000, False))\n"
        "thread.start(); thread.join(); print('done')"
    )
    done = child(code)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-500:]


def test_one_neuron_takes_no_room_for_64():
    code = (
        "import resource, torch, fastsnn\nneuron = fastsnn.LIF(step_mode='m')\nT = 500_000\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "neuron(torch.rand(1000, 1, requires_grad=True)).sum().backward(); fastsnn.reset(neuron)\n"
        "x = torch.rand(T, 1, requires_grad=True); s = neuron(x); before = peak(); s.sum().backward()\n"
        "print((peak() - before) / (4 * T))"
    )
    assert float(child(code).stdout) < 20  # values a step; 64 of scratch alone before


def test_threads_may_call_at_once():
    x = torch.rand(50_000)
    expected = fastsnn.LIF()(x)
    spikes = [None] * 4

    def run(i):
        for _ in range(20):
            spikes[i] = fastsnn.LIF()(x)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(torch.equal(s, expected) for s in spikes)
