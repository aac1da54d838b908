"""Binary synapses: every backend that has them against the reference in float64, and that against plain autograd."""

import pytest
import torch
import torch.nn.functional as F

import fastsnn
from fastsnn import backends
from fastsnn.functional import Packed, binarize, packed_conv2d, packed_linear
from fastsnn.ops import binary
from fastsnn.ops.binary import Geometry
from fastsnn.reference import binary as reference

from ..cases import DTYPES, LAYOUTS, VARIANTS, assert_same, dtype_id, on_reference
from ..gpuless import cuda_host

pytestmark = pytest.mark.usefixtures("poisoned")

EVERY = pytest.mark.parametrize("variant", [*VARIANTS, "reference"], indirect=True)
CPU = pytest.mark.parametrize("variant", [v for v in VARIANTS if v.startswith("cpu")], indirect=True)

WEIGHTS = [(1, 1), (5, 7), (8, 3, 3, 3), (3, 2, 5), (37, 1041), (4, 2, 3, 3, 3)]
SPIKES = [torch.float32, torch.bfloat16, torch.float16]
# outputs, inputs; ragged in blocks of 16 and words of 32 or 16, and whole
LINEAR = [(1, 1), (3, 5), (16, 32), (17, 33), (130, 1000), (64, 128)]
# samples, inputs, outputs, height, width, kernel, geometry
CONVS = {
    "1x1": (2, 16, 16, 5, 4, (1, 1), Geometry()),
    "3x3": (2, 40, 33, 7, 6, (3, 3), Geometry(padding=(1, 1))),
    "many positions": (3, 64, 160, 9, 11, (3, 3), Geometry(padding=(1, 1))),
    "strided": (2, 5, 18, 9, 8, (3, 2), Geometry((2, 3), (1, 0))),
    "dilated": (1, 33, 7, 10, 9, (3, 3), Geometry((1, 2), (2, 3), (2, 2))),
    "padding beyond the kernel": (1, 3, 4, 2, 2, (1, 1), Geometry((1, 1), (2, 1))),
}


def weights(*shape, zeros=False):
    """Float weights; with zeros, some of them are."""
    w = torch.randn(shape, dtype=torch.float64)
    return torch.where(torch.rand(shape) < 0.3, torch.zeros_like(w), w) if zeros else w


def spikes(*shape, share=1.0, dtype=torch.float32):
    """Float spikes, negative ones too, of which `share` are not zero."""
    return (torch.randn(shape) * (torch.rand(shape) < share)).to(dtype)


def run(weight, g_out, scaled):
    """Binary weight and gradient of the weight."""
    weight = weight.detach().requires_grad_()
    out = binarize(weight, scaled)
    return out.detach(), torch.autograd.grad(out, weight, g_out)[0]


@EVERY
@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "bare"])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", WEIGHTS, ids=str)
def test_transform_equals_the_float64_reference(variant, shape, dtype, scaled):
    weight, g_out = (2 * weights(*shape, zeros=True)).to(dtype), torch.randn(shape).to(dtype)
    value, gradient = on_reference(run, weight.double(), g_out.double(), scaled)
    assert_same(run(weight, g_out, scaled), (value.to(dtype), gradient.to(dtype)), rtol=2 * torch.finfo(dtype).eps)


@EVERY
def test_transform_in_words(variant):
    """Mean |W| is detached, sign(0) = 0, the gradient passes from -1 to 1 with both ends, and is not scaled."""
    weight = torch.tensor([[-3.0, -1.0, 0.0, 1.0, 1.0 + 2**-20, 2.0]])
    value, gradient = run(weight, torch.arange(1.0, 7.0).view(1, 6), True)
    assert_same(value, weight.abs().mean() * torch.tensor([[-1.0, -1.0, 0.0, 1.0, 1.0, 1.0]]), rtol=1e-6)
    assert_same(gradient, torch.tensor([[0.0, 2.0, 3.0, 4.0, 0.0, 0.0]]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(variant, layout):
    weight, g_out = LAYOUTS[layout](weights(4, 3, 5, 7)), LAYOUTS[layout](torch.randn(4, 3, 5, 7).double())
    assert_same(run(weight, g_out, True), run(weight.contiguous(), g_out.contiguous(), True))


@pytest.mark.parametrize("zeros", [False, True], ids=["1 bit", "2 bits"])
@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (16, 64), (5, 40, 3, 2)], ids=str)
def test_unpacking_gives_the_signs_back(shape, zeros):
    weight = weights(*shape, zeros=zeros)
    weight.view(-1)[0] = 0.0 if zeros else 1.0
    packed = binary.pack(weight, scaled=False)
    assert packed.bits == (2 if zeros else 1)
    assert tuple(packed.words.shape) == binary.words_shape(packed.shape, packed.bits)
    assert_same(binary.unpack(packed), weight.sign().float())


