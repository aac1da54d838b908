"""What kernels take: cores declare what families pass, and a core of another fastsnn is refused at import."""

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastsnn import backends
from fastsnn.kernels import binary, empf, lif, standardize, stats, stgr

from ..gpuless import cuda_host, toolkit

core = backends.cpu._cpu
pytestmark = pytest.mark.skipif(core is None, reason="needs the CPU core")

ALL = (lif.SIGNATURES, stats.OSR_SIGNATURES, stats.OTS_SIGNATURES, empf.SIGNATURES, standardize.SIGNATURES)
ALL += (binary.SIGNATURES, stgr.SIGNATURES)
SIGNATURES = {kernel: takes for signatures in ALL for kernel, takes in signatures.items()}
EVERYWHERE = {kernel: takes for kernel, takes in SIGNATURES.items() if kernel not in stgr.SIGNATURES}


def test_families_know_all_that_the_core_declares():
    assert core.kernels == SIGNATURES
    assert core.checks.kernels == EVERYWHERE
    assert all(callable(getattr(core, kernel)) for kernel in SIGNATURES)


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
    assert stated - {"__getattr__"} == {name for name in vars(core) if name[0] != "_"} - SIGNATURES.keys()


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
    takes = OLDER[name](SIGNATURES["lif_forward"])
    assert takes != SIGNATURES["lif_forward"]
    with pytest.raises(ImportError, match=r"/there/_cpu\.so was built for another.*its lif_forward .*`pip install \.`"):
        lif.LIFKernels(core_of({**core.kernels, "lif_forward": takes}))
    lif.LIFKernels(core_of(core.kernels))


@pytest.mark.parametrize("kernel", SIGNATURES)
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


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), ValueError, "binarize_backward: where is missing"),
        ((1, 2), ValueError, "binarize_backward: cols is missing"),
        ((1, 2, "3"), TypeError, "binarize_backward: cols is str; it must be an integer"),
        ((1, 2, 3.0), TypeError, "binarize_backward: cols is float; it must be an integer"),
        ((1, 2, 2**63), ValueError, "binarize_backward: cols does not fit in 64 bits"),
        ((2**40, 2, 3), ValueError, "binarize_backward: where does not fit in 32 bits"),
        ((0, 2, 3), ValueError, r"binarize_backward: threads must be in 1\.\.1024"),
        ((1, 2, 3, 4), ValueError, "binarize_backward: dtype: unknown code"),
        ((1, 0, 0, 0, None, None, None), ValueError, "binarize_backward: weight is None"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        core.binarize_backward(*arguments)


def test_more_and_other_arguments_are_refused():
    with pytest.raises(TypeError, match="lif_forward: p is str; it must be this core's LifParams"):
        core.lif_forward("p")
    with pytest.raises(TypeError, match="standardize_forward: eps is str; it must be a number"):
        core.standardize_forward(1, 2, 3, 0, "eps")
    with pytest.raises(TypeError, match="packed_product: in is int; it must be a sequence of its length"):
        core.packed_product(1, 2, 3, 4, 5)
    with pytest.raises(TypeError, match="packed_product: in is str; it must be an integer"):
        core.packed_product(1, 2, 3, 4, ("a", "b"))
    with pytest.raises(TypeError, match="takes no keyword arguments"):
        core.binarize_backward(where=1)
