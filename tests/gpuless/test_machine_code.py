"""What nvcc made of the CUDA kernels, for every architecture: no spills, wide accesses, no FMA, enough threads."""

import shutil
import subprocess

import pytest

from fastsnn.backends import cuda
from fastsnn.rules import RULES

from . import kernels, machine_code

lacking = (
    machine_code.lacks_tools()
    or ("" if cuda._cuda else "fastsnn was built without its CUDA core")
    or ("" if shutil.which("nvcc") else "needs nvcc")
)
# slow: the short suite has no CUDA core
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking), reason=lacking)]

# per row, channel or block, not per element: gain, mean, 1/sigma and their gradients; OSR's vectors, its first element
# and sums; OTS's threshold or sums, also where OSR has them
OUTSIDE = {"standardize_forward": 3, "standardize_backward": 4, "binarize_forward": 1}
# a channel's vectors are read and written through a switch over their type
OUTSIDE |= {"osr_forward": 69, "osr_lif_forward": 69, "osr_reduce": 4, "osr_lif_reduce": 5, "osr_gradient": 5}
OUTSIDE |= {"osr_charge": 71}
VERDICTS = {"osr_forward", "osr_lif_forward", "osr_charge"}
AGAIN = 11  # accesses of one such switch that nvcc lays out twice from sm_100 on
OUTSIDE |= {"ots_charge": 2, "ots_fire": 1, "ots_backward": 1}
# two sums of a block; three coefficients of MPDR
PER_STEP = {"mpdr_forward": 2, "mpdr_backward_online": 3, "mpdr_backward_bptt": 3}
# parameters of a channel, one value a step
PER_CHANNEL = {"empf_forward saved": 2, "empf_forward recomputed": 1, "empf_norm_forward": 7}
ARCHS = [arch for arch in machine_code.ARCHS if cuda._cuda and str(arch) in cuda._cuda.archs.split(";")]


@pytest.fixture(scope="module", params=ARCHS)
def compiled(request):
    return list(kernels.cuda_kernels([request.param]))


def names(found):
    return [f"{kernel.name} {kernel.dtype} x{kernel.width}" for kernel in found]


def test_every_kernel_is_there(compiled):
    resets = {rule.kernel: 1 if rule.soft_reset else 2 for rule in RULES.values()}
    steps, back = sum(resets.values()), sum(resets[name] for name in {RULES[r.untraced].kernel for r in RULES.values()})
    widths, dtypes = 2, 4
    empf_wide, empf_sums = 2 + 1, 2 + 3
    osr, ots, mpdr = steps + 1 + 1 + 2 + 1, 1 + 2 + 1, steps + 1 + 2 * back
    merges = 3 + 4 + 5  # of OSR; of blocks of four widths; and of the widths of each state
    wide = steps + 1 + 2 * back + 2 + empf_wide + osr + ots + mpdr
    transform, products = dtypes * widths * 2, 3 * widths * 2 * 2
    assert len(compiled) == dtypes * (widths * wide + empf_sums) + merges + transform + products
    vectors = [kernel for kernel in compiled if kernel.width > 1]
    neurons = [kernel for kernel in vectors if kernel.name.startswith("lif")]
    assert {kernel.width * kernels.state_bytes(kernel.dtype) for kernel in neurons} == {16}
    assert {kernel.vector for kernel in vectors if kernel not in neurons} == {16}


def test_nothing_spills(compiled):
    assert not names(k for k in compiled if k.code.stack or k.code.count(machine_code.LOCAL))


def test_at_least_half_of_the_threads_are_resident(compiled):
    assert not names(k for k in compiled if k.occupancy < 0.5)


def test_sums_take_no_atomics(compiled):
    assert not names(k for k in compiled if k.code.count(machine_code.ATOMIC))


def test_vector_bodies_access_whole_vectors(compiled):
    wide = [k for k in compiled if k.width > 1 and k.name not in PER_CHANNEL and not k.name.startswith("packed")]
    for k in wide:
        family = k.name.split()[0]
        in_step = PER_STEP.get(family, 0)
        allowed = OUTSIDE.get(family, in_step) + (AGAIN if family in VERDICTS and k.arch >= 100 else 0)
        assert len(k.narrow(k.code.body)) <= allowed, k.name
        narrow = sorted(len(k.narrow(loop)) for loop in k.code.loops)
        if family in VERDICTS:
            assert narrow.pop() == 1, k.name  # the loop over the channels' verdicts reads one each
        assert {*narrow} <= {in_step}, k.name
        moved = k.code.loop_bytes
        loopless = family.startswith("ots") or family == "binarize_backward"
        assert all(moved) or loopless or (family == "osr_reduce" and moved[0]), k.name


