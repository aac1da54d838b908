"""EM-PF versions I, II and III: every backend against the reference."""

import pytest
import torch

import fastsnn
from fastsnn import backends
from fastsnn.functional import empf_norm_step, empf_sequence, empf_step
from fastsnn.types import state_dtype

from ..cases import DTYPES, LAYOUTS, assert_same, current, dtype_id, on_reference

pytestmark = pytest.mark.usefixtures("poisoned", "has_kernels")

C = 5
SHARING = {"shared": (), "per_channel": (C,)}
SHAPES = [(3, C, 7, 11), (1, C, 64, 70), (2, C, 1), (700, C), (2, C, 0, 3)]
# sums are in double everywhere: gradients of parameters differ by the order of their sums and by one rounding
SUMS = {
    torch.float32: {"rtol": 2e-6, "atol": 2e-5},
    torch.float64: {"rtol": 1e-11, "atol": 1e-10},
    torch.bfloat16: {"rtol": 2e-6, "atol": 2e-5},
    torch.float16: {"rtol": 2e-6, "atol": 2e-5},
}
# version II: the statistics are double and rounded once; what follows may differ by some roundings of the state's type
NORMALISED = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-11, "atol": 1e-11},
    torch.bfloat16: {"rtol": 2**-7, "atol": 1e-5},
    torch.float16: {"rtol": 2**-10, "atol": 1e-5},
}


@pytest.fixture
def has_kernels(request):
    """Skips a backend that has no kernels of the family, by its own words."""
    name = next(
        (request.getfixturevalue(n).partition(":")[0] for n in ("variant", "backend") if n in request.fixturenames),
        None,
    )
    refusal = name and backends.refusal("empf", name, torch.empty(0).device)
    if refusal:
        pytest.skip(refusal)


def parameter(*shape, low=0.2):
    return low + torch.rand(shape)


def trained(fn, x, parameters, g=None):
    """What fn returns, and the gradients of x and of the parameters."""
    x = x.detach().requires_grad_()
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    out = fn(x, **leaves)
    g = torch.ones_like(out.spikes) if g is None else g
    gradients = torch.autograd.grad(out.spikes, (x, *leaves.values()), g, allow_unused=True)
    return [value if value is None else value.detach() for value in out], gradients[0], list(gradients[1:])


def sequence_of(version):
    if version == "I":
        return empf_sequence
    return lambda x, threshold, **_: empf_sequence(x, leak=None, threshold=threshold)


