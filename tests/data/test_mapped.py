"""Batches of map-style data: seeds, workers, padding, mixup."""

import math

import pytest
import torch
from torch.utils.data import Dataset

from fastsnn import LIF, data
from fastsnn.data import MapData
from fastsnn.errors import DataError
from fastsnn.online import Trainer, loss, train_batch

from . import files
from .test_events import cifar10_dvs

pytest.importorskip("torchvision", reason="pip install 'fastsnn[vision]'")


class Ragged(Dataset):
    """Sequences of i % 4 + 1 steps of three values."""

    def __init__(self, samples=9):
        self.samples = samples

    def __len__(self):
        return self.samples

    def __getitem__(self, index):
        if index >= self.samples:
            raise IndexError(index)
        return torch.full((index % 4 + 1, 3), index + 1.0), index % 2


def ragged(**options):
    return MapData("ragged", Ragged(), Ragged(5), 2, (3,), sequence=True, **options)


def test_pad_fills_with_zeros_and_tells_lengths():
    x, lengths = data.pad([torch.ones(2, 3), torch.ones(4, 3)])
    assert x.shape == (4, 2, 3)
    assert lengths.tolist() == [2, 4]
    assert x.sum((0, 2)).tolist() == [6, 12]
    assert (x[2:, 0] == 0).all()
    cut, lengths = data.pad([torch.ones(2, 3), torch.ones(4, 3)], 3)
    assert lengths.tolist() == [2, 3]
    assert torch.equal(cut, x[:3])
    for samples, steps in [([], None), ([torch.ones(2, 3)], 0)]:
        with pytest.raises(ValueError, match="must be at least 1"):
            data.pad(samples, steps)


def test_sequences_are_padded_to_the_longest_of_their_batch_or_to_T():
    of = ragged()
    assert of.sequential
    assert [tuple(x.shape) for x, _ in of.test_batches(None, 2)] == [(2, 2, 3), (4, 2, 3), (1, 1, 3)]
    batches = list(of.batches(of.train, 6, 4, torch.arange(9)))
    assert [tuple(batch.x.shape) for batch in batches] == [(6, 4, 3), (6, 4, 3), (6, 1, 3)]
    assert torch.cat([batch.lengths for batch in batches]).tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 1]


def augmented(tmp_path, **options):
    files.cifar10(tmp_path)
    return data.create("cifar10", root=tmp_path, augment=("crop", "flip", "autoaugment", "cutout", "mixup"), **options)