def test_parameters_of_a_channel_alone_are_read_narrowly(compiled):
    wide = [k for k in compiled if k.width > 1 and k.name in PER_CHANNEL]
    assert {k.name for k in wide} == PER_CHANNEL.keys()
    unrolled = {k.name: set() for k in wide}
    for k in wide:
        narrow = k.code.narrow(k.code.body)
        assert all(access.startswith("LD") for access in narrow), k.name
        unrolled[k.name].add(len(narrow) / PER_CHANNEL[k.name])
    assert set().union(*unrolled.values()) <= {1, 3, 5, 7}  # with what the unrolled loop leaves


def test_no_operand_moves_twice_in_a_step(compiled):
    loops = [k for k in compiled if k.width > 1 and k.streams]
    assert {k.unrolled for k in loops} <= {1, 2, 4}
    read = {(k.name, k.dtype): k.code.loop_bytes[0] / k.width / k.unrolled for k in loops}
    assert read == {(k.name, k.dtype): k.streams[0] for k in loops}


def products(compiled, name):
    """(kernel, bits) of a product's kernels, at least one of each."""
    found = [(k, int(k.name.split()[1])) for k in compiled if k.name.startswith(name)]
    assert {bits for _, bits in found} == {1, 2}
    return found


def test_products_of_few_positions_load_16_bytes_at_once(compiled):
    """Spikes, and words of 4 outputs."""
    for kernel, bits in products(compiled, "packed_few"):
        if kernel.width > 1:
            (loop,) = kernel.code.loops
            assert not kernel.code.narrow(loop)
            assert len(kernel.code.accesses(loop)) == 1 + 32 // bits // kernel.width


def test_tiles_of_16_bit_spikes_run_on_tensor_cores(compiled):
    """Of 16 channels each, for 4 groups of 8 positions."""
    for kernel, bits in products(compiled, "packed_tile"):
        there = kernels.BYTES[kernel.dtype] == 2 and kernel.arch >= 80
        assert kernel.code.count(machine_code.TENSOR) == (4 * 2 // bits if there else 0)


def test_recurrences_hold_no_fma(compiled):
    """Division is made of FMAs, and only kernels that divide may hold them."""
    recurrences = [k for k in compiled if k.name.startswith("lif_forward") and "ndot" not in k.name]
    assert len(recurrences) == 2 * 4 * 6
    assert not names(k for k in recurrences if k.code.count(machine_code.FUSED))


def test_ptx_holds_no_fma():
    texts = machine_code.extension_ptx(cuda._cuda.__file__)
    assert sum(text.count(".entry") for text in texts) > 100
    assert not any("fma." in text for text in texts)


PLANTED = """
__global__ void __launch_bounds__(256, 4) narrow(const float4* x, float* y, int n) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  const float4 v = x[i];
  y[4 * i] = v.x + v.y;
  y[4 * i + 3] = v.z + v.w;
}
__global__ void __launch_bounds__(256, 4) tail(const float4* x, float4* y, int n) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (4 * i + 4 <= n) {
    y[i] = x[i];
  } else {
    for (int j = 4 * i; j < n; j++) reinterpret_cast<float*>(y)[j] = reinterpret_cast<const float*>(x)[j];
  }
}
__global__ void spilled(const float* x, float* y, int n) {
  float row[64];
  for (int j = 0; j < n; j++) row[j & 63] = x[j];
  for (int j = 0; j < n; j++) y[j] = row[(j * 7) & 63];
}
__global__ void fused(const float* x, float* y) { y[threadIdx.x] = fmaf(x[threadIdx.x], 2.5f, 1.5f); }
__global__ void atomic(float* y) { atomicAdd(y, 1.5f); }
__global__ void crowded(double* y) {
  __shared__ double rows[4096];
  rows[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = rows[4095 - threadIdx.x];
}
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Kernels that each break one rule, and `tail`, which breaks none."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted.cu").write_text(PLANTED)
    command = ["nvcc", "-arch=sm_90", "-cubin", "-O3", "planted.cu", "-o", "planted.cubin"]
    subprocess.run(command, cwd=folder, check=True)
    return {kernel.name.split("(")[0]: kernel for kernel in machine_code.kernels(folder / "planted.cubin")}


def test_planted_faults_are_seen(planted):
    assert planted["narrow"].narrow(planted["narrow"].body)
    assert planted["spilled"].count(machine_code.LOCAL)
    assert planted["spilled"].stack
    assert planted["fused"].count(machine_code.FUSED)
    assert planted["atomic"].count(machine_code.ATOMIC)
    assert planted["crowded"].occupancy(90, 128) < 0.5


def test_a_scalar_tail_is_no_fault(planted):
    tail = planted["tail"]
    assert not tail.narrow(tail.body)
    assert tail.narrow(range(len(tail.blocks)))
