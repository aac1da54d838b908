"""Data sets by name, or a user's own by import path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..errors import DataError, RunError
from ..names import DATASETS
from . import digits
from .checks import among, needs
from .cochlea import shd, ssc
from .events import cifar10_dvs, dvs128_gesture, n_caltech101
from .images import cifar10, cifar100, fashion_mnist, imagenet, imagenet200
from .mapped import MapData, step_shape


@dataclass(frozen=True)
class Published:
    """A set that is read from the user's disk.

    read(root, **options) makes it; paths: patterns, relative to root, of what must be there; source: where to get it;
    layout: how to lay it out; download(root) fetches it, None where its owner lets nobody.
    """

    read: Callable[..., MapData]
    paths: tuple[str, ...]
    source: str
    layout: str
    download: Callable[[Path], Any] | None


def _archive(name: str) -> Callable[[Path], None]:
    """torchvision's archive of CIFAR, checked and unpacked; no pickle is opened."""

    def download(root: Path) -> None:
        of = getattr(needs("torchvision.datasets", "vision", "--download"), name)
        utils = needs("torchvision.datasets.utils", "vision", "--download")
        utils.download_and_extract_archive(of.url, str(root), filename=of.filename, md5=of.tgz_md5)

    return download


def _fashion_mnist(root: Path) -> None:
    needs("torchvision.datasets", "vision", "--download").FashionMNIST(str(root), download=True)


def _cifar10_dvs(root: Path) -> None:
    """The archives of the ten classes as published, checked and unpacked."""
    utils = needs("torchvision.datasets.utils", "vision", "--download")
    for name, (number, md5) in CIFAR10_DVS.items():
        url = f"https://ndownloader.figshare.com/files/{number}"
        utils.download_and_extract_archive(url, str(root / "CIFAR10DVS"), filename=f"{name}.zip", md5=md5)