def test_augmentation_is_of_seed_and_sample_whatever_the_workers(tmp_path):
    of, workers = augmented(tmp_path), data.create("cifar10", root=tmp_path, augment=("crop", "mixup"), workers=2)
    order = torch.randperm(100)
    whole = list(of.train_batches(2, 30, order, seed=5))
    resumed = list(of.train_batches(2, 30, order[60:], seed=5))
    for (x, y), (x2, y2) in zip(whole[2:], resumed, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(whole[0][0], next(of.train_batches(2, 30, order, seed=6))[0])
    alone = data.create("cifar10", root=tmp_path, augment=("crop", "mixup"))
    pairs = zip(alone.train_batches(2, 30, order, 5), workers.train_batches(2, 30, order, 5), strict=True)
    assert all(torch.equal(x, x2) and torch.equal(y, y2) for (x, y), (x2, y2) in pairs)


def test_batches_leave_torchs_generator_as_it_was(tmp_path):
    of = augmented(tmp_path)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(of.train_batches(2, 30, torch.arange(100), seed=5))
    list(of.test_batches(2))
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (next(of.train_batches(2, 30, torch.arange(100)))[0] for _ in range(2))
    assert not torch.equal(first, second)


def test_mixup_mixes_images_and_shares_alike(tmp_path):
    files.cifar10(tmp_path)
    plain, mixed = (data.create("cifar10", root=tmp_path, augment=augment) for augment in ((), {"mixup": 0.5}))
    order = torch.arange(100)
    (x, y), (x_mixed, shares) = (next(of.train_batches(2, 10, order, seed=3)) for of in (plain, mixed))
    assert shares.shape == (10, 10)
    torch.testing.assert_close(shares.sum(1), torch.ones(10))
    share = shares[0, y[0]]
    assert 0 < share < 1
    torch.testing.assert_close(x_mixed[0], share * x[0] + (1 - share) * x[0].roll(1, 0))
    assert next(mixed.test_batches(2))[1].dtype == torch.int64


def test_mixed_labels_train(tmp_path):
    files.cifar10(tmp_path)
    of = data.create("cifar10", root=tmp_path, augment=("mixup",))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    x, shares = next(of.train_batches(2, 10, torch.arange(100), seed=3))
    result = train_batch(net, x, shares, torch.optim.SGD(net.parameters(), 1e-3))
    assert result.samples == 10
    assert 0 <= result.correct <= 10


@pytest.mark.parametrize("name", ["cifar10", "cifar10-dvs", "shd"])
def test_sets_train_and_evaluate(tmp_path, name):
    pytest.importorskip("h5py")
    files.cifar10(tmp_path)
    cifar10_dvs(tmp_path)
    for split in ("train", "test"):
        files.spikes(tmp_path / "SHD" / f"shd_{split}.h5", 20)
    of = data.create(name, root=tmp_path, steps=10)
    torch.manual_seed(0)
    hidden = torch.nn.LazyLinear(8)
    net = torch.nn.Sequential(torch.nn.Flatten(), hidden, LIF(rule="ottt"), torch.nn.Linear(8, of.classes))
    net[1](torch.zeros(1, math.prod(of.shape)))
    trainer = Trainer(net, torch.optim.SGD(net.parameters(), 0.01))
    before = hidden.weight.clone()
    samples = sum(trainer.train_batch(x, y).samples for x, y in of.train_batches(10, 8, torch.arange(of.train_samples)))
    assert samples == of.train_samples
    assert not torch.equal(hidden.weight, before)
    assert trainer.evaluate(of.test_batches(10)).samples == of.test_samples


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_of_shares_is_the_mixture_of_losses(dtype):
    logits, y = torch.randn(8, 5, dtype=dtype), torch.randint(5, (2, 8))
    first, second = torch.nn.functional.one_hot(y, 5).float()
    torch.testing.assert_close(loss(logits, first, 4), loss(logits, y[0], 4))
    mixed, parts = loss(logits, 0.3 * first + 0.7 * second, 4, mse=0), [loss(logits, one, 4, mse=0) for one in y]
    torch.testing.assert_close(mixed, 0.3 * parts[0] + 0.7 * parts[1])
    shares = 0.3 * first + 0.7 * second
    torch.testing.assert_close(loss(logits, shares, 4, mse=1.0), ((logits - shares) ** 2).mean().to(dtype) / 4)


def test_hits_of_shares_count_the_larger_share():
    shares = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.6, 0.4]])
    net = torch.nn.Identity()
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]], requires_grad=True)
    assert train_batch(net, logits[None], shares, torch.optim.SGD([logits], 0.0)).correct == 2


def test_steps_that_the_set_has_not_are_refused(tmp_path):
    with pytest.raises(DataError, match="ragged was made with T = 5 steps and its batches shall have 6"):
        next(ragged(steps=5).test_batches(6))
    images = MapData("still", Ragged(), Ragged(), 2, (3,))
    with pytest.raises(DataError, match="still has images and steps is None"):
        next(images.test_batches(None))


def test_mixup_of_sequences_is_refused():
    with pytest.raises(DataError, match="ragged: mixup mixes images"):
        ragged(mixup=1.0)


class Wrong(Ragged):
    def __init__(self, sample):
        super().__init__()
        self.sample = sample

    def __getitem__(self, index):
        return self.sample if index == 4 else super().__getitem__(index)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (torch.ones(2, 3), "is a Tensor; it must be a pair"),
        ((torch.ones(2, 4), 0), r"has shape \[2, 4\]; a step of this set has \[3\]"),
        ((torch.ones(0, 3), 0), r"has shape \[0, 3\]"),
        ((torch.ones(2, 3), 2), "labels from 2 to 2 and the set has 2 classes"),
        ((torch.ones(2, 3), -1), "labels from -1 to -1"),
        ((torch.ones(2, 3), 1.0), "labels of torch.float32"),
        ((torch.ones(2, 3), "cat"), "labels that are no integers"),
    ],
    ids=["no pair", "shape", "empty", "class", "negative", "float", "name"],
)
def test_a_sample_that_does_not_fit_is_named(sample, said):
    of = MapData("wrong", Wrong(sample), Ragged(), 2, (3,), sequence=True)
    with pytest.raises(DataError, match=f"^sample 4 of wrong.*{said}"):
        list(of.train_batches(4, 3, torch.arange(9)))
