"""Small files in the formats that the data sets are published in."""

import gzip
import pickle
import struct

import numpy as np

RNG = np.random.default_rng(0)


def cifar_batch(path, samples, classes, key="labels", **entries):
    """A pickled batch as CIFAR's: protocol 2."""
    labels = [i % classes for i in range(samples)]
    images = RNG.integers(0, 256, (samples, 3072), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = {"data": images, key: labels, "batch_label": "a batch", "filenames": ["a.png"] * samples, **entries}
    path.write_bytes(pickle.dumps(batch, protocol=2))
    return images.reshape(-1, 3, 32, 32), labels


def cifar10(root, samples=20):
    folder = root / "cifar-10-batches-py"
    parts = [cifar_batch(folder / f"data_batch_{i}", samples, 10) for i in range(1, 6)]
    cifar_batch(folder / "test_batch", samples, 10)
    return parts


def cifar100(root, samples=200):
    folder = root / "cifar-100-python"
    for split in ("train", "test"):
        cifar_batch(folder / split, samples, 100, "fine_labels", coarse_labels=[0] * samples)


def idx(path, array):
    """Big-endian idx of unsigned bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def fashion_mnist(root, samples=20):
    for split in ("train", "t10k"):
        folder = root / "FashionMNIST" / "raw"
        idx(folder / f"{split}-images-idx3-ubyte", RNG.integers(0, 256, (samples, 28, 28), dtype=np.uint8))
        idx(folder / f"{split}-labels-idx1-ubyte", np.arange(samples, dtype=np.uint8) % 10)


def image_folders(root, classes, images=2, size=(80, 60), suffix=".JPEG"):
    from PIL import Image

    for split in ("train", "val"):
        for label, name in enumerate(classes):
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for i in range(images):
                mode = "L" if i % 2 else "RGB"
                Image.new(mode, size, label if i % 2 else (label, 0, 0)).save(folder / f"{i}{suffix}")


def events(samples, size=128, span=1_000_000):
    """x, y, polarity and sorted times in microseconds."""
    x, y = RNG.integers(0, size, (2, samples))
    return x, y, RNG.integers(0, 2, samples), np.sort(RNG.integers(0, span, samples))


def aedat2(path, x, y, on, t):
    """AEDAT 2.0 as CIFAR10-DVS has it, whose sensor counts from the other corner, and with one external event."""
    address = np.append((127 - x) << 8 | (127 - y) << 1 | 1 - on, 1 << 31)
    words = np.stack([address, np.append(t, t[-1])], 1).astype(">u4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + words.tobytes())


def aedat3(path, x, y, on, t, packet=50):
    """AEDAT 3.1 as DVS128-Gesture has it: packets of pixel events, and one of another kind."""
    data = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: DVS128\r\n#!END-HEADER\r\n"]
    data.append(struct.pack("<HHIIIIII", 0, 1, 8, 4, 0, 1, 1, 1) + bytes(8))
    address = x << 17 | y << 2 | on << 1 | 1
    for start in range(0, len(t), packet):
        words = np.stack([address, t], 1)[start : start + packet].astype("<u4")
        data.append(struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, len(words), len(words), len(words)) + words.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(data))


def ncaltech(path, x, y, on, t):
    """N-Caltech101's five bytes: x, y, polarity bit and 23 bits of time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.stack([x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255], 1)
    path.write_bytes(rows.astype(np.uint8).tobytes())


def spikes(path, classes, samples=12, name="shd", seconds=1.0):
    """HDF5 as SHD and SSC have it: ragged times in half precision seconds and units."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    recordings = []
    with h5py.File(path, "w") as file:
        ragged = {"times": h5py.vlen_dtype(np.float16), "units": h5py.vlen_dtype(np.uint16)}
        sets = {key: file.create_dataset(f"spikes/{key}", (samples,), kind) for key, kind in ragged.items()}
        for i in range(samples):
            count = 30 + i
            times = np.sort(RNG.uniform(0, seconds * (i + 1) / samples, count)).astype(np.float16)
            units = RNG.integers(0, 700, count).astype(np.uint16)
            sets["times"][i], sets["units"][i] = times, units
            recordings.append((times, units))
        file["labels"] = np.arange(samples, dtype=np.uint16) % classes
        file["extra/keys"] = [f"class {i}".encode() for i in range(classes)]
        file["extra/speaker"] = np.zeros(samples, np.uint16)
    return recordings


def packed(path):
    """Still packed, as it is downloaded."""
    path.write_bytes(gzip.compress(path.read_bytes()))
