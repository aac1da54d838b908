"""CIFAR-10 and -100, Fashion-MNIST and folders of ImageNet, read by torchvision or, for pickles, with a reader that
runs no code of the file."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .checks import class_folders, class_labels, needs, positive
from .mapped import MapData
from .transforms import IMAGES, Augment, Normal, chosen, image_transform

CIFAR10: Normal = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # of all pixels of the training split
CIFAR100: Normal = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
FASHION_MNIST: Normal = ((0.2860,), (0.3530,))
IMAGENET: Normal = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OF_PAPERS = ("crop", "flip", "cutout")
WHOLE = ((b"\xff\xd8\xff", b"\xff\xd9"), (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"))  # first and last bytes of JPEG, PNG


class Images(Dataset[tuple[Tensor, int]]):
    """Images in memory: x uint8 [N, C, H, W], targets [N]."""

    def __init__(self, x: Tensor, targets: Tensor, transform: Any) -> None:
        self.x, self.targets, self.transform = x, targets, transform

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.x[index]), int(self.targets[index])


def cifar10(root: Path, augment: Augment = OF_PAPERS, workers: int = 0) -> MapData:
    """CIFAR-10: [3, 32, 32], augmented as in Xiao et al. 2022 (crop, flip, cutout) unless told otherwise."""
    folder = root / "cifar-10-batches-py"
    train = [folder / f"data_batch_{i}" for i in range(1, 6)]
    return _cifar("cifar10", train, folder / "test_batch", "labels", 10, CIFAR10, augment, workers)


def cifar100(root: Path, augment: Augment = OF_PAPERS, workers: int = 0) -> MapData:
    """CIFAR-100, its 100 fine labels: as `cifar10`."""
    folder = root / "cifar-100-python"
    return _cifar("cifar100", [folder / "train"], folder / "test", "fine_labels", 100, CIFAR100, augment, workers)


def _cifar(
    name: str, train: list[Path], test: Path, key: str, classes: int, normal: Normal, augment: Augment, workers: int
) -> MapData:
    x, y = (torch.cat(parts) for parts in zip(*(read_cifar(path, key, classes) for path in train), strict=True))
    return _in_memory(name, (x, y), read_cifar(test, key, classes), classes, normal, augment, workers)


def _in_memory(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    normal: Normal,
    augment: Augment,
    workers: int,
) -> MapData:
    values, shape = chosen(augment, IMAGES), tuple(train[0].shape[1:])
    trained = Images(*train, image_transform(values, shape[-1], normal))
    tested = Images(*test, image_transform({}, shape[-1], normal))
    return MapData(name, trained, tested, classes, shape, mixup=values.get("mixup", 0.0), workers=workers)


class ArraysOnly(pickle.Unpickler):
    """Reads arrays, strings and containers; a file that names any other object is refused before it is made."""

    ALLOWED = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        | {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are read")
        return super().find_class(module.replace("numpy.core", "numpy._core") if _NEW_NUMPY else module, name)


_NEW_NUMPY = int(np.__version__.partition(".")[0]) >= 2


def read_cifar(path: Path, key: str, classes: int) -> tuple[Tensor, Tensor]:
    """One pickled batch of CIFAR: uint8 [N, 3, 32, 32] and labels [N], the file's `labels` or `fine_labels`.

    Raises DataError for a file that is truncated, asks for anything but arrays, or is of another data set.
    """
    try:
        with path.open("rb") as file:
            batch = ArraysOnly(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; unpack the archive again") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(
            f"{path} is no readable batch of CIFAR ({type(error).__name__}: {error}); it may be truncated or of "
            "another program: unpack the archive again"
        ) from error
    if not isinstance(batch, dict) or not {"data", key} <= batch.keys():
        found = sorted(map(str, batch)) if isinstance(batch, dict) else type(batch).__name__
        raise DataError(f"{path} holds {found}; expected data and {key}: it is another data set's")
    x = batch["data"]
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.shape[1:] != (3072,):
        what = f"{x.dtype} {list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
        raise DataError(f"{path} has images of {what}; expected uint8 [N, 3072], 32x32 pixels of 3 colours")
    y = class_labels(batch[key], classes, path)
    if y.shape != (len(x),) or not len(x):
        raise DataError(
            f"{path} has {len(x)} images and {list(y.shape)} labels; it must have one each, of one image or more"
        )
    return torch.from_numpy(x.reshape(-1, 3, 32, 32).copy()), y


def fashion_mnist(root: Path, augment: Augment = (), workers: int = 0) -> MapData:
    """Fashion-MNIST: [1, 28, 28], not augmented unless told otherwise."""
    folder = root / "FashionMNIST" / "raw"
    train, test = (_read_idx(folder, split) for split in ("train", "t10k"))
    return _in_memory("fashion-mnist", train, test, 10, FASHION_MNIST, augment, workers)


def _read_idx(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    mnist = needs("torchvision.datasets.mnist", "vision", "fashion-mnist")
    path = folder / f"{split}-images-idx3-ubyte"
    labels = folder / f"{split}-labels-idx1-ubyte"
    x, y = _idx(mnist.read_image_file, path), class_labels(_idx(mnist.read_label_file, labels), 10, labels)
    if x.shape[1:] != (28, 28):
        raise DataError(f"{path} has images of {list(x.shape[1:])} pixels; Fashion-MNIST's have [28, 28]")
    if len(x) != len(y) or not len(x):
        raise DataError(f"{path} has {len(x)} images and {labels.name} {len(y)} labels; each image has one")
    return x[:, None], y


def _idx(read: Any, path: Path) -> Tensor:
    try:
        return read(str(path))
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; unpack the four .gz files again") from error
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is no readable idx file ({type(error).__name__}); it may be truncated or still packed: unpack "
            "the .gz again"
        ) from error


def imagenet(
    root: Path,
    class_list: Path | str | Sequence[str] | None = None,
    size: int = 224,
    augment: Augment = ("resized_crop", "flip"),
    workers: int = 0,
) -> MapData:
    """ImageNet-1k from its folders, [3, size, size]; test images are resized to 8/7 of size and cut in the centre.

    class_list: names of the class folders to use, in the order of their indices, or a text file with one a line; None
    (default): all 1000.
    """
    wanted = None if class_list is None else _names(class_list)
    return _folders("imagenet", root, wanted, 1000 if wanted is None else len(wanted), size, augment, workers)


def imagenet200(
    root: Path,
    class_list: Path | str | Sequence[str] | None = None,
    size: int = 224,
    augment: Augment = ("resized_crop", "flip"),
    workers: int = 0,
) -> MapData:
    """The 200 classes of ImageNet in `class_list`: as `imagenet`."""
    if class_list is None:
        raise DataError("imagenet-200 needs class_list: a file that names 200 class folders, one a line")
    names = _names(class_list)
    if len(names) != 200:
        raise DataError(f"class_list names {len(names)} classes; imagenet-200 has 200")
    return _folders("imagenet-200", root, names, 200, size, augment, workers)


def _names(class_list: Path | str | Sequence[str]) -> list[str]:
    if isinstance(class_list, (str, Path)):
        try:
            lines = Path(class_list).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"class_list {class_list} cannot be read ({error}); one class folder's name a line"
            ) from error
        class_list = [line.strip() for line in lines if line.strip()]
    if not isinstance(class_list, Sequence) or not all(isinstance(name, str) for name in class_list):
        raise DataError(f"class_list is {class_list!r}; it must be names of class folders, or a file with one a line")
    names = list(class_list)
    twice = {name for name in names if names.count(name) > 1}
    if twice or not names:
        raise DataError(f"class_list names {', '.join(sorted(twice)) or 'no class'}{' twice' if twice else ''}")
    return names


def _folders(
    name: str, root: Path, wanted: list[str] | None, classes: int, size: int, augment: Augment, workers: int
) -> MapData:
    v2 = needs("torchvision.transforms.v2", "vision", name)
    positive("size", size)
    values, folder = chosen(augment, IMAGES | {"autoaugment": "imagenet"}), root / "imagenet"
    centre = [v2.Resize(size * 8 // 7, antialias=True), v2.CenterCrop(size), image_transform({}, size, IMAGENET)]
    names = class_folders(folder / "train", classes) if wanted is None else wanted
    train = ImageFiles(folder / "train", names, image_transform(values, size, IMAGENET))
    test = ImageFiles(folder / "val", names, v2.Compose(centre))
    return MapData(name, train, test, classes, (3, size, size), mixup=values.get("mixup", 0.0), workers=workers)


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files in class folders `names` of a folder; the label is the name's index.

    Raises DataError where a class folder is missing or empty or an image is truncated or of another kind; for one that
    is damaged elsewhere, when it is asked for.
    """

    def __init__(self, folder: Path, names: list[str], transform: Any) -> None:
        datasets = needs("torchvision.datasets.folder", "vision", "a folder of images")
        missing = [name for name in names if not (folder / name).is_dir()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{folder} has no class folder {missing[0]}{more}; each class has one in train and in val")
        indices = {name: index for index, name in enumerate(names)}
        try:
            self.files = datasets.make_dataset(str(folder), indices, extensions=datasets.IMG_EXTENSIONS)
        except FileNotFoundError as error:
            raise DataError(f"{folder}: {error}") from error
        self.targets, self.transform = [index for _, index in self.files], transform
        with ThreadPoolExecutor() as pool:  # files of a network disk are waited for together
            of_classes = (list(files) for _, files in groupby(self.files, itemgetter(1)))
            list(pool.map(_check_images, of_classes))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        return self.transform(read_image(path)), label


def _check_images(files: Iterable[tuple[str, int]]) -> None:
    for path, _ in files:
        check_image(path)


def check_image(path: str) -> None:
    """Raises DataError where `read_image` would for a file that is truncated or of another kind.

    A JPEG or PNG with its first and last bytes is not decoded.
    """
    with suppress(OSError), open(path, "rb") as file:
        first = file.read(8)
        file.seek(max(0, file.seek(0, 2) - 8))
        last = file.read()
        if any(first.startswith(start) and last.endswith(end) for start, end in WHOLE):
            return
    read_image(path)


def read_image(path: str) -> Tensor:
    """uint8 [3, H, W] of an image file. Raises DataError for one that is truncated or of another kind."""
    image = needs("PIL.Image", "vision", "reading images")
    try:
        with image.open(path) as file:
            return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable image ({error}); it may be truncated: copy it again") from error
