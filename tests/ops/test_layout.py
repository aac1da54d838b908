"""Which tensors a kernel may read as flat memory."""

import pytest
import torch

from fastsnn.ops.common import layout

from ..cases import LAYOUTS, assert_same

DENSE = ("contiguous", "transposed", "channels_last", "time_inside", "offset")


@pytest.mark.parametrize("name", LAYOUTS)
def test_is_dense(name):
    assert layout.is_dense(LAYOUTS[name](torch.rand(3, 2, 8, 5, 7))) == (name in DENSE)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 5, 1)], ids=str)
def test_small_shapes_are_dense(shape):
    assert layout.is_dense(torch.rand(shape))


def test_strides_of_dimensions_of_size_one_do_not_count():
    assert layout.is_dense(torch.rand(4, 7).as_strided((4, 1, 7), (7, 1000, 1)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_dense_keeps_the_values_and_copies_only_where_it_must(name):
    x = LAYOUTS[name](torch.rand(3, 2, 8, 5, 7))
    out = layout.dense(x)
    assert_same(out, x)
    assert layout.is_dense(out)
    assert (out.data_ptr() == x.data_ptr()) == (name in DENSE)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_dense_sequence_has_its_steps_one_after_another(name):
    x = LAYOUTS[name](torch.rand(3, 2, 8, 5, 7))
    out = layout.dense(x, sequence=True)
    assert_same(out, x)
    assert out.stride(0) == out[0].numel()
    assert layout.is_dense(out[0])


@pytest.mark.parametrize("model", DENSE)
@pytest.mark.parametrize("name", LAYOUTS)
def test_like_takes_the_order_of_the_model(name, model):
    x, model = (LAYOUTS[n](torch.rand(3, 2, 8, 5, 7)) for n in (name, model))
    out = layout.like(x, model)
    assert_same(out, x)
    assert out.stride() == model.stride()


@pytest.mark.parametrize("model", DENSE[:3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_step_of_sequence_like_has_the_order_of_the_model(name, model):
    x, model = LAYOUTS[name](torch.rand(3, 2, 8, 5, 7)), LAYOUTS[model](torch.rand(2, 8, 5, 7))
    out = layout.sequence_like(x, model)
    assert_same(out, x)
    assert out.stride() == (model.numel(), *model.stride())