def norm_parameters(sharing, channels=C):
    shape = SHARING[sharing]
    names = ("leak", "threshold", "alpha", "beta")
    return {
        **{name: parameter(*shape) for name in names},
        "weight": parameter(channels),
        "bias": torch.randn(channels),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("version", ["I", "III"])
def test_i_and_iii_equal_the_reference(variant, version, sharing, shape, dtype):
    x, g = current(4, *shape, dtype=dtype), torch.randn(4, *shape).to(dtype)
    parameters = {name: parameter(4, *SHARING[sharing]) for name in ("leak", "threshold")}
    fn = sequence_of(version)
    out, g_x, sums = trained(fn, x, parameters, g)
    expected, expected_g_x, expected_sums = on_reference(trained, fn, x, parameters, g)
    assert_same(out, expected)
    assert_same(g_x, expected_g_x)
    assert_same(sums, expected_sums, **SUMS[dtype])
    with torch.no_grad():
        assert_same(fn(x, **parameters), tuple(expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if 0 not in shape], ids=str)
@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("running", [False, True], ids=["batch", "running"])
def test_ii_equals_the_reference(variant, running, sharing, shape, dtype):
    x, g = current(*shape, dtype=dtype), torch.randn(shape).to(dtype)
    statistics = (torch.randn(C), parameter(C)) if running else None
    v = torch.rand(shape, dtype=state_dtype(dtype))
    parameters = norm_parameters(sharing)
    fn = lambda x, **p: empf_norm_step(x, v, **p, running=statistics)  # noqa: E731
    out, g_x, sums = trained(fn, x, parameters, g)
    expected, expected_g_x, expected_sums = on_reference(trained, fn, x, parameters, g)
    assert_same(out[0], expected[0], **NORMALISED[dtype])
    assert_same(out[1:], expected[1:], rtol=1e-6, atol=1e-6)
    assert_same(g_x, expected_g_x, **NORMALISED[dtype])
    assert_same(sums, expected_sums, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("running", [False, True], ids=["batch", "running"])
def test_ii_with_alpha_1_and_beta_0_is_i_exactly(variant, running, dtype):
    x, g = current(3, C, 7, 11, dtype=dtype), torch.randn(3, C, 7, 11).to(dtype)
    v = torch.rand(x.shape, dtype=state_dtype(dtype))
    common = {"leak": parameter(), "threshold": parameter()}
    extra = {"alpha": torch.ones(()), "beta": torch.zeros(()), "weight": parameter(C), "bias": torch.randn(C)}
    statistics = (torch.randn(C), parameter(C)) if running else None
    normed = trained(lambda x, **p: empf_norm_step(x, v, **p, running=statistics), x, {**common, **extra}, g)
    vanilla = trained(lambda x, **p: empf_step(x, v, **p), x, common, g)
    assert_same(normed[0][:2], vanilla[0])
    assert_same(normed[1], vanilla[1])
    assert_same(normed[2][:2], vanilla[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("version", ["I", "III"])
@pytest.mark.parametrize("sharing", SHARING)
def test_a_sequence_equals_its_steps(variant, sharing, version):
    x = current(4, 3, C, 7, 11)
    leak, threshold = (parameter(4, *SHARING[sharing]) for _ in range(2))
    v, rows = None, []
    for t in range(4):
        out = empf_step(x[t], v, leak=leak[t] if version == "I" else None, threshold=threshold[t])
        rows.append(out.spikes)
        v = out.v
    whole = sequence_of(version)(x, leak=leak, threshold=threshold)
    assert_same(whole.spikes, torch.stack(rows))
    assert_same(whole.v, v)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sharing", SHARING)
def test_layout_of_input_and_gradient(backend, sharing, layout):
    x, g = current(3, 2, C, 6, 7), torch.randn(3, 2, C, 6, 7)
    parameters = {name: parameter(3, *SHARING[sharing]) for name in ("leak", "threshold")}
    expected = on_reference(trained, empf_sequence, LAYOUTS[layout](x).contiguous(), parameters, g)
    actual = trained(empf_sequence, LAYOUTS[layout](x), parameters, LAYOUTS["transposed"](g))
    assert_same(actual[:2], expected[:2])
    assert_same(actual[2], expected[2], **SUMS[torch.float32])


@pytest.mark.parametrize("v_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_the_potential(backend, layout, v_layout):
    x, v = LAYOUTS[layout](current(2, C, 6, 7)), LAYOUTS[v_layout](torch.rand(2, C, 6, 7))
    parameters = {"leak": parameter(C), "threshold": parameter(C)}
    assert_same(empf_step(x, v, **parameters), on_reference(empf_step, x.contiguous(), v.contiguous(), **parameters))
    parameters = norm_parameters("per_channel")
    expected = on_reference(empf_norm_step, x.contiguous(), v.contiguous(), **parameters)
    assert_same(empf_norm_step(x, v, **parameters), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sharing", SHARING)
def test_one_and_two_threads_give_the_same_bits_every_time(backend, sharing, channels_last):
    x, g = current(2, 3, C, 90, 91), torch.randn(2, 3, C, 90, 91)
    x = LAYOUTS["channels_last"](x) if channels_last else x
    vanilla = {name: parameter(2, *SHARING[sharing]) for name in ("leak", "threshold")}
    normed, runs = norm_parameters(sharing), []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        runs.append((trained(empf_sequence, x, vanilla, g), trained(empf_norm_step, x[0], normed, g[0])))
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])


@pytest.mark.parametrize("version", ["I", "III"])
def test_equality_fires_and_its_gradient_flows(variant, version):
    x = torch.tensor([[1.0, 1.0 - 2**-24, 1.5]])
    parameters = {"leak": torch.zeros(1), "threshold": torch.ones(1)}
    out, g_x, gradients = trained(sequence_of(version), x, parameters)
    assert out[0].tolist() == [[0.0, 0.0, 0.5]]
    assert g_x.tolist() == [[1.0, 0.0, 1.0]]
    assert gradients[1].tolist() == [-2.0]


def test_nan_shows_in_the_spikes_and_stays_where_it_is(variant):
    x = current(2, 3, C, 41)
    parameters = {"leak": parameter(2, C), "threshold": parameter(2, C)}
    clean = empf_sequence(x, **parameters).spikes
    x[0, 0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    parameters["threshold"][1, 3] = torch.nan
    spikes = empf_sequence(x, **parameters).spikes
    assert_same(spikes, on_reference(empf_sequence, x, **parameters).spikes, equal_nan=True)
    assert spikes[0, 0, 0, 0].isnan()
    assert spikes[1, :, 3].isnan().all()
    assert_same(spikes[:, 1:, :3], clean[:, 1:, :3])


def test_a_large_mean_does_not_cancel_in_the_variance(variant):
    x = 1e4 + torch.randn(8, C, 30, 31)
    parameters = {**norm_parameters("shared"), "leak": torch.zeros(())}
    out = empf_norm_step(x, **parameters)
    wide = x.double()
    assert_same(out.mean, wide.mean((0, 2, 3)), rtol=1e-12)
    assert_same(out.var, wide.var((0, 2, 3), correction=0), rtol=1e-9)


def test_the_reference_is_what_runs_when_it_is_forced():
    with fastsnn.use_backend("reference"):
        assert backends.select("empf", torch.empty(0)).NAME == "reference"
