"""CIFAR, Fashion-MNIST and folders of ImageNet, from small files in their formats."""

import os
import pickle

import numpy as np
import pytest
import torch

from fastsnn import data
from fastsnn.errors import DataError

from . import files

pytest.importorskip("torchvision", reason="pip install 'fastsnn[vision]'")


def first_images(of, count):
    """Test images without normalisation, back as uint8."""
    normalise = of.test.transform.transforms[-1]
    std, mean = (torch.tensor(v)[:, None, None] for v in (normalise.std, normalise.mean))
    return torch.stack([(of.test[i][0] * std + mean) * 255 for i in range(count)]).round().byte()


def test_cifar10_is_what_its_files_hold(tmp_path):
    parts = files.cifar10(tmp_path)
    of = data.create("cifar10", root=tmp_path, augment=())
    assert (of.train_samples, of.test_samples, of.classes, of.shape) == (100, 20, 10, (3, 32, 32))
    assert torch.equal(of.train.x, torch.from_numpy(np.concatenate([images for images, _ in parts])))
    assert torch.equal(of.train.targets, torch.arange(20).repeat(5) % 10)
    assert torch.equal(first_images(of, 20), of.test.x)


def test_cifar100_has_its_fine_labels(tmp_path):
    files.cifar100(tmp_path)
    of = data.create("cifar100", root=tmp_path)
    assert of.classes == 100
    assert torch.equal(of.train.targets, torch.arange(200) % 100)


def test_batches_show_an_image_at_every_step(tmp_path):
    files.cifar10(tmp_path)
    of = data.create("cifar10", root=tmp_path, augment=())
    x, y = next(of.train_batches(6, 8, torch.arange(100).flip(0)))
    assert x.shape == (6, 8, 3, 32, 32)
    assert x.stride(0) == 0
    assert torch.equal(x[3, 2], of.train[97][0])
    assert torch.equal(y, of.train.targets[92:].flip(0))
    assert torch.equal(torch.cat([y for _, y in of.test_batches(2, 7)]), of.test.targets)


