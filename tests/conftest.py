import pytest
import torch

import fastsnn
from fastsnn import backends

from .cases import BACKENDS, VARIANTS, poison


@pytest.fixture(autouse=True)
def _defaults():
    """Every test starts from one seed and leaves the thread count, the backend and the instruction set as they were."""
    threads, isa = torch.get_num_threads(), backends.cpu._cpu and backends.cpu._cpu.isa()
    torch.manual_seed(0)
    with fastsnn.use_backend(backends._forced):
        yield
    torch.set_num_threads(threads)
    if isa:
        backends.cpu._cpu.choose_isa(isa)


def _force(variant):
    name, _, isa = variant.partition("-")
    if isa:
        backends.cpu._cpu.choose_isa(isa)
    fastsnn.use_backend(name)
    return variant


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend that runs here is forced in turn."""
    return _force(request.param)


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Each backend that runs here under each of its instruction sets is forced in turn."""
    return _force(request.param)


@pytest.fixture
def poisoned(monkeypatch):
    """Fresh memory is NaN, so that an element no kernel wrote shows."""
    poison(monkeypatch)
