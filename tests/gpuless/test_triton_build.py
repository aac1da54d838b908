"""The Triton kernels compiled for every architecture, without a GPU: vector width, no FMA, no spills, nothing
specialised; and every variant that the parity suite asks for. Each check has a planted kernel that it must reject."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import machine_code

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OTHER_ARCHS = ("75", "80", "86", "89", "100", "120")
# bytes of a thread: the assembler that older Triton has keeps two registers of some kernels of OSR and MPDR there
SPILLED = 0 if tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 8) else 8
# every kernel and dtype, the longest rule, both directions
REPRESENTATIVE = (
    "(ndot-soft|ndot_released-soft|bptt-hard|sltt-soft)-sequence|forward-ottt-soft-step|standardize|empf"
    "|osr-(alone|ndot|ots-hard)-inner-(float32|bfloat16)|osr-(ndot|ots-soft)-last-float16"
    "|(ots|mpdr-bptt)-hard-(float32|float16)|mpdr-ndot-local-(float32|float16)"
    "|binary-1bit-neighbours-(float32|bfloat16)|binary-2bit-apart-float16"
)
# the half types' code differs in conversions alone
ONE_HALF_TYPE = f"{REPRESENTATIVE}|-(float32|float64|bfloat16)$"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(machine_code.lacks_tools()), reason=machine_code.lacks_tools()),
]


def python(cache, *command, cwd=HERE):
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    return subprocess.run([sys.executable, *command], env=environment, cwd=cwd, capture_output=True, text=True)


def run(cache, *command):
    done = python(cache, *command)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


class Compiled:
    """The files and the index that a build left in a folder."""

    def __init__(self, folder, cache, script, *options):
        run(cache, script, str(folder), *options)
        self.folder, self.rows = folder, json.loads((folder / "index.json").read_text())
        taken = functools.cache(machine_code.resources_of)  # cases share kernels
        for row in self.rows:
            row["registers"], row["stack"], _ = taken(self.path(row, "cubin").read_bytes())

    def path(self, row, kind):
        return self.folder / f"{row['name']}.{row['arch']}.{kind}"

    def text(self, row, kind):
        return self.path(row, kind).read_text()

    def planted(self, name):
        return next(row for row in self.rows if row["name"] == name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Of Triton: much of what the parity suite asks for is compiled already."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def every_variant(tmp_path_factory, cache):
    options = ("--archs", "90", "--only", ONE_HALF_TYPE)
    return Compiled(tmp_path_factory.mktemp("every_variant"), cache, "triton_build.py", *options)


@pytest.fixture(scope="module")
def every_arch(tmp_path_factory, cache):
    options = ("--archs", *OTHER_ARCHS, "--only", REPRESENTATIVE, "--spread")
    return Compiled(tmp_path_factory.mktemp("every_arch"), cache, "triton_build.py", *options)


@pytest.fixture(params=["every_variant", "every_arch"])
def compiled(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def controls(tmp_path_factory, cache):
    return Compiled(tmp_path_factory.mktemp("controls"), cache, "triton_planted.py")


@pytest.fixture(scope="module")
def suite(tmp_path_factory, cache):
    """The rows on sm_90 of those variants of the parity suite in which each three properties meet that meet in any."""
    file = tmp_path_factory.mktemp("suite") / "rows.json"
    options = ("-p", "tests.gpuless.suite_variants", "-p", "no:cacheprovider", "-k", "triton", "--variants", str(file))
    done = python(cache, "-m", "pytest", "-q", "tests/parity", *options, cwd=ROOT)
    assert file.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(file.read_text())


def widths(ptx):
    """Bits of each access to global memory."""
    accesses = re.findall(r"\b(?:ld|st)\.global\S*?(?:\.v(\d))?\.[a-z](\d+)\s", ptx)
    assert accesses
    return [int(vector or 1) * int(bits) for vector, bits in accesses]


def narrow_accesses(ptx):
    return [bits for bits in widths(ptx) if bits < 128]


def fused(ptx):
    return re.findall(r"\b(?:fma|mad)\.\S*f(?:16|32|64)\S*|\S+\.ftz\S*", ptx)


STORAGE = {"arith.extf", "arith.truncf", "arith.constant"}


def half_arithmetic(ttir):
    """Operations on bfloat16 or float16 other than conversions."""
    lines = re.findall(r"= ((?:arith|math)\.\w+)(.*)", ttir)
    assert lines
    return [name for name, rest in lines if name not in STORAGE and re.search(r"(?<![a-z])b?f16\b|xb?f16\b", rest)]


def of(compiled, *kernels):
    return [row for row in compiled.rows if row["entry"].startswith(kernels)]


def neurons(compiled):
    """LIF without MPDR, whose moments are one value a program and step."""
    return [row for row in of(compiled, "lif") if "-mpdr-" not in row["name"]]


def faults(compiled, rows, check, kind="ptx"):
    found = {f"{row['name']}.{row['arch']}": check(compiled.text(row, kind)) for row in rows}
    return {name: fault for name, fault in found.items() if fault}


def test_every_kernel_compiles_for_every_architecture(every_variant, every_arch):
    kernels = {"lif_forward", "lif_backward_online", "lif_backward_bptt", "standardize_forward", "standardize_backward"}
    kernels |= {f"empf_{name}" for name in ("forward", "backward", "potential", "norm_forward")}
    kernels |= {"empf_norm_sums", "empf_norm_backward"}
    kernels |= {"osr_charge", "osr_charge_merge"}
    kernels |= {"osr_forward", "osr_lif_forward", "osr_merge", "osr_reduce", "osr_total", "osr_gradient"}
    kernels |= {"ots_charge", "ots_merge", "ots_fire", "ots_backward"}
    kernels |= {"mpdr_merge"}
    kernels |= {"binarize_forward", "binarize_backward", "packed_few", "packed_tile"}
    assert {row["entry"] for row in every_variant.rows} == kernels
    assert len(every_variant.rows) > 100
    pairs = {(row["entry"], str(row["arch"])) for row in every_arch.rows}
    assert pairs == {(kernel, arch) for kernel in kernels for arch in OTHER_ARCHS}
    for build in (every_variant, every_arch):
        assert all(build.path(row, "cubin").stat().st_size for row in build.rows)


def occupancy(row):
    return machine_code.Kernel(row["name"], [], row["registers"]).occupancy(row["arch"], 32 * row["num_warps"])


def test_half_of_the_threads_are_resident(compiled):
    rows = [row for row in compiled.rows if row["entry"] != "packed_tile"]
    assert not [row["name"] for row in rows if occupancy(row) < 0.5]


def test_tiles_keep_a_quarter_of_the_threads(compiled):
    """Their sums and both operands lie in registers, where each value is used more often for it."""
    assert not [row["name"] for row in of(compiled, "packed_tile") if occupancy(row) < 0.25]


def test_tiles_of_16_bit_spikes_run_on_tensor_cores(compiled):
    for row in of(compiled, "packed_tile"):
        there = row["name"].endswith("float16") and row["arch"] >= 80
        assert bool(re.search(r"\b(wg|tcgen05\.)?mma\b", compiled.text(row, "ptx"))) == there, row["name"]


def test_lif_accesses_128_bits_of_state_and_as_many_neurons_of_the_input(compiled):
    rows = neurons(compiled)
    assert {"16" in row["name"] for row in rows} == {True, False}
    for row in rows:
        halves = [kind for kind in row["arguments"].values() if kind in ("*bf16", "*fp16")]
        once = [64] * len(halves)
        assert narrow_accesses(compiled.text(row, "ptx")) in (once, 2 * once), row[
            "name"
        ]  # or with the first step apart


def test_standardize_accesses_are_wide_but_for_what_a_row_has_one_of(compiled):
    for row in of(compiled, "standardize"):
        single = {"gain_p", "mean_p", "inverse_p", "g_gain_p"} & row["arguments"].keys()
        assert len(narrow_accesses(compiled.text(row, "ptx"))) == len(single)


def test_nothing_is_fused_or_flushed(compiled):
    # products with 1, -1 and 0 are exact, fused or not
    assert not faults(compiled, [row for row in compiled.rows if row["entry"] != "packed_tile"], fused)


def test_half_types_are_storage_only(compiled):
    assert not faults(compiled, compiled.rows, half_arithmetic, "ttir")


def test_no_registers_spill(compiled):
    assert not [row["name"] for row in compiled.rows if row["stack"] > SPILLED]


def test_neurons_need_no_shared_memory(compiled):
    assert all(row["shared"] for row in of(compiled, "osr_total"))  # a sum over threads does
    rows = neurons(compiled)
    assert rows
    assert not [row["name"] for row in rows if row["shared"]]


def test_all_that_the_parity_suite_asks_for_compiles(suite):
    assert len(suite) > 500
    assert not [row for row in suite if "error" in row]


def test_no_registers_spill_at_any_size_with_any_operands(suite):
    assert not [row for row in suite if row["stack"] > SPILLED]


def test_neurons_need_no_shared_memory_at_any_size(suite):
    moments = {"workspace_p", "moments_p"}  # of MPDR, one value a program and step
    asked = [row for row in suite if row["name"].startswith("lif") and not moments & {*row["given"]}]
    assert asked
    assert not [row for row in asked if row["shared"]]


def test_the_checks_reject_what_was_planted(controls):
    assert narrow_accesses(controls.text(controls.planted("scalar_access"), "ptx"))
    assert fused(controls.text(controls.planted("fused"), "ptx"))
    assert half_arithmetic(controls.text(controls.planted("half_arithmetic"), "ttir"))
    assert controls.planted("spills")["stack"] > SPILLED


def test_the_checks_pass_what_is_right(controls):
    assert not narrow_accesses(controls.text(controls.planted("fused"), "ptx"))
    assert not fused(controls.text(controls.planted("scalar_access"), "ptx"))
    assert not half_arithmetic(controls.text(controls.planted("fused"), "ttir"))


LAUNCHES = """
import torch
from triton_build import backward, forward, lif_params, recorded_launches

