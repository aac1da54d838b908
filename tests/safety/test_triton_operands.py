"""A launch of Triton's kernels is refused as the native core's binding of the same name refuses it, word for word."""

import random

import pytest
import torch

import fastsnn
from fastsnn import backends

from . import calls, mutate

pytest.importorskip("triton")
core = pytest.importorskip("fastsnn._triton.core")
operands = pytest.importorskip("fastsnn._triton.operands")

needs_interpreter = pytest.mark.skipif(not core.INTERPRETED, reason="needs TRITON_INTERPRET=1")
CALLS = 2000


def verdict(function, arguments):
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def native(arguments):
    """The same call as the CPU core takes it: its parameters, and threads for the device."""
    return {name: getattr(value, "native", value) for name, value in arguments.items()} | {"where": 1}


def checked_alone(name):
    """Triton's launch of this name without what comes after the check."""
    return operands.checked(name, lambda call: None)


@pytest.fixture(scope="module")
def recorded():
    """Calls of every launch."""
    kernels = backends.REGISTRY["triton"].KERNELS
    with fastsnn.use_backend("triton"), calls.recorded(kernels) as made:
        calls.run_layers(torch.float32, n=19, stgr=False)
    return made


@needs_interpreter
@pytest.mark.slow
def test_mutated_launches_are_refused_as_the_native_binding_refuses_them(recorded):
    rng, refused, names = random.Random(0), 0, set()
    for _ in range(CALLS):
        name, arguments = mutate.mutated(recorded, rng, torch.Tensor.clone)
        if not device_kept(arguments):
            continue
        expected = verdict(getattr(fastsnn._cpu, name), native(arguments))
        assert verdict(checked_alone(name), arguments) == expected, (name, expected)
        if expected is not None:
            refused += 1
            names.add(name)
            assert verdict(getattr(core, name), arguments) == expected
    assert refused > CALLS // 4
    assert names == {name for name, _ in recorded}


def device_kept(arguments):
    """Whether the mutation left parameters and device as they were: these the two take differently."""
    return hasattr(arguments["where"], "idx") and hasattr(arguments.get("p"), "native") == ("p" in arguments)
