"""Data sets by name and by import path; nothing is fetched unasked."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastsnn import data
from fastsnn.data.registry import PUBLISHED
from fastsnn.errors import DataError

from . import files

pytest.importorskip("torchvision", reason="pip install 'fastsnn[vision]'")


def test_all_sets_are_listed():
    assert data.list_data() == [
        *("cifar10", "cifar10-dvs", "cifar100", "digits", "dvs128-gesture", "fashion-mnist", "imagenet"),
        *("imagenet-200", "n-caltech101", "sequential-digits", "shd", "ssc"),
    ]
    assert data.list_data("cifar*") == ["cifar10", "cifar10-dvs", "cifar100"]


@pytest.mark.parametrize("name", data.DATASETS)
def test_digits_have_the_same_interface(name):
    pytest.importorskip("sklearn")
    digits = data.create(name, steps=8)
    assert (digits.train_samples, digits.test_samples, digits.classes) == (1437, 360, 10)
    x, _ = next(digits.train_batches(8, 5, torch.arange(20), seed=3))
    assert x.shape == (8, 5, *digits.shape)
    assert digits.sequential == (len(digits.shape) == 1)
    with pytest.raises(DataError, match=f"augment is no option of {name}, which has none"):
        data.create(name, augment=())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_set_says_where_to_get_it_and_how_to_lay_it_out(tmp_path, name):
    of = PUBLISHED[name]
    for root, said in ((None, f"data {name} needs root"), (tmp_path, "is not there")):
        with pytest.raises(DataError, match=said) as caught:
            data.create(name, root=root)
        assert of.source in str(caught.value)
        assert f"lay it out as ROOT/{of.layout}" in str(caught.value)
        assert ("--download" in str(caught.value)) == (root is not None and of.download is not None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name].download])
def test_a_failed_download_says_where_to_get_it(tmp_path, monkeypatch, name):
    if name in ("dvs128-gesture", "n-caltech101", "shd", "ssc"):
        pytest.importorskip("tonic")
    import socket

    def offline(*_args, **_options):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with pytest.raises(DataError, match=rf"data {name} could not be fetched \(.*\): get it from"):
        data.create(name, root=tmp_path, download=True)


def test_a_set_is_fetched_when_asked_and_not_there(tmp_path, monkeypatch):
    from torchvision.datasets import utils

    asked = []

    def fetch(url, root, filename, md5):
        asked.append((url, filename, md5))
        files.cifar10(tmp_path)

    monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
    for _ in range(2):
        assert data.create("cifar10", root=str(tmp_path), download=True).train_samples == 100
    [(url, filename, md5)] = asked
    assert (url.rpartition("/")[2], filename, len(md5)) == ("cifar-10-python.tar.gz", "cifar-10-python.tar.gz", 32)


def test_the_ten_archives_of_cifar10_dvs_are_fetched_into_their_folder(tmp_path, monkeypatch):
    from torchvision.datasets import utils

    def fetch(url, root, filename, md5):
        for k in range(2):
            files.aedat2(Path(root) / filename.removesuffix(".zip") / f"{k}.aedat", *files.events(20))

    monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
    assert data.create("cifar10-dvs", root=tmp_path, download=True).train_samples == 10


def test_a_failed_download_leaves_the_set_missing(tmp_path, monkeypatch):
    from torchvision.datasets import mnist

    def broken(url, download_root, filename, md5):
        raise RuntimeError("File not found\nor corrupted.")

    monkeypatch.setattr(mnist, "download_and_extract_archive", broken)
    with pytest.raises(DataError, match=r"could not be fetched \(.*File not found or corrupted\.\): get"):
        data.create("fashion-mnist", root=tmp_path, download=True)
    with pytest.raises(DataError, match="is not there; get it from"):
        data.create("fashion-mnist", root=tmp_path)


def test_a_set_that_nobody_may_fetch_says_so(tmp_path):
    with pytest.raises(DataError, match="data imagenet cannot be fetched, its owner asks for a registration: get it"):
        data.create("imagenet", root=tmp_path, download=True)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar", {}, "data is 'cifar'; allowed: cifar10, .*; did you mean cifar100?"),
        (
            "cifar10",
            {"agument": ()},
            "an option of cifar10 is 'agument'; allowed: augment, workers; did you mean augment",
        ),
        ("shd", {"size": 48}, "an option of shd is 'size'; allowed: by, window, workers"),
    ],
)
def test_unknown_names_and_options_have_the_nearest_named(tmp_path, name, options, said):
    with pytest.raises(DataError, match=said):
        data.create(name, root=tmp_path, **options)


@pytest.mark.parametrize(
    ("module", "name", "extra", "write"),
    [
        ("torchvision.transforms.v2", "cifar10", "vision", files.cifar10),
        ("torchvision.datasets.mnist", "fashion-mnist", "vision", files.fashion_mnist),
        ("h5py", "shd", "events", lambda root: [touch(root / "SHD" / f"shd_{s}.h5") for s in ("train", "test")]),
    ],
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, module, name, extra, write):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module.partition('.')[0]}.*pip install 'fastsnn\[{extra}\]'"):
        data.create(name, root=tmp_path)


def touch(path):
    path.parent.mkdir(exist_ok=True)
    path.touch()


def test_no_package_of_data_is_imported_before_it_is_needed():
    code = "import sys, fastsnn.data; print([m for m in ('torchvision', 'tonic', 'h5py', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


OWN = """
import numpy
import torch
from PIL import Image