class Touch:
    """What a hostile pickle does when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_is_refused_before_it_runs(tmp_path, protocol):
    files.cifar10(tmp_path)
    hostile = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    hostile.write_bytes(pickle.dumps({"data": Touch(tmp_path / "touched"), "labels": []}, protocol=protocol))
    with pytest.raises(DataError, match=r"data_batch_3 is no readable batch.*mkdir, and only arrays are read"):
        data.create("cifar10", root=tmp_path)
    assert not (tmp_path / "touched").exists()


def test_a_pickle_of_python_2_is_read(tmp_path):
    """CIFAR's files are of Python 2: strings of bytes, and numpy's old module names."""
    files.cifar10(tmp_path)
    old = tmp_path / "cifar-10-batches-py" / "test_batch"
    new = pickle.dumps({"data": np.full((2, 3072), 7, np.uint8), "labels": [3, 4]}, protocol=2)
    old.write_bytes(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    of = data.create("cifar10", root=tmp_path)
    assert of.test.targets.tolist() == [3, 4]
    assert (of.test.x == 7).all()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_truncated_cifar_is_refused(tmp_path, kept):
    files.cifar10(tmp_path)
    cut = tmp_path / "cifar-10-batches-py" / "data_batch_5"
    cut.write_bytes(cut.read_bytes()[: int(kept * cut.stat().st_size)])
    with pytest.raises(DataError, match=r"data_batch_5 is no readable batch of CIFAR.*unpack the archive again"):
        data.create("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"labels": list(range(20))}, "labels from 0 to 19 and the set has 10 classes"),
        ({"labels": [0] * 19}, r"20 images and \[19\] labels"),
        ({"labels": 3}, r"20 images and \[\] labels"),
        ({"labels": [[0]] * 20}, r"20 images and \[20, 1\] labels"),
        ({"labels": [0.5] * 20}, "labels of torch.float32; they must be integers"),
        ({"labels": ["cat"] * 20}, "labels that are no integers"),
        ({"data": np.zeros((20, 784), np.uint8)}, r"images of uint8 \[20, 784\]; expected uint8 \[N, 3072\]"),
        ({"data": np.zeros((20, 3072), np.float32)}, "images of float32"),
        ({"data": [1, 2]}, "images of list"),
    ],
    ids=["classes", "counts", "number", "nested", "floats", "names", "shape", "dtype", "list"],
)
def test_foreign_cifar_is_refused(tmp_path, entries, said):
    files.cifar10(tmp_path)
    files.cifar_batch(tmp_path / "cifar-10-batches-py" / "test_batch", 20, 10, **entries)
    with pytest.raises(DataError, match=f"test_batch.*{said}"):
        data.create("cifar10", root=tmp_path)


def test_cifar100_under_the_name_of_cifar10_is_refused(tmp_path):
    files.cifar10(tmp_path)
    files.cifar_batch(tmp_path / "cifar-10-batches-py" / "data_batch_1", 20, 10, "fine_labels")
    with pytest.raises(DataError, match="expected data and labels: it is another data set's"):
        data.create("cifar10", root=tmp_path)


def test_a_missing_file_of_cifar_is_named(tmp_path):
    files.cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(DataError, match="data_batch_2 is missing"):
        data.create("cifar10", root=tmp_path)


def test_fashion_mnist_is_what_its_files_hold(tmp_path):
    files.fashion_mnist(tmp_path)
    of = data.create("fashion-mnist", root=tmp_path)
    assert (of.train_samples, of.classes, of.shape) == (20, 10, (1, 28, 28))
    raw = (tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert first_images(of, 20).numpy().tobytes() == raw
    assert of.test.targets.tolist() == [i % 10 for i in range(20)]


def damaged(folder, how):
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    if how == "cut":
        images.write_bytes(images.read_bytes()[:-100])
    elif how == "empty":
        labels.write_bytes(b"")
    elif how == "packed":
        files.packed(images)
    elif how == "classes":
        files.idx(labels, np.full(20, 46, np.uint8))
    elif how == "counts":
        files.idx(labels, np.zeros(19, np.uint8))
    elif how == "size":
        files.idx(images, np.zeros((20, 32, 32), np.uint8))
    elif how == "none":
        labels.unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "train-images-idx3-ubyte is no readable idx file"),
        ("empty", "train-labels-idx1-ubyte is no readable idx file"),
        ("packed", "it may be truncated or still packed"),
        ("classes", "labels from 46 to 46 and the set has 10 classes"),
        ("counts", "20 images and train-labels-idx1-ubyte 19 labels"),
        ("size", r"images of \[32, 32\] pixels"),
        ("none", "train-labels-idx1-ubyte is missing"),
    ],
)
def test_damaged_fashion_mnist_is_refused(tmp_path, how, said):
    files.fashion_mnist(tmp_path)
    damaged(tmp_path / "FashionMNIST" / "raw", how)
    with pytest.raises(DataError, match=said):
        data.create("fashion-mnist", root=tmp_path)


def test_a_class_list_of_imagenet_gives_indices_in_its_order(tmp_path):
    files.image_folders(tmp_path, ["n01", "n02", "n03"])
    of = data.create("imagenet", root=tmp_path, class_list=["n03", "n01"], size=32)
    assert (of.train_samples, of.classes, of.shape) == (4, 2, (3, 32, 32))
    labels = {(path.split(os.sep)[-2], label) for path, label in of.train.files}
    assert labels == {("n03", 0), ("n01", 1)}
    third = next(i for i, (_, label) in enumerate(of.test.files) if label == 0)
    colours = [(of.test[i][0][:, 0, 0] * torch.tensor([0.229, 0.224, 0.225])).tolist() for i in (third, third + 1)]
    red, grey = (np.round(np.add(colour, [0.485, 0.456, 0.406]) * 255) for colour in colours)
    assert abs(red - [2, 0, 0]).max() <= 2  # as far as JPEG keeps it
    assert grey.tolist() == [2, 2, 2]


def test_test_images_are_resized_and_cut_in_the_centre(tmp_path):
    from PIL import Image

    files.image_folders(tmp_path, ["n01"], images=1)
    gradient = np.tile(np.linspace(0, 255, 80, dtype=np.uint8), (60, 1))
    Image.fromarray(gradient).save(tmp_path / "imagenet" / "val" / "n01" / "0.JPEG", quality=100)
    of = data.create("imagenet", root=tmp_path, class_list=["n01"], size=56)
    row = (of.test[0][0][0, 28] * 0.229 + 0.485) * 255
    # 60 x 80 -> 64 x 85, of which the columns from 14 on are kept; column c shows pixel (c + 14.5) * 80 / 85 - 0.5
    expected = ((torch.arange(56) + 14.5) * 80 / 85 - 0.5) * 255 / 79
    torch.testing.assert_close(row, expected, atol=3, rtol=0)


def test_imagenet_without_a_list_has_1000_classes(tmp_path):
    files.image_folders(tmp_path, ["n01", "n02"])
    with pytest.raises(DataError, match=r"train has 2 class folders \(n01, n02, \.\.\.\) and the set has 1000"):
        data.create("imagenet", root=tmp_path)


def test_imagenet200_reads_its_list_from_a_file(tmp_path):
    names = [f"n{i:03}" for i in range(200)]
    files.image_folders(tmp_path, names, images=1, size=(8, 8))
    (tmp_path / "list.txt").write_text("\n".join(reversed(names)) + "\n\n")
    of = data.create("imagenet-200", root=tmp_path, class_list=tmp_path / "list.txt", size=16)
    assert of.classes == 200
    assert {(path.split(os.sep)[-2], label) for path, label in of.test.files} == set(
        zip(names[::-1], range(200), strict=True)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "imagenet-200 needs class_list"),
        ({"class_list": ["n01", "n02"]}, "class_list names 2 classes; imagenet-200 has 200"),
        ({"class_list": "nowhere.txt"}, "class_list nowhere.txt cannot be read"),
        ({"class_list": []}, "class_list names no class"),
        ({"class_list": ["n01"] * 200}, "class_list names n01 twice"),
        ({"class_list": [1, 2]}, r"class_list is \[1, 2\]; it must be names of class folders"),
        ({"class_list": 7}, "class_list is 7; it must be names of class folders"),
        ({"class_list": [f"n{i}" for i in range(200)]}, "train has no class folder n0 and 199 more"),
    ],
    ids=["none", "few", "no file", "empty", "twice", "numbers", "number", "folders"],
)
def test_a_wrong_class_list_is_refused(tmp_path, options, said):
    files.image_folders(tmp_path, ["n01", "n02"])
    with pytest.raises(DataError, match=said):
        data.create("imagenet-200", root=tmp_path, **options)


def test_images_of_imagenet_have_its_policy_unless_told_otherwise(tmp_path):
    files.image_folders(tmp_path, ["n01"])
    for augment, policy in ((["autoaugment"], "imagenet"), ({"autoaugment": "svhn"}, "svhn")):
        of = data.create("imagenet", root=tmp_path, class_list=["n01"], size=16, augment=augment)
        assert of.train.transform.transforms[0].policy.value == policy


def test_an_empty_class_folder_is_named(tmp_path):
    files.image_folders(tmp_path, ["n01", "n02"])
    for image in (tmp_path / "imagenet" / "val" / "n02").iterdir():
        image.unlink()
    with pytest.raises(DataError, match=r"val.*n02"):
        data.create("imagenet", root=tmp_path, class_list=["n01", "n02"])


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "foreign", "truncated"])
@pytest.mark.parametrize("suffix", [".JPEG", ".png", ".bmp"])
def test_a_damaged_image_is_refused_before_training(tmp_path, suffix, content):
    files.image_folders(tmp_path, ["n01", "n02"], suffix=suffix)
    image = tmp_path / "imagenet" / "val" / "n02" / f"0{suffix}"
    data.create("imagenet", root=tmp_path, class_list=["n01", "n02"])
    image.write_bytes(image.read_bytes()[:-40] if content is None else content)
    with pytest.raises(DataError, match=rf"n02.0\{suffix} is no readable image.*copy it again"):
        data.create("imagenet", root=tmp_path, class_list=["n01", "n02"])


def test_bytes_after_the_end_of_an_image_are_no_damage(tmp_path):
    files.image_folders(tmp_path, ["n01"])
    for image in (tmp_path / "imagenet" / "train" / "n01").iterdir():
        image.write_bytes(image.read_bytes() + b"more")
    assert len(data.create("imagenet", root=tmp_path, class_list=["n01"], size=16).train[0][0]) == 3


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "foreign", "truncated"])
def test_an_image_that_is_damaged_later_is_named(tmp_path, content):
    files.image_folders(tmp_path, ["n01", "n02"])
    image = tmp_path / "imagenet" / "val" / "n02" / "0.JPEG"
    whole = image.read_bytes()
    for workers in (0, 1):
        image.write_bytes(whole)
        of = data.create("imagenet", root=tmp_path, class_list=["n01", "n02"], size=16, workers=workers)
        image.write_bytes(whole[:-200] if content is None else content)
        with pytest.raises(DataError, match=r"n02.0\.JPEG is no readable image") as caught:
            list(of.test_batches(2, 2))
        assert "Traceback" not in str(caught.value)
