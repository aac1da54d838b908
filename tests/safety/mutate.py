"""`python -m tests.safety.mutate cpu 100000`: mutated calls of every binding and operator, each operand between pages
that nothing may touch. A process that ends by a signal, or an error that is no refusal, is a fault.

Arguments: what to call (cpu, cuda-host, triton or operators), how many calls, the seed (0), and the flavour (plain;
address: under AddressSanitizer and UndefinedBehaviorSanitizer, on plain memory).
"""

import faulthandler
import random
import resource
import sys

import torch

import fastsnn
from fastsnn.ops.common.layout import is_dense

from . import calls, sanitized
from .guarded import guarded

REFUSALS = (TypeError, ValueError, RuntimeError, IndexError, MemoryError, OverflowError)
# of calls on a core of another build, whose parameters are another type
NEURON = {"leak": 0.5, "gain": 1.0, "bias": 0.0, "threshold": 1.0, "v_reset": 0.0, "reset_grad": 1.0}
NEURON |= {"height": 1.0, "slope": 4.0, "reset": 0, "rule": 1, "surrogate": 0, "of_rule": ()}
MEMORY = 8 << 30  # bytes: a mutated number of steps may ask for more than a machine has, which must be an error
NUMBERS = (-1, 0, 1, 2, 3, 7, 99, 2**31, 2**40, 2**62, 2**63 - 1)


class Address:
    """Only looks like a tensor."""

    def data_ptr(self):
        return 16


def _shorter(t, rng):
    return t.flatten()[: rng.choice((0, 1, t.numel() // 2, t.numel() - 1))].clone()


def _other_dtype(t, rng):
    return t.to(rng.choice((torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool)))


def _strided(t, rng):
    return torch.stack([t, t], -1)[..., 0]


def _expanded(t, rng):
    return t.flatten()[:1].expand(t.shape) if t.numel() else t


def _misaligned(t, rng):
    size = t.numel() * t.element_size()
    return torch.frombuffer(bytearray(size + 1), dtype=t.dtype, count=t.numel(), offset=1) if size else t


TENSORS = (
    *(_shorter,) * 4,
    lambda t, rng: torch.cat([t.flatten()] * 2),
    *(_other_dtype,) * 2,
    _strided,
    _expanded,
    _misaligned,
    lambda t, rng: t.reshape(-1),
    lambda t, rng: t.t().contiguous().t() if t.dim() == 2 else t,
    lambda t, rng: t.unsqueeze(0),
    lambda t, rng: t.to("meta"),
    lambda t, rng: t.clone().requires_grad_() if t.is_floating_point() else t,
    lambda t, rng: t.to_sparse(),
    lambda t, rng: torch.full_like(t, 2).bool().to(t.dtype) * rng.choice((float("nan"), float("inf"), -1e30)),
    lambda t, rng: None,
    lambda t, rng: rng.choice((4096, [1.0], "x", Address(), t.numpy if hasattr(t, "numpy") else 0)),
)


def _other(value, rng, pool):
    """Something else in place of an argument."""
    if isinstance(value, torch.Tensor):
        try:
            return rng.choice(TENSORS)(value.detach(), rng) if rng.random() < 0.8 else rng.choice(pool)
        except (RuntimeError, TypeError):  # torch cannot do that to it
            return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((*NUMBERS, value + 1, value - 1, 2 * value))
    if isinstance(value, float):
        return rng.choice((float("nan"), float("inf"), -value, 0.0, 1e300))
    if isinstance(value, (list, tuple, torch.Size)) and value:
        changed = list(value)
        at = rng.randrange(len(changed))
        changed[at] = _other(changed[at], rng, pool)
        return type(value)(changed) if type(value) in (list, tuple) else changed
    if value is None:
        return rng.choice(pool)
    if isinstance(value, torch.dtype):
        return rng.choice(calls.DTYPES)
    return value


def _owned(value, place):
    """The argument; a dense tensor, also in a tuple, in memory of its own."""
    if type(value) is tuple:
        return tuple(_owned(part, place) for part in value)
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return value
    aligned = value.numel() > 0 and value.data_ptr() % value.element_size() == 0
    return place(value) if aligned and is_dense(value) else value


def mutated(recorded, rng, place):
    """One recorded call with one to three of its arguments changed, in memory of its own. Arguments: by name, or a
    tuple of them."""
    function, arguments = rng.choice(recorded)
    changed = dict(arguments) if isinstance(arguments, dict) else dict(enumerate(arguments))
    pool = [value for value in changed.values() if isinstance(value, torch.Tensor)] + [None]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.choice([*changed])
        changed[at] = _other(changed[at], rng, pool)
    owned = {at: _owned(value, place) for at, value in changed.items()}
    return function, owned if isinstance(arguments, dict) else [*owned.values()]


def target(name, flavour):
    """Recorded calls, and what makes one."""
    if name == "operators":
        return calls.of_operators(), lambda operator, arguments: operator(*arguments)
    if name == "cuda-host":
        from ..gpuless import cuda_host

        fastsnn.backends.REGISTRY[name] = backend = cuda_host.Backend()
        core = cuda_host.core(flavour)
    else:
        backend = fastsnn.backends.REGISTRY[name]
        core = sanitized.core() if flavour != "plain" else backend.KERNELS["lif"]._core
    with fastsnn.use_backend(name):
        recorded = calls.of_core(backend.KERNELS)
    params = {}

    def call(binding, arguments):
        if flavour != "plain" and isinstance(arguments.get("p"), fastsnn._cpu.LifParams):
            arguments["p"] = params.setdefault(arguments["p"], core.LifParams(**NEURON))
        getattr(core, binding)(**arguments)

    return recorded, call


def main(name, count, seed=0, flavour="plain"):
    faulthandler.enable()
    if flavour == "plain":
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    recorded, call = target(name, flavour)
    ran = 0
    for i in range(count):
        at_end = rng.random() < 0.8
        place = (lambda value: guarded(value, at_end)) if flavour == "plain" else torch.Tensor.clone  # noqa: B023
        function, arguments = mutated(recorded, rng, place)
        try:
            call(function, arguments)
            ran += 1
        except REFUSALS as error:
            if not str(error):
                raise RuntimeError(f"call {i} of {function} was refused without a word") from error
    names = {str(function) for function, _ in recorded}
    print(f"{count} mutated calls of {len(names)} functions: {ran} ran, {count - ran} were refused")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:4]), *sys.argv[4:5])