def test_the_place_of_a_bit():
    """The format of the words is what files hold: output 17, tap 4 (kernel 2 by 3), input 33."""
    sign = torch.ones(20, 40, 2, 3)
    sign[17, 33, 1, 1] = -1
    for bits, word in ((1, (1, 4, 1, 1)), (2, (1, 4, 2, 1))):
        marked = reference.pack(sign, bits) - reference.pack(torch.ones_like(sign), bits)
        assert marked.nonzero().tolist() == [list(word)]
        assert marked[word] == (1 << 1 if bits == 1 else 2 << 2)


def assert_product(actual, x, packed, bias, product):
    """Within the bound of the float64 product with the unpacked weights."""
    weight = binary.unpack(packed).double()
    truth = product(x.double(), weight, None if bias is None else bias.double())
    size = product(x.double().abs(), weight.abs(), None if bias is None else bias.double().abs())
    tolerance = 16 * torch.finfo(torch.float32).eps * size + torch.finfo(x.dtype).eps * truth.abs()
    assert actual.dtype == x.dtype
    assert actual.shape == truth.shape
    assert ((actual.double() - truth).abs() <= tolerance).all()


@EVERY
@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "bare"])
@pytest.mark.parametrize("zeros", [False, True], ids=["1 bit", "2 bits"])
@pytest.mark.parametrize("dtype", SPIKES, ids=dtype_id)
@pytest.mark.parametrize("shape", LINEAR, ids=str)
def test_linear_equals_the_float64_product(variant, shape, dtype, zeros, scaled):
    packed = binary.pack(weights(*shape, zeros=zeros), scaled)
    bias = torch.randn(shape[0]) if scaled else None
    for batch, share in (((1,), 1.0), ((7,), 0.5), ((2, 35), 0.2), ((), 1.0), ((0,), 1.0)):
        x = spikes(*batch, shape[1], share=share, dtype=dtype)
        assert_product(packed_linear(x, packed, bias), x, packed, bias, F.linear)


@EVERY
@pytest.mark.parametrize("share", [1.0, 0.2], ids=["dense", "sparse"])
@pytest.mark.parametrize("zeros", [False, True], ids=["1 bit", "2 bits"])
@pytest.mark.parametrize("dtype", SPIKES, ids=dtype_id)
@pytest.mark.parametrize("case", CONVS)
def test_convolution_equals_the_float64_product(variant, case, dtype, zeros, share):
    n, inputs, outputs, height, width, kernel, geometry = CONVS[case]
    packed, bias = binary.pack(weights(outputs, inputs, *kernel, zeros=zeros)), torch.randn(outputs)
    product = lambda x, w, b: F.conv2d(x, w, b, *geometry)  # noqa: E731
    for layout in (torch.contiguous_format, torch.channels_last):
        x = spikes(n, inputs, height, width, share=share, dtype=dtype).contiguous(memory_format=layout)
        assert_product(packed_conv2d(x, packed, bias, geometry), x, packed, bias, product)


@CPU
@pytest.mark.parametrize("share", [1.0, 0.2], ids=["dense", "sparse"])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(variant, share):
    packed = binary.pack(weights(160, 200, 3, 3, zeros=True))
    x = spikes(5, 200, 11, 13, share=share)
    linear, flat = binary.pack(weights(333, 1500)), spikes(66, 1500, share=share)
    backends.cpu._cpu.choose_isa("generic")
    expected = packed_conv2d(x, packed), packed_linear(flat, linear)
    backends.cpu._cpu.choose_isa(variant.partition(":")[2])
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        assert_same((packed_conv2d(x, packed), packed_linear(flat, linear)), expected)


HOST = [v for v in VARIANTS if v.startswith("cuda-host")]