def asked(launch, rule, **size):
    with recorded_launches() as recorded:
        launch(lif_params(rule), torch.float32, True, **size)
    return [(v.kernel, v.signature, constants(v), {at: hint for at, hint in v.attrs.items() if hint}) for v in recorded]

def constants(variant):
    # ALIGNED goes with the hint about n
    return {at: value for at, value in variant.constexprs.items() if variant.kernel.arg_names[at[0]] != "ALIGNED"}

for launch in (forward, backward):
    for rule in ("bptt", "ottt"):
        assert asked(launch, rule, T=1) == asked(launch, rule, T=2) == asked(launch, rule, T=17, n=4096)
        (divisible,), (odd,), (one,) = (asked(launch, rule, n=n) for n in (2048, 2049, 1))
        assert divisible[:3] == odd[:3] == one[:3]
        kernel = divisible[0]
        n = kernel.arg_names.index("n")
        assert odd[3] == {at: hint for at, hint in divisible[3].items() if at != (n,)} == one[3]
        assert (n,) in divisible[3]
print("equal")
"""


def test_one_compilation_serves_every_length_and_size(tmp_path):
    assert run(tmp_path, "-c", LAUNCHES) == "equal\n"


def test_a_specialised_length_would_show(tmp_path):
    code = "from triton_planted import specialised\nprint(specialised(1)[0][1:] != specialised(2)[0][1:])"
    assert run(tmp_path, "-c", code) == "True\n"
