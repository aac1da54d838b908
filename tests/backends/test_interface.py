"""What kernels take: cores declare what families pass, and a core of another fastsnn is refused at import."""

import ast
import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fastsnn
from fastsnn import backends
from fastsnn.ops.common.interface import INTERFACE
from fastsnn.ops.lif import kernels as lif

from ..gpuless import cuda_host, toolkit
from ..safety import calls
from . import interface

core = backends.cpu._cpu
pytestmark = pytest.mark.skipif(core is None, reason="needs the CPU core")

EVERYWHERE = {kernel: takes for kernel, takes in INTERFACE.items() if kernel != "stgr_sgd"}


def test_families_know_all_that_the_core_declares():
    assert interface.FILE.read_text() == interface.text(core.kernels), "python -m tests.backends.interface"
    assert core.kernels == INTERFACE
    assert core.checks.kernels == EVERYWHERE
    assert all(callable(getattr(core, kernel)) for kernel in INTERFACE)


@pytest.mark.skipif(bool(toolkit.lacks_cuda_headers()), reason=toolkit.lacks_cuda_headers())
def test_the_cuda_core_declares_the_same():
    assert cuda_host.core().kernels == EVERYWHERE


def test_triton_launches_every_kernel_of_the_native_cores():
    launches = pytest.importorskip("fastsnn._triton.core")
    assert [kernel for kernel in EVERYWHERE if not callable(getattr(launches, kernel, None))] == []


def test_the_stub_names_what_else_the_core_has():
    stub = ast.parse(Path(backends.cpu.__file__).parents[1].joinpath("_cpu.pyi").read_text())
    targets = [node.target for node in stub.body if isinstance(node, ast.AnnAssign)]
    stated = {node.id for node in targets} | {node.name for node in stub.body if hasattr(node, "name")}
    assert stated - {"__getattr__"} == {name for name in vars(core) if name[0] != "_"} - INTERFACE.keys()


OLDER = {
    "an operand less": lambda takes: takes.replace(", keep: state?", ""),
    "an operand of another name": lambda takes: takes.replace("u_last", "u"),
    "two that have changed places": lambda takes: takes.replace(
        "u_last: >state?, u_seq: >state?", "u_seq: >state?, u_last: >state?"
    ),
    "one that was read": lambda takes: takes.replace(">input", "input"),
    "one that was needed": lambda takes: takes.replace("keep: state?", "keep: state"),
    "one of another type": lambda takes: takes.replace("first: bool", "first: int"),
    "no such kernel": lambda takes: "",
}


def core_of(kernels):
    return backends.cpu.CORE._replace(
        module=SimpleNamespace(__name__="_cpu", __file__="/there/_cpu.so", kernels=kernels, rules={})
    )


@pytest.mark.parametrize("name", OLDER)
def test_a_core_with_other_operands_is_an_error_that_names_its_file_and_the_remedy(name):
    takes = OLDER[name](INTERFACE["lif_forward"])
    assert takes != INTERFACE["lif_forward"]
    with pytest.raises(ImportError, match=r"/there/_cpu\.so was built for another.*its lif_forward .*`pip install \.`"):
        lif.LIFKernels(core_of({**core.kernels, "lif_forward": takes}))
    lif.LIFKernels(core_of(core.kernels))


@pytest.mark.parametrize("kernel", INTERFACE)
def test_every_kernel_is_compared(kernel):
    older = core_of({**core.kernels, kernel: core.kernels[kernel] + ", more: int"})
    with pytest.raises(ImportError, match=rf"its {kernel} takes 'more: int' where fastsnn passes 'nothing more'"):
        [native(older) for native in backends.FAMILIES.values()]