@pytest.mark.skipif(not HOST, reason="needs the headers of a CUDA toolkit")
@pytest.mark.parametrize("variant", HOST[:1], indirect=True)
def test_every_order_of_threads_gives_the_same_bits(variant):
    packed, x = binary.pack(weights(40, 70, 3, 3, zeros=True)), spikes(2, 70, 5, 6)
    linear, flat, weight = binary.pack(weights(70, 900)), spikes(3, 900), weights(5, 300).float()

    def results():
        return packed_conv2d(x, packed), packed_conv2d(x.half(), packed), packed_linear(flat, linear), binarize(weight)

    expected = results()
    for order in cuda_host.ORDERS.values():
        cuda_host.controls().gpuless_order(order)
        assert_same(results(), expected)


@EVERY
def test_words_may_start_at_any_address(variant):
    """Vectors of 16 bytes do not."""
    packed, x = binary.pack(weights(40, 70)), spikes(9, 70)
    words = torch.empty(packed.words.numel() + 1, dtype=torch.int32)[1:].view(packed.words.shape).copy_(packed.words)
    for rows in (1, 9):
        assert_same(packed_linear(x[:rows], packed._replace(words=words)), packed_linear(x[:rows], packed))


def test_a_spike_reaches_its_own_outputs_alone(variant):
    """One spike at a time gives the weights back, exactly."""
    packed = binary.pack(weights(19, 37, zeros=True))
    assert_same(packed_linear(torch.eye(37), packed).t().contiguous(), binary.unpack(packed))


def test_infinite_spikes(variant):
    packed = binary.pack(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    y = packed_linear(torch.tensor([[torch.inf, 1.0], [1.0, torch.nan]]), packed)
    assert y[0].tolist() == [torch.inf, -torch.inf]
    assert y[1].isnan().all()


@EVERY
def test_views_of_spikes(variant):
    packed, base = binary.pack(weights(20, 12, 3, 3)), spikes(2, 24, 9, 12)
    x = base[:, ::2, 1:, ::2]
    assert_same(packed_conv2d(x, packed), packed_conv2d(x.contiguous(), packed))
    linear = binary.pack(weights(20, 9))
    assert_same(packed_linear(base.transpose(2, 3), linear), packed_linear(base.transpose(2, 3).contiguous(), linear))


def test_compiled_equals_eager():
    layer = fastsnn.BinaryConv2d(5, 6, 3, padding=1)
    packed = fastsnn.deploy.pack(layer.eval())
    compiled = torch.compile(lambda x: (layer(x), packed(x.detach())), fullgraph=True, backend="aot_eager")
    x = spikes(2, 5, 6, 7)
    out, expected = compiled(x), (layer(x), packed(x))
    assert_same(out, expected)
    gradients = [torch.autograd.grad(y[0].sum(), layer.parameters()) for y in (out, expected)]
    assert_same(*gradients)


BAD = {
    "dtype": (lambda: packed_linear(spikes(2, 4).double(), binary.pack(weights(3, 4))), TypeError, "float64"),
    "inputs": (lambda: packed_linear(spikes(2, 5), binary.pack(weights(3, 4))), ValueError, "take"),
    "plane": (lambda: packed_conv2d(spikes(1, 2, 2, 2), binary.pack(weights(3, 2, 3, 3))), ValueError, "smaller"),
    "gradient": (
        lambda: packed_linear(spikes(2, 4).requires_grad_(), binary.pack(weights(3, 4))),
        RuntimeError,
        "inference",
    ),
    "bias": (lambda: packed_linear(spikes(2, 4), binary.pack(weights(3, 4)), torch.ones(4)), ValueError, "bias"),
    "words": (
        lambda: packed_linear(spikes(2, 4), Packed(torch.zeros(1, 1, 2, 16).int(), 1, torch.Size((3, 4)), None)),
        ValueError,
        "words",
    ),
    "NaN": (lambda: binary.pack(torch.tensor([[1.0, torch.nan]])), ValueError, "NaN"),
    "NaN in training": (lambda: binarize(torch.tensor([[1.0, torch.nan]])), ValueError, "NaN"),
    "integers": (lambda: binarize(torch.ones(2, 2, dtype=torch.int32)), TypeError, "int32"),
    "one dimension": (lambda: binary.pack(torch.ones(3)), ValueError, "shape"),
    "three dimensions": (lambda: binary.pack(torch.ones(3, 3, 3)), ValueError, "two-dimensional"),
    "fan-in beyond int32": (lambda: binary.pack(torch.empty(1, 2**31, device="meta")), ValueError, "2147483648"),
    "fan-in of a kernel": (lambda: binary.pack(torch.empty(1, 2**29, 2, 2, device="meta")), ValueError, "2147483648"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
