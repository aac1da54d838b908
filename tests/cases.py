"""What several test files share: configurations, inputs, layouts, comparison."""

import itertools

import pytest
import torch
from allpairspy import AllPairs

import fastsnn
from fastsnn import backends, surrogate
from fastsnn.types import RULES, state_dtype

from .gpuless import cuda_host, fake_device, toolkit

TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
# backend:variant, where a backend has several; `backend` takes the first of each
VARIANTS = [] if backends.cpu.refusal(torch.device("cpu")) else [f"cpu:{isa}" for isa in backends.cpu._cpu.isas()]
VARIANTS += [] if toolkit.lacks_cuda_headers() else [f"cuda-host:{order}" for order in cuda_host.ORDERS]
VARIANTS += [] if backends.triton.refusal(torch.device("cpu")) else ["triton"]
DEVICE = "cuda" if torch.cuda.is_available() else fake_device.NAME
ON_DEVICE = ["cuda:device", "triton:device"] if DEVICE == "cuda" else ["cuda:device"] if fake_device.is_there() else []
VARIANTS += ON_DEVICE
BACKENDS = list({variant.partition(":")[0]: variant for variant in reversed(VARIANTS)}.values())[::-1]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# neurons, dtype: vectors and tails; in half types a pair of threads shares 16 neurons
SIZES = [(n, torch.float32) for n in (0, 1, 2047, 2048, 2049, 40_013)]
SIZES += [(n, dtype) for n in (8, 2048, 2056) for dtype in DTYPES[1:]]
ONLINE = [rule for rule, traits in RULES.items() if traits.online]
# online rules whose spikes depend on the potential alone
OF_LIF = [rule for rule in ONLINE if not any(slot.drives for slot in RULES[rule].slots)]
TRACED = [rule for rule, traits in RULES.items() if traits.traced()]
RESETS = {"soft": None, "hard": 0.0, "hard0.25": 0.25}
SURROGATES = [surrogate.SURROGATES[name](1.5) for name in surrogate.SURROGATES]


def dtype_id(dtype):
    return str(dtype).removeprefix("torch.")


def resets_of(rule):
    return {"soft": None} if RULES[rule].soft_reset else RESETS


# every rule under every reset it allows; what its input is multiplied by, and its leak
NEURONS = {
    f"{rule}-{name}": {"rule": rule, "v_reset": v_reset} for rule in RULES for name, v_reset in resets_of(rule).items()
}
CHARGES = {
    f"{'decay' if decay else 'plain'}-tau{tau}": {"decay_input": decay, "tau": tau}
    for decay, tau in itertools.product((True, False), (2.0, 1.7))
}
TYPES = {dtype_id(dtype): dtype for dtype in DTYPES}


def configurations(rules=RULES, taus=(2.0, 1.7)):
    """Every rule under every reset it allows, with and without decay_input."""
    return [
        pytest.param(neuron | charge, id=f"{of_neuron}-{of_charge}")
        for of_neuron, neuron in NEURONS.items()
        for of_charge, charge in CHARGES.items()
        if neuron["rule"] in rules and charge["tau"] in taus
    ]


def pairs(**axes):
    """Decorator of a test: the fewest cases in which each value of an argument meets each of every other.

    axes: {argument: {id: value}}
    """
    chosen = AllPairs([[*values] for values in axes.values()])
    cases = [
        pytest.param(*(values[name] for values, name in zip(axes.values(), names, strict=True)), id="-".join(names))
        for names in chosen
    ]
    return pytest.mark.parametrize(tuple(axes), cases)


def current(*shape, dtype=torch.float32):
    """Input that fires often; a third of it lies on a coarse grid, so that u == th and u == 0 occur."""
    x = 1.5 * torch.randn(shape, dtype=torch.float64) + 0.3
    return torch.where(torch.rand(shape) < 1 / 3, (2 * x).round() / 2, x).to(dtype)


def dyadic(*shape, dtype=torch.float32):
    """Input on a grid on which float32 is exact for a few steps of tau = 2."""
    return torch.randint(-96, 160, shape).to(dtype) / 64


def _with_gaps(x):
    return torch.stack([x, x.neg()], -1)[..., 0]


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "channels_last": lambda x: x.movedim(-3, -1).contiguous().movedim(-1, -3),
    "time_inside": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "with_gaps": _with_gaps,
    "offset": lambda x: torch.cat([x[:1], x])[1:],
    "expanded": lambda x: x[..., :1].expand(x.shape),
    "expanded_first": lambda x: x[:1].expand(x.shape),
}


def keep_of(x):
    """A dropout mask for one step of x."""
    return (torch.rand(x.shape) < 0.7).to(state_dtype(x.dtype)) / 0.7


def steps(x, v=None, **kwargs):
    """lif_step over x [T, *]: spikes, v and trace of every step, and the rule's last other slots."""
    state, rows = {"v": v}, []
    for x_t in x:
        out = fastsnn.functional.lif_step(x_t, **state, **kwargs)
        state = {name: value for name, value in out._asdict().items() if name != "spikes"}
        rows.append(out)
    spikes, v, trace, *others = zip(*rows, strict=True)
    trace = None if trace[0] is None else torch.stack(trace)
    return type(out)(torch.stack(spikes), torch.stack(v), trace, *(other[-1] for other in others))


def sequence(x, **kwargs):
    return fastsnn.functional.lif_sequence(x, store_v_seq=True, **kwargs)


def on_reference(fn, *args, **kwargs):
    with fastsnn.use_backend("reference"):
        return fn(*args, **kwargs)


def compiled(net, backend="aot_eager", **kwargs):
    """net in one graph of torch.compile, or an error."""
    return torch.compile(net, fullgraph=True, backend=backend, **kwargs)


def in_a_graph(words, *before):
    """The pattern of an error inside a graph: torch older than 2.11 shows no words, or those of `before`."""
    return words if TORCH >= (2, 11) else "|".join((words, *before, "Observed exception"))


def graphs():
    """How many graphs were made since the fixture `no_graphs`."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def assert_same(actual, expected, rtol=0.0, atol=0.0, equal_nan=False):
    """Equal shape and dtype and, by default, exactly equal values; tuples and dicts are compared item by item."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        actual, expected = [actual[key] for key in expected], list(expected.values())
    if isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e, rtol, atol, equal_nan)
    elif not isinstance(expected, torch.Tensor):
        assert actual == expected
    else:
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan)