CIFAR10_DVS = {
    "airplane": (7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": (7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": (7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": (7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": (7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": (7712818, "f379ebdf6703d16e0a690782e62639c3"),
    "frog": (7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": (7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": (7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": (7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
}


def _tonic(name: str, *splits: dict[str, Any]) -> Callable[[Path], None]:
    """tonic's download, of all splits."""

    def download(root: Path) -> None:
        of = getattr(needs("tonic.datasets", "tonic", "--download"), name)
        for split in splits:
            of(save_to=str(root), **split)

    return download


TRAIN_TEST = ({"train": True}, {"train": False})
PUBLISHED = {
    "cifar10": Published(
        cifar10,
        ("cifar-10-batches-py",),
        "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-10 python version)",
        "cifar-10-batches-py/{data_batch_1, ..., data_batch_5, test_batch}",
        _archive("CIFAR10"),
    ),
    "cifar100": Published(
        cifar100,
        ("cifar-100-python",),
        "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-100 python version)",
        "cifar-100-python/{train, test}",
        _archive("CIFAR100"),
    ),
    "fashion-mnist": Published(
        fashion_mnist,
        ("FashionMNIST/raw/*-ubyte",),
        "https://github.com/zalandoresearch/fashion-mnist (its four .gz files, unpacked)",
        "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
        _fashion_mnist,
    ),
    "imagenet": Published(
        imagenet,
        ("imagenet/train", "imagenet/val"),
        "https://www.image-net.org (ILSVRC 2012, after registration)",
        "imagenet/{train,val}/<class>/<image>, val sorted into class folders too",
        None,
    ),
    "imagenet-200": Published(
        imagenet200,
        ("imagenet/train", "imagenet/val"),
        "https://www.image-net.org (ILSVRC 2012, after registration)",
        "imagenet/{train,val}/<class>/<image>, val sorted into class folders too",
        None,
    ),
    "cifar10-dvs": Published(
        cifar10_dvs,
        ("CIFAR10DVS/airplane",),
        "https://doi.org/10.6084/m9.figshare.4724671 (ten .zip files, unpacked)",
        "CIFAR10DVS/<class>/<recording>.aedat",
        _cifar10_dvs,
    ),
    "dvs128-gesture": Published(
        dvs128_gesture,
        ("DVSGesture/*Gesture*/*",),
        "https://research.ibm.com/interactive/dvsgesture (DvsGesture.tar.gz, unpacked)",
        "DVSGesture/DvsGesture/{trials_to_train.txt, trials_to_test.txt, user*.aedat, user*_labels.csv}, or tonic's "
        "cuts DVSGesture/{ibmGestureTrain,ibmGestureTest}/user*_*/<class>.npy",
        _tonic("DVSGesture", *TRAIN_TEST),
    ),
    "n-caltech101": Published(
        n_caltech101,
        ("NCALTECH101/Caltech101",),
        "https://www.garrickorchard.com/datasets/n-caltech101 (Caltech101.zip, unpacked)",
        "NCALTECH101/Caltech101/<class>/<recording>.bin",
        _tonic("NCALTECH101", {}),
    ),
    "shd": Published(
        shd,
        ("SHD/shd_train.h5", "SHD/shd_test.h5"),
        "https://zenkelab.org/datasets (shd_train.h5.zip and shd_test.h5.zip, unpacked)",
        "SHD/{shd_train.h5, shd_test.h5}",
        _tonic("SHD", *TRAIN_TEST),
    ),
    "ssc": Published(
        ssc,
        ("SSC/ssc_train.h5", "SSC/ssc_test.h5"),
        "https://zenkelab.org/datasets (ssc_train.h5.zip and ssc_test.h5.zip, unpacked)",
        "SSC/{ssc_train.h5, ssc_test.h5}",
        _tonic("SSC", {"split": "train"}, {"split": "test"}),
    ),
}


def list_data(pattern: str = "*") -> list[str]:
    """Names that `create` takes, those that match the shell-style `pattern`."""
    return sorted(name for name in (*DATASETS, *PUBLISHED) if fnmatch(name, pattern))


def create(
    name: str, *, root: Path | str | None = None, download: bool = False, steps: int | None = None, **options: Any
) -> digits.Dataset | MapData:
    """The data set of that name, its train and test split, ready to give batches.

    root: the folder that holds it, for all but the digits, which ship in scikit-learn. Nothing is fetched unless
    download is True and the set is not there. steps: T into which recordings of events are cut, None (default): the
    set's own; images are shown for as many steps as their batches ask for. options: of the set, as the
    function of `fastsnn.data` that reads it takes, such as augment, size, by, workers.

    name "module:Class": a user's own, called as Class(train=True) and Class(train=False), with root= and download=
    where they are given and all options; it gives a map-style data set of (x, label). Three options are not passed on:
    num_classes (where the set has no `classes`), sequence (samples have time first, [t, *]; default False), workers.

    Raises DataError for an unknown name or option, a set that is missing, damaged, or has other classes than it should;
    ImportError, with the remedy, where a package is missing.
    """
    folder = None if root is None else Path(root).expanduser()
    if ":" in name:
        return _own(name, folder, download, options)
    among("data", name, list_data())
    if name in DATASETS:
        _known(name, options, ())
        return digits.load(name)
    of = PUBLISHED[name]
    known = inspect.signature(of.read).parameters
    _known(name, options, [option for option in known if option not in ("root", "steps")])
    if steps is not None and "steps" in known:
        options["steps"] = steps
    return of.read(_folder(name, of, folder, download), **options)


def _known(name: str, options: dict[str, Any], known: Any) -> None:
    for option in options:
        if not known:
            raise DataError(f"{option} is no option of {name}, which has none")
        among(f"an option of {name}", option, known)


def _folder(name: str, of: Published, root: Path | None, download: bool) -> Path:
    remedy = f"get it from {of.source} and lay it out as ROOT/{of.layout}"
    if root is None:
        raise DataError(f"data {name} needs root (--data-root ROOT), the folder that holds it: {remedy}")
    missing = _missing(of, root)
    if missing and download:
        _download(name, of, root, remedy)
        missing = _missing(of, root)
    if missing:
        fetch = "" if of.download is None else ", or let it be fetched with download=True (--download)"
        raise DataError(f"data {name}: {root / missing[0]} is not there; {remedy}{fetch}")
    return root


def _missing(of: Published, root: Path) -> list[str]:
    return [path for path in of.paths if not any(root.glob(path))]


def _download(name: str, of: Published, root: Path, remedy: str) -> None:
    if of.download is None:
        raise DataError(f"data {name} cannot be fetched, its owner asks for a registration: {remedy}")
    try:
        of.download(root)
    except ImportError:
        raise
    except Exception as error:  # of other packages' downloads and archives
        said = " ".join(str(error).split())
        raise DataError(f"data {name} could not be fetched ({said}): {remedy}") from error


def _own(path: str, root: Path | None, download: bool, options: dict[str, Any]) -> MapData:
    make = load_object(path, "data")
    of_batches = {name: options.pop(name) for name in ("sequence", "workers") if name in options}
    num_classes = options.pop("num_classes", None)
    if root is not None:
        options["root"] = root
    if download:
        options["download"] = True
    try:
        train, test = make(train=True, **options), make(train=False, **options)
    except (RunError, ImportError):
        raise
    except Exception as error:  # of a user's code
        given = ", ".join(["train=True", *(f"{key}={value!r}" for key, value in options.items())])
        said = f"{type(error).__name__}: {error}"
        raise DataError(f"data {path} cannot be called as ({given}): {said}") from error
    for split in (train, test):
        if not (hasattr(split, "__getitem__") and hasattr(split, "__len__")):
            raise DataError(f"data {path} gives a {type(split).__name__}; it must have __getitem__ and __len__")
    classes = _classes(path, train, num_classes)
    sequence = of_batches.get("sequence", False)
    if not isinstance(sequence, bool):
        raise DataError(f"sequence is {sequence!r}; it must be true (samples have time first, [t, *]) or false")
    shapes = [step_shape(one, classes, sequence, f"the {of} split of {path}") for one, of in _splits(train, test)]
    if shapes[0] != shapes[1]:
        raise DataError(f"data {path}: training samples have shape {list(shapes[0])}, test samples {list(shapes[1])}")
    return MapData(path, train, test, classes, shapes[0], **of_batches)


def _splits(train: Any, test: Any) -> tuple[tuple[Any, str], ...]:
    return (train, "train"), (test, "test")


def _classes(path: str, split: Any, num_classes: Any) -> int:
    named = getattr(split, "classes", None)
    if isinstance(num_classes, bool) or not isinstance(num_classes, (int, type(None))):
        raise DataError(f"num_classes is {num_classes!r}; it must be a whole number, that of the classes")
    try:
        found = named if isinstance(named, int) or named is None else len(named)
    except TypeError as error:
        raise DataError(f"data {path} has classes {named!r}; they must be names, or their number") from error
    classes = num_classes if found is None else found
    if classes is None:
        raise DataError(f"data {path} has no attribute `classes` (names, or their number): give num_classes")
    if num_classes not in (None, classes):
        raise DataError(f"data {path} has {classes} classes and num_classes is {num_classes}")
    if classes < 1:
        raise DataError(f"data {path} has {classes} classes; there must be at least one")
    return classes


def load_object(path: str, option: str) -> Any:
    """What "module:name" names. Raises DataError where there is no such module or name; option is how the caller calls
    it."""
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # of a user's module
        said = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{option} {path} cannot be imported ({said}); write module:name, with the module's folder on PYTHONPATH"
        ) from error
    if not callable(found):
        raise DataError(f"{option} {path} is a {type(found).__name__}; it must be a class or a function")
    return found