class Pairs:
    classes = ["a", "b", "c"]

    def __init__(self, train, root=None, count=6, targets=None):
        self.count, self.root = count + train, root
        if targets is not None:
            self.targets = targets

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((2, 4, 4), float(index)), index % 3

class Nameless(Pairs):
    classes = None

class Streams(Pairs):
    def __getitem__(self, index):
        return torch.ones(index + 1, 5).double().numpy(), index % 3

class Empty(Pairs):
    def __len__(self):
        return 0

class Unlabelled(Pairs):
    def __getitem__(self, index):
        return torch.ones(2)

class Pictures(Pairs):
    def __getitem__(self, index):
        return Image.new("RGB", (4, 4)), 0

class Unequal(Pairs):
    def __getitem__(self, index):
        return torch.ones(self.count), 0

class Missing(Pairs):
    def __init__(self, train):
        raise FileNotFoundError("data.bin")

class Unreadable(Pairs):
    def __getitem__(self, index):
        raise KeyError(index)

class Counted(Pairs):
    classes = 3.0

class Given(Pairs):
    def __init__(self, train, x="torch.ones(2)", y="0"):
        super().__init__(train)
        self.x, self.y = (eval(text, {"torch": torch, "numpy": numpy}) for text in (x, y))

    def __getitem__(self, index):
        return self.x, self.y

number = 3

def stream(train):
    return iter([])
