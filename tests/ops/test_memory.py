"""Who owns a tensor's memory."""

import pytest
import torch

from fastsnn.ops import memory


def test_a_fresh_tensor_has_one_owner():
    assert memory.is_sole_owner(torch.empty(3))


HOLDERS = {
    "view": lambda x: x.view(-1, 1),
    "slice": lambda x: x[:3],
    "detached": torch.Tensor.detach,
    "numpy": torch.Tensor.numpy,
}


@pytest.mark.parametrize("name", HOLDERS)
def test_whatever_else_holds_the_memory_counts(name):
    x = torch.zeros(3)
    holder = HOLDERS[name](x)
    assert not memory.is_sole_owner(x), holder
