"""Arguments at random: a result of the right shape or a Python error, never a crash."""

import contextlib

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsnn.functional import lif_sequence, lif_step, standardize
from fastsnn.types import RULES, state_dtype

FLOATING = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
DTYPES = st.sampled_from([*FLOATING, *FLOATING, torch.int32, torch.bool])
SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def tensors(draw, shapes=SHAPES, dtypes=DTYPES):
    """A tensor of any layout: contiguous, permuted, with gaps, expanded."""
    shape, dtype = draw(shapes), draw(dtypes)
    order = draw(st.permutations(range(len(shape))))
    gap, repeat = draw(st.sampled_from([1, 2])), draw(st.booleans())
    stored = [gap * shape[d] for d in order]
    if repeat and stored:
        stored[0] = 1
    x = (4 * torch.rand(stored) - 1).to(dtype).requires_grad_(dtype.is_floating_point and draw(st.booleans()))
    x = x[tuple(slice(None, None, gap) for _ in stored)].permute(sorted(range(len(shape)), key=order.__getitem__))
    return x.expand(shape)


@st.composite
def calls(draw):
    """x, and states that mostly fit one step of it."""
    x, sequence = draw(tensors()), draw(st.booleans())
    one = x.shape[1:] if sequence else x.shape
    fitting = tensors(st.just(tuple(one)), st.just(state_dtype(x.dtype)))
    state = st.one_of(st.none(), fitting, fitting, tensors())
    kwargs = {name: draw(state) for name in ("v", "trace", "ratio", "keep")}
    kwargs["rule"] = draw(st.sampled_from([*RULES]))
    kwargs["v_reset"] = draw(st.sampled_from([None, None, 0.0, 0.25]))
    return x, sequence, kwargs


@st.composite
def weights(draw):
    """A weight, and a gain that mostly fits it."""
    weight = draw(tensors())
    fitting = tensors(st.just((*weight.shape[:1], 1)), st.just(weight.dtype))
    return weight, draw(st.one_of(fitting, fitting, tensors()))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(calls())
def test_lif(call):
    x, sequence, kwargs = call
    out = None
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        out = (lif_sequence if sequence else lif_step)(x, **kwargs)
    if out is None:
        return
    one = x.shape[1:] if sequence else x.shape
    assert (out.spikes.shape, out.spikes.dtype) == (x.shape, x.dtype)
    assert (out.v.shape, out.v.dtype) == (one, state_dtype(x.dtype))
    assert (out.trace is None) == (not RULES[kwargs["rule"]].traced())
    if out.spikes.requires_grad:
        out.spikes.sum().backward()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(weights())
def test_standardize(operands):
    weight, out = operands[0], None
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        out = standardize(*operands)
    if out is None:
        return
    assert (out.shape, out.dtype) == (weight.shape, weight.dtype)
    if out.requires_grad:
        out.sum().backward()