STALE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("fastsnn._cpu", {file!r})
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
{older}
sys.modules["fastsnn._cpu"] = core
import fastsnn
fastsnn.LIF
"""


@pytest.mark.parametrize(
    "older",
    [
        "del core.kernels, core.checks.kernels",
        "core.kernels['osr_forward'] = core.kernels['osr_forward'].replace(', refused: >float64?', '')",
    ],
    ids=["says nothing", "says otherwise"],
)
def test_no_layer_is_made_with_an_older_core(older):
    code = STALE.format(file=core.__file__, older=older)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"ImportError: {core.__file__} was built for another fastsnn: its " in done.stderr
    assert done.stderr.rstrip().endswith("Build it again: `pip install .` in fastsnn's source folder")


BINARIZE = {"where": 1, "rows": 0, "cols": 0, "dtype": 0, "weight": None, "g_out": None, "g_weight": None}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cols": "3"}, TypeError, "binarize_backward: cols is str; it must be an integer"),
        ({"cols": 3.0}, TypeError, "binarize_backward: cols is float; it must be an integer"),
        ({"cols": 2**63}, ValueError, "binarize_backward: cols does not fit in 64 bits"),
        ({"where": 2**40}, ValueError, "binarize_backward: where does not fit in 32 bits"),
        ({"where": 0}, ValueError, r"binarize_backward: threads must be in 1\.\.1024"),
        ({"dtype": 4}, ValueError, "binarize_backward: dtype: unknown code"),
        ({}, ValueError, "binarize_backward: weight is None"),
        ({"more": 1}, TypeError, "binarize_backward takes no argument more, or"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        core.binarize_backward(**(BINARIZE | arguments))


@pytest.mark.parametrize("name", BINARIZE)
def test_an_argument_that_is_missing_is_named(name):
    with pytest.raises(TypeError, match=f"binarize_backward misses {name}"):
        core.binarize_backward(**{other: BINARIZE[other] for other in BINARIZE if other != name})


def test_arguments_come_by_name_in_any_order():
    weight, found = torch.tensor([[0.5, -2.0]]), torch.zeros(2, 1, 2)
    given = {"where": 1, "rows": 1, "cols": 2, "dtype": 0, "weight": weight, "g_out": torch.ones(1, 2)}
    orders = list(itertools.permutations(given))[:: len(BINARIZE)]
    for order in orders:
        for g_weight in found:  # the second call has the names of the first
            g_weight.zero_()
            assert core.binarize_backward(g_weight=g_weight, **{name: given[name] for name in order})
            assert g_weight.tolist() == [[1.0, 0.0]]
    for by_position in range(len(given)):
        first, rest = [*given.values()][:by_position], [*given][by_position:]
        assert core.binarize_backward(*first, **{name: given[name] for name in rest}, g_weight=found[0])
    with pytest.raises(TypeError, match="binarize_backward takes no argument rows, or has it by position"):
        core.binarize_backward(1, 1, 2, 0, weight, weight, weight, rows=1)
    with pytest.raises(TypeError, match="binarize_backward takes 7 arguments"):
        core.binarize_backward(*[1] * 8)
    with pytest.raises(TypeError, match="binarize_backward misses weight"):
        core.binarize_backward(1, 1, 2, 0, rows=1, g_out=weight, g_weight=weight)


NEURON = dict.fromkeys(("leak", "gain", "bias", "threshold", "v_reset", "reset_grad", "height", "slope"), 1.0)
NEURON |= {"reset": 0, "rule": 0, "surrogate": 0, "of_rule": ()}


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"reset": 2}, ValueError, "LifParams: reset: unknown code"),
        ({"rule": -1}, ValueError, "LifParams: rule: unknown code"),
        ({"surrogate": 99}, ValueError, "LifParams: surrogate: unknown code"),
        ({"rule": 2, "reset": 1}, ValueError, "the rule needs soft reset"),  # ndot
        ({"of_rule": (0.5,)}, TypeError, "LifParams: of_rule is tuple; it must be a sequence of its length"),
        ({"leak": "x"}, TypeError, "LifParams: leak is str; it must be a number"),
        ({"tau": 2.0}, TypeError, "LifParams takes no argument tau"),
    ],
)
def test_a_neuron_parameter_that_does_not_fit_is_named(parameters, error, message):
    assert core.LifParams(**NEURON)
    with pytest.raises(error, match=message):
        core.LifParams(**(NEURON | parameters))


@pytest.mark.parametrize("name", NEURON)
def test_a_neuron_parameter_that_is_missing_is_named(name):
    with pytest.raises(TypeError, match=f"LifParams misses {name}"):
        core.LifParams(**{other: NEURON[other] for other in NEURON if other != name})


def test_more_and_other_arguments_are_refused():
    names = calls.names_of(core, "lif_forward")
    with pytest.raises(TypeError, match="lif_forward: p is str; it must be this core's LifParams"):
        core.lif_forward(**dict.fromkeys(names, "p"))
    sizes = {"where": 1, "rows": 2, "cols": 3, "dtype": 0, "eps": "eps"}
    with pytest.raises(TypeError, match="standardize_forward: eps is str; it must be a number"):
        core.standardize_forward(**sizes, **dict.fromkeys(("weight", "gain", "mean", "inverse", "out")))
    names = calls.names_of(core, "packed_product")
    with pytest.raises(TypeError, match="packed_product: in_plane is int; it must be a sequence of its length"):
        core.packed_product(**dict.fromkeys(names, 1))
    with pytest.raises(TypeError, match="packed_product: in_plane is str; it must be an integer"):
        core.packed_product(**(dict.fromkeys(names, 1) | {"in_plane": ("a", "b")}))


def test_operands_are_read_or_written_as_declared():
    """Of every kernel: what is declared as read stays, and what is declared as written changes in some call."""
    with fastsnn.use_backend("cpu"):
        recorded = calls.of_core(backends.cpu.KERNELS)
    declared, changed = set(), set()
    for kernel, given in recorded:
        takes = dict(item.split(": ") for item in core.kernels[kernel].split(", ") if ": " in item)
        operands = [(name, part.detach()) for name, value in given.items() for part in parts(value)]
        written = {tensor.data_ptr() for name, tensor in operands if ">" in takes[name]}
        for i, (_, tensor) in enumerate(operands):
            if tensor.data_ptr() in written:
                tensor.fill_(7 + i)
        before = [tensor.clone() for _, tensor in operands]
        getattr(core, kernel)(**given)
        for (name, tensor), earlier in zip(operands, before, strict=True):
            same = torch.equal(bits(tensor), bits(earlier))
            assert same or tensor.data_ptr() in written, (kernel, name)
            declared |= {(kernel, name)} if ">" in takes[name] else set()
            changed |= set() if same else {(kernel, name)}
    assert {kernel for kernel, _ in declared} == INTERFACE.keys()
    assert declared - changed == set()


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def parts(value):
    """The tensors of an argument."""
    return [part for part in (value if type(value) is tuple else (value,)) if isinstance(part, torch.Tensor)]
