"""Files with any bytes changed or cut are read or refused with a DataError that names them, whatever was changed."""

import numpy as np
import pytest

from fastsnn.data import aedat, images
from fastsnn.errors import DataError

from . import files


def gesture(path):
    aedat.check_aedat3(path)
    return aedat.read_aedat3(path, 0, 1 << 40)


def fashion(path):
    return images._read_idx(path.parent, "train")


def write_fashion(path):
    files.fashion_mnist(path.parents[2], samples=2)


READERS = {
    "cifar": (
        "data_batch_1",
        lambda path: files.cifar_batch(path, 3, 10),
        lambda p: images.read_cifar(p, "labels", 10),
    ),
    "idx": ("FashionMNIST/raw/train-images-idx3-ubyte", write_fashion, fashion),
    "aedat2": ("a.aedat", lambda path: files.aedat2(path, *files.events(9)), aedat.read_aedat2),
    "aedat3": ("a.aedat", lambda path: files.aedat3(path, *files.events(9), packet=4), gesture),
    "bin": ("a.bin", lambda path: files.ncaltech(path, *files.events(9, span=1 << 20)), aedat.read_bin),
    "npy": ("1.npy", lambda path: np.save(path, np.ones((9, 4))), aedat.read_cut),
}


@pytest.mark.parametrize("kind", READERS)
def test_changed_bytes_are_read_or_refused(tmp_path, kind):
    name, write, read = READERS[kind]
    pytest.importorskip({"idx": "torchvision"}.get(kind, "numpy"))
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    read(path)
    whole, refused, rng = path.read_bytes(), 0, np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.3 else damaged)
        try:
            read(path)
        except DataError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017
    assert refused > 30
