"""Who owns a tensor's memory."""

import numpy as np
import pytest
import torch

from fastsnn.ops.common import memory


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


def mapped(tmp_path):
    path = tmp_path / "memory"
    path.write_bytes(bytes(12))
    return torch.from_file(str(path), shared=True, size=3)


def under_inference_mode(_):
    with torch.inference_mode():
        return torch.zeros(3)


TAKEN = {
    "numpy's": lambda _: torch.from_numpy(np.zeros(3)),
    "of a buffer": lambda _: torch.frombuffer(bytearray(12), dtype=torch.float32),
    "of a file": mapped,
    "shared with a fork": lambda _: torch.zeros(3).share_memory_(),
    "an inference tensor": under_inference_mode,
}


@pytest.mark.parametrize("name", TAKEN)
def test_memory_that_is_not_the_states_alone_is_not_free(name, tmp_path):
    assert memory.is_free(torch.zeros(3))
    assert not memory.is_free(TAKEN[name](tmp_path))
