"""The digits."""

import sys

import pytest
import torch

from fastsnn import data

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_digits_are_split_alike_and_standardised():
    digits = data.load("digits")
    assert (len(digits.train_y), len(digits.test_y)) == (1437, 360)
    assert digits.train_x.shape[1:] == (1, 8, 8)
    assert abs(digits.train_x.mean()) < 1e-4
    assert abs(digits.train_x.std() - 1) < 1e-3
    shares = torch.bincount(digits.test_y) / torch.bincount(digits.train_y)
    torch.testing.assert_close(shares, torch.full((10,), 0.25), atol=0.02, rtol=0)
    assert torch.equal(digits.test_x, data.load("digits").test_x)


def test_sequential_digits_show_one_row_a_step():
    images, rows = data.load("digits"), data.load("sequential-digits")
    steps = rows.steps(rows.train_x[:5], 8)
    assert steps.shape == (8, 5, 8)
    assert torch.equal(steps[2], images.train_x[:5, 0, 2])


@pytest.mark.parametrize("name", data.DATASETS)
def test_batches_cover_the_split_in_order(name):
    digits = data.load(name)
    order = torch.randperm(len(digits.train_y))
    batches = list(digits.train_batches(8, 100, order))
    assert torch.equal(torch.cat([y for _, y in batches]), digits.train_y[order])
    assert all(len(x) == 8 for x, _ in batches)
    assert torch.equal(torch.cat([y for _, y in digits.test_batches(8)]), digits.test_y)


def test_unknown_data_set_is_named():
    with pytest.raises(ValueError, match="data is 'mnist'; allowed: digits"):
        data.load("mnist")


def test_without_scikit_learn_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'fastsnn\[train\]'"):
        data.load("digits")