"""


def test_sets_can_be_sent_to_workers_of_any_kind(tmp_path):
    pytest.importorskip("h5py")
    files.cifar10(tmp_path)
    for split in ("train", "test"):
        files.spikes(tmp_path / "SHD" / f"shd_{split}.h5", 20)
    for name in ("cifar10", "shd"):
        of = data.create(name, root=tmp_path)
        sent = pickle.loads(pickle.dumps(of))
        (x, y), (x2, y2) = (next(one.train_batches(90, 4, torch.arange(12), seed=1)) for one in (of, sent))
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_sets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_sets"
    sys.modules.pop("own_sets", None)


def test_a_users_own_set_by_import_path(own, tmp_path):
    of = data.create(f"{own}:Pairs", root=tmp_path, count=4)
    assert (of.train_samples, of.test_samples, of.classes, of.shape) == (5, 4, 3, (2, 4, 4))
    assert of.train.root == tmp_path
    x, y = next(of.test_batches(3))
    assert x.shape == (3, 4, 2, 4, 4)
    assert y.tolist() == [0, 1, 2, 0]
    assert data.create(f"{own}:Nameless", num_classes=5, workers=1).classes == 5


def test_a_users_own_sequences(own):
    of = data.create(f"{own}:Streams", sequence=True)
    assert (of.shape, of.sequential) == ((5,), True)
    x, _ = next(of.test_batches(None, 2))
    assert x.shape == (2, 2, 5)
    assert x.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Pears", {}, "data own_sets:Pears cannot be imported"),
        ("Pairs", {"colour": 1}, r"data own_sets:Pairs cannot be called as \(train=True, colour=1\)"),
        ("Pairs", {"num_classes": 4}, "has 3 classes and num_classes is 4"),
        (
            "Pairs",
            {"targets": [0, 3]},
            "the train split of own_sets:Pairs has labels from 0 to 3 and the set has 3 classes",
        ),
        ("Nameless", {}, "has no attribute `classes` .*: give num_classes"),
        ("Nameless", {"num_classes": 0}, "has 0 classes; there must be at least one"),
        ("Empty", {}, "the train split of own_sets:Empty has no samples"),
        ("Unlabelled", {}, "sample 0 of the train split of own_sets:Unlabelled is a Tensor; it must be a pair"),
        (
            "Pictures",
            {},
            "sample 0 of the train split of own_sets:Pictures has an input of Image; it must be a tensor",
        ),
        ("Unequal", {}, r"training samples have shape \[7\], test samples \[6\]"),
        ("Unequal", {"sequence": True}, r"sample 0 of .* has shape \[7\]; a sequence has time first"),
        ("stream", {}, "gives a list_iterator; it must have __getitem__ and __len__"),
        ("number", {}, "data own_sets:number is a int; it must be a class or a function"),
        ("Missing", {}, r"own_sets:Missing cannot be called as \(train=True\): FileNotFoundError: data.bin"),
        ("Unreadable", {}, "sample 0 of the train split of own_sets:Unreadable cannot be read"),
        ("Counted", {}, "has classes 3.0; they must be names, or their number"),
        ("Nameless", {"num_classes": "ten"}, "num_classes is 'ten'; it must be a whole number"),
        ("Pairs", {"sequence": "no"}, "sequence is 'no'; it must be true"),
        ("Pairs", {"workers": -1}, "workers is -1; it must be a whole number"),
        ("Pairs", {"workers": "two"}, "workers is 'two'; it must be a whole number"),
        ("Given", {"x": "torch.tensor(1.0)"}, r"has an input of shape \[\]; it must have values"),
        ("Given", {"x": "torch.ones(2, 0)"}, r"has an input of shape \[2, 0\]; it must have values"),
        ("Given", {"x": "torch.tensor([1.0, torch.nan])"}, "has values that are NaN or infinite"),
        ("Given", {"x": "numpy.array([1.0, numpy.inf])"}, "has values that are NaN or infinite"),
        ("Given", {"x": "numpy.array(['a'])"}, "has an input of an array of <U1; it must be a tensor"),
        (
            "Given",
            {"x": "torch.ones(2) * 1j"},
            "has an input of Tensor; .* of real numbers",
        ),
        ("Given", {"x": "torch.ones(2).to_sparse()"}, "has an input of Tensor; .* dense"),
        ("Given", {"x": "torch.ones(2, device='meta')"}, "has an input of Tensor; .* dense"),
        ("Given", {"y": "torch.tensor([0, 1])"}, r"has a label of shape \[2\]; it must be one index"),
        ("Given", {"y": "torch.tensor([], dtype=int)"}, r"has a label of shape \[0\]; it must be one index"),
    ],
)
def test_an_own_set_that_does_not_fit_is_refused_before_training(own, name, options, said):
    with pytest.raises(DataError, match=said):
        data.create(f"{own}:{name}", **options)


@pytest.mark.parametrize("text", ["(", "import nowhere_else", "raise KeyError(1)", "raise SystemExit(3)"])
def test_a_module_that_cannot_be_imported_is_refused(text, tmp_path, monkeypatch):
    (tmp_path / "own_broken.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="data own_broken:Set cannot be imported"):
        data.create("own_broken:Set")


def test_a_module_that_is_not_there_says_how_it_is_found():
    with pytest.raises(DataError, match=r"data nowhere:Set cannot be imported .*PYTHONPATH"):
        data.create("nowhere:Set")
