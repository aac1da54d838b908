"""The PTX that nvcc makes of the CUDA core, launched by the core's own host code, against the reference."""

import pytest
import torch

from fastsnn import surrogate
from fastsnn.functional import lif_sequence, standardize

from ..cases import DTYPES, RULES, assert_same, current, dtype_id, keep_of, on_reference, sequence, steps
from . import cuda_host, cuda_ptx, toolkit

REASON = toolkit.lacks_nvcc() or toolkit.lacks_cuda_headers()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

VECTORS, RAGGED = 2056, 1031  # neurons: whole vectors of every dtype and a second block; neither
HARD = [(rule, v_reset) for rule in RULES for v_reset in (None, 0.25) if v_reset is None or not RULES[rule].soft_reset]


@pytest.fixture(params=cuda_host.ORDERS)
def order(request):
    return cuda_host.ORDERS[request.param]


@pytest.fixture(autouse=True)
def _forced(order):
    """Every test runs on PTX, and launches at least one kernel."""
    with cuda_ptx.running(order) as launched:
        yield
    assert launched


@pytest.mark.parametrize("n", [VECTORS, RAGGED])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize(("rule", "v_reset"), HARD)
def test_forward(rule, v_reset, dtype, n):
    x = current(3, n, dtype=dtype)
    config = {"rule": rule, "v_reset": v_reset}
    assert_same(steps(x, **config), on_reference(steps, x, **config))
    config["keep"] = keep_of(x[0])
    assert_same(sequence(x, **config), on_reference(sequence, x, **config))


def gradient(x, g, **config):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(lif_sequence(x, **config).spikes, x, g)


@pytest.mark.parametrize("n", [VECTORS, RAGGED])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
@pytest.mark.parametrize("v_reset", [None, 0.25])
@pytest.mark.parametrize("rule", ["bptt", "sltt"])
def test_backward(rule, v_reset, dtype, n):
    x, g = current(3, n, dtype=dtype), torch.randn(3, n).to(dtype)
    config = {"rule": rule, "v_reset": v_reset, "surrogate_function": surrogate.Triangle(2.0)}
    assert_same(gradient(x, g, **config), on_reference(gradient, x, g, **config))


@pytest.mark.parametrize("cols", [64, 39])
def test_standardize(cols):
    weight, gain, g = torch.randn(5, cols).requires_grad_(), torch.rand(5, 1).requires_grad_(), torch.randn(5, cols)

    def run():
        out = standardize(weight, gain)
        return (out.detach(), *torch.autograd.grad(out, (weight, gain), g))

    assert_same(run(), on_reference(run), rtol=2e-7, atol=1e-7)


def test_changed_instruction_is_noticed(monkeypatch):
    changed = [text.replace("sub.rn.f32", "add.rn.f32") for text in cuda_ptx.texts()]
    monkeypatch.setattr(cuda_ptx, "texts", lambda: changed)
    x = current(3, RAGGED)
    with pytest.raises(AssertionError, match="not equal"):
        assert_same(sequence(x, v_reset=None), on_reference(sequence, x, v_reset=None))
