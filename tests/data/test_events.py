"""Event recordings, from small files in their formats."""

import struct

import numpy as np
import pytest
import torch

from fastsnn import data
from fastsnn.data.aedat import Events, check_aedat2, read_aedat2, read_aedat3, read_bin
from fastsnn.data.events import Framing
from fastsnn.errors import DataError

from . import files

pytest.importorskip("torchvision", reason="pip install 'fastsnn[vision]'")

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()


def cifar10_dvs(root, per_class=4):
    """Recordings by their path."""
    recordings = {}
    for i, name in enumerate(CLASSES):
        for k in range(per_class):
            path = root / "CIFAR10DVS" / name / f"cifar10_{name}_{k}.aedat"
            recordings[path] = files.events(40 + i)
            files.aedat2(path, *recordings[path])
    return recordings


def counted(x, y, on, frame, steps, shape):
    """Frames, one event after the other."""
    frames = torch.zeros(steps, *shape)
    for event in zip(frame.tolist(), on.tolist(), y.tolist(), x.tolist(), strict=True):
        frames[event] += 1
    return frames


def by_count(n, steps):
    return np.concatenate([np.full(-(-(s + 1) * n // steps) - -(-s * n // steps), s) for s in range(steps)])


def test_cifar10_dvs_has_every_event_in_one_of_its_frames(tmp_path):
    recordings = cifar10_dvs(tmp_path)
    of = data.create("cifar10-dvs", root=tmp_path, steps=7, size=128, augment=())
    assert (of.train_samples, of.test_samples, of.classes, of.shape, of.steps) == (30, 10, 10, (2, 128, 128), 7)
    assert of.train.targets == [label for label in range(10) for _ in range(3)]
    for k, path in enumerate(sorted(recordings)[:3]):
        x, y, on, _ = recordings[path]
        assert torch.equal(of.train[k][0], counted(x, y, on, by_count(40, 7), 7, (2, 128, 128)))


def test_frames_by_time_are_equally_long(tmp_path):
    recordings = cifar10_dvs(tmp_path)
    of = data.create("cifar10-dvs", root=tmp_path, steps=5, by="time", size=128, augment=())
    x, y, on, t = recordings[min(recordings)]
    edges = np.linspace(t[0], t[-1] + 1, 6)
    assert torch.equal(of.train[0][0], counted(x, y, on, np.digitize(t, edges) - 1, 5, (2, 128, 128)))


def test_frames_by_window_are_padded_and_their_lengths_told(tmp_path):
    recordings = cifar10_dvs(tmp_path)
    of = data.create("cifar10-dvs", root=tmp_path, by="window", window=250_000, augment=())
    assert of.steps is None
    batch = next(of.batches(of.train, None, 6, torch.arange(30)))
    spans = [int(t[-1] - t[0]) for path in sorted(recordings) for *_, t in [recordings[path]] if "_3" not in path.name]
    assert batch.lengths.tolist() == [span // 250_000 + 1 for span in spans[:6]]
    cut = next(of.batches(of.train, 2, 6, torch.arange(30)))
    assert cut.lengths.tolist() == [2] * 6
    assert torch.equal(cut.x, batch.x[:2])


def test_framing_of_tonic_agrees_where_it_keeps_every_event():
    transforms = pytest.importorskip("tonic.transforms")
    x, y, on, t = files.events(60)
    t = np.arange(60) * 1000
    given = np.zeros(60, [("x", int), ("y", int), ("p", int), ("t", int)])
    given["x"], given["y"], given["p"], given["t"] = x, y, on, t
    theirs = transforms.ToFrame((128, 128, 2), n_event_bins=6)(given)
    ours = Framing("count", 6)(Events(t, (on, y, x)), (2, 128, 128))
    assert torch.equal(ours, torch.from_numpy(theirs).float())


def test_events_out_of_order_are_counted_by_their_time():
    t = np.array([30, 10, 20, 0])
    frames = Framing("count", 2)(Events(t, (np.arange(4),)), (4,))
    assert frames.tolist() == [[0, 1, 0, 1], [1, 0, 1, 0]]


def test_the_resolution_is_reduced_by_interpolation(tmp_path):
    cifar10_dvs(tmp_path)
    small = data.create("cifar10-dvs", root=tmp_path, augment=()).train[0][0]
    full = data.create("cifar10-dvs", root=tmp_path, augment=(), size=128).train[0][0]
    assert small.shape == (10, 2, 48, 48)
    expected = torch.nn.functional.interpolate(full, (48, 48), mode="bilinear")
    torch.testing.assert_close(small, expected, atol=1e-6, rtol=0)
    scaled = data.create("cifar10-dvs", root=tmp_path, augment=(), normal=((0.5, 0.25), (2, 4))).train[0][0]
    torch.testing.assert_close(scaled[:, 1], (small[:, 1] - 0.25) / 4)


def test_damaged_aedat2_is_refused(tmp_path):
    path = tmp_path / "one.aedat"
    files.aedat2(path, *files.events(20))
    whole = path.read_bytes()
    for content, said in [
        (whole[:-3], "is truncated: 165 bytes are not whole events of 8"),
        (whole[:16], "is truncated"),
        (whole[:-168], "has no events"),
        (whole.replace(b"DAT2.0", b"DAT3.1"), "does not start with #!AER-DAT2.0"),
    ]:
        path.write_bytes(content)
        for look in (check_aedat2, read_aedat2):
            with pytest.raises(DataError, match=said):
                look(path)


def gestures(root, users=3):
    """The published layout: one recording a user, three gestures in each; the last user tests."""
    folder = root / "DVSGesture" / "DvsGesture"
    recordings = []
    for user in range(users):
        recordings.append(files.events(600, span=3_000_000))
        files.aedat3(folder / f"user{user:02}_led.aedat", *recordings[-1])
        rows = [f"{3 * user + k + 1},{k * 1_000_000},{(k + 1) * 1_000_000}" for k in range(3)]
        (folder / f"user{user:02}_led_labels.csv").write_text("\n".join(["class,startTime_usec,endTime_usec", *rows]))
    names = [f"user{user:02}_led.aedat" for user in range(users)]
    (folder / "trials_to_train.txt").write_text("\n".join(names[:-1]) + "\n")
    (folder / "trials_to_test.txt").write_text(names[-1] + "\n\n")
    return recordings


def test_gestures_are_cut_where_their_labels_say(tmp_path):
    recordings = gestures(tmp_path)
    of = data.create("dvs128-gesture", root=tmp_path, steps=4)
    assert (of.train_samples, of.test_samples, of.classes) == (6, 3, 11)
    assert of.train.targets == [0, 1, 2, 3, 4, 5]
    assert of.test.targets == [6, 7, 8]
    x, y, on, t = recordings[1]
    of_third = (t >= 2_000_000) & (t < 3_000_000)
    x, y, on = x[of_third], y[of_third], on[of_third]
    assert torch.equal(of.train[5][0], counted(x, y, on, by_count(len(x), 4), 4, (2, 128, 128)))


def test_times_of_aedat3_go_on_after_an_overflow(tmp_path):
    path = tmp_path / "one.aedat"
    words = struct.pack("<II", 5 << 17 | 6 << 2 | 3, 7)
    packets = b"".join(struct.pack("<HHIIIIII", 1, 1, 8, 4, lap, 1, 1, 1) + words for lap in (0, 1))
    path.write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + packets)
    assert read_aedat3(path, 0, 1 << 40).t.tolist() == [0, 1 << 31]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("user00_led.aedat", lambda raw: raw[:-5], r"user00_led\.aedat is truncated"),
        ("user00_led.aedat", lambda raw: raw[:-420], r"user00_led\.aedat is truncated"),
        ("user00_led_labels.csv", lambda raw: raw + b"\n12,0,10", "has class 12; DVS128-Gesture has classes 1 to 11"),
        ("user00_led_labels.csv", lambda raw: raw + b"\nwave", "has the line 'wave'; expected class, start and end"),
        ("trials_to_test.txt", lambda raw: b"user99.aedat", r"user99\.aedat is missing; trials_to_test\.txt names it"),
        ("trials_to_train.txt", lambda raw: b"", r"trials_to_train\.txt has no recordings"),
    ],
    ids=["event", "header", "class", "line", "recording", "empty"],
)
def test_damaged_gestures_are_refused(tmp_path, name, content, said):
    gestures(tmp_path)
    path = tmp_path / "DVSGesture" / "DvsGesture" / name
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(DataError, match=said):
        data.create("dvs128-gesture", root=tmp_path)


def test_tonics_cuts_of_gestures_are_read(tmp_path):
    x, y, on, t = files.events(50)
    for split in ("Train", "Test"):
        folder = tmp_path / "DVSGesture" / f"ibmGesture{split}" / "user01_led"
        folder.mkdir(parents=True)
        np.save(folder / "10.npy", np.stack([x, y, on, t // 1000], 1).astype(np.float64))
    of = data.create("dvs128-gesture", root=tmp_path, steps=5)
    frames, label = of.train[0]
    assert label == 10
    assert torch.equal(frames, counted(x, y, on, by_count(50, 5), 5, (2, 128, 128)))
    path = tmp_path / "DVSGesture" / "ibmGestureTest" / "user01_led" / "10.npy"
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        for look in (lambda: of.test[0], lambda: data.create("dvs128-gesture", root=tmp_path)):
            with pytest.raises(DataError, match=r"10\.npy is no readable array"):
                look()
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    np.save(path, np.zeros((3, 5)))
    with pytest.raises(DataError, match=r"10\.npy has an array of float64 \[3, 5\]; expected numbers \[n, 4\]"):
        data.create("dvs128-gesture", root=tmp_path)
    path.rename(path.with_name("11.npy"))
    with pytest.raises(DataError, match=r"11\.npy is not named after a class; names are 0\.npy to 10\.npy"):
        data.create("dvs128-gesture", root=tmp_path)


def caltech(root, classes=101):
    recordings = {}
    for i in range(classes):
        for k in range(2):
            path = root / "NCALTECH101" / "Caltech101" / f"class{i:03}" / f"image_{k}.bin"
            recordings[path] = files.events(30, span=300_000)
            files.ncaltech(path, *recordings[path])
    return recordings


def test_ncaltech101_has_integer_labels(tmp_path):
    recordings = caltech(tmp_path)
    of = data.create("n-caltech101", root=tmp_path, steps=3, size=60, augment=())
    assert (of.train_samples, of.test_samples, of.classes) == (101, 101, 101)
    assert of.test.targets == list(range(101))
    x, y, on, _ = recordings[min(recordings)]
    full = counted(x, y, on, by_count(30, 3), 3, (2, 180, 240))
    torch.testing.assert_close(of.train[0][0], torch.nn.functional.interpolate(full, (60, 60), mode="bilinear"))


def test_time_of_ncaltech101_goes_on_after_an_overflow(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes([5, 7, 0x80 | 1, 2, 3, 0, 240, 0, 0, 0, 6, 8, 1, 2, 3]))
    events = read_bin(path)
    assert events.t.tolist() == [0, 1 << 13]
    assert [part.tolist() for part in events.where] == [[1, 0], [7, 8], [5, 6]]


def test_damaged_ncaltech101_is_refused(tmp_path):
    recordings = caltech(tmp_path)
    first = min(recordings)
    of, whole = data.create("n-caltech101", root=tmp_path), first.read_bytes()
    first.write_bytes(bytes([250, 7, 0, 0, 1]))
    with pytest.raises(DataError, match=r"image_0\.bin.*events outside of its sensor \[2, 180, 240\]"):
        of.train[0]
    for content, said in ((whole[:-1], "is truncated: 149 bytes are not whole events of 5"), (b"", "has no events")):
        first.write_bytes(content)
        for look in (lambda: of.train[0], lambda: data.create("n-caltech101", root=tmp_path)):
            with pytest.raises(DataError, match=rf"image_0\.bin {said}"):
                look()


def test_another_number_of_classes_is_refused(tmp_path):
    caltech(tmp_path, classes=3)
    with pytest.raises(DataError, match=r"Caltech101 has 3 class folders .* and the set has 101"):
        data.create("n-caltech101", root=tmp_path)
    cifar10_dvs(tmp_path, per_class=1)
    with pytest.raises(DataError, match=r"airplane has 1 recordings .* each class needs two or more"):
        data.create("cifar10-dvs", root=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": "counts"}, "by is 'counts'; allowed: count, time, window; did you mean count"),
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"by": "window"}, "window is None; frames by window need it"),
        ({"by": "window", "window": 0.5}, "window is 0.5; it must be a whole number of at least 1"),
        ({"size": 0}, "size is 0; it must be a whole number of at least 1"),
        ({"normal": ((0.5,), (1.0,))}, "normal is .* means and the standard deviations of both polarities"),
        ({"normal": 3}, "normal is 3; it must be the means"),
        ({"normal": [[0, 0], [1, 0]]}, "normal is .* means and the standard deviations of both polarities"),
        ({"normal": [["a", "b"], [1, 1]]}, "normal is .* means and the standard deviations of both polarities"),
        ({"window": 10}, "window is 10; it is of by='window'"),
    ],
)
def test_frames_that_cannot_be_made_are_refused(tmp_path, options, said):
    cifar10_dvs(tmp_path)
    with pytest.raises(DataError, match=said):
        data.create("cifar10-dvs", root=tmp_path, **options)


@pytest.mark.parametrize(("name", "folder", "classes"), [("shd", "SHD", 20), ("ssc", "SSC", 35)])
def test_spikes_of_the_cochlea_are_counted_in_windows(tmp_path, name, folder, classes):
    pytest.importorskip("h5py")
    recordings = files.spikes(tmp_path / folder / f"{name}_train.h5", classes)
    files.spikes(tmp_path / folder / f"{name}_test.h5", classes)
    of = data.create(name, root=tmp_path, steps=100)
    assert (of.train_samples, of.classes, of.shape, of.sequential) == (12, classes, (700,), True)
    assert of.train.targets.tolist() == list(range(12))
    batch = next(of.batches(of.train, 100, 12, torch.arange(12)))
    assert batch.x.shape == (100, 12, 700)
    for i, (times, units) in enumerate(recordings):
        expected = torch.zeros(100, 700)
        steps = (times.astype(np.float64) // 0.014).astype(int)
        for step, unit in zip(steps, units, strict=True):
            expected[step, unit] += 1
        assert torch.equal(batch.x[:, i], expected)
        assert batch.lengths[i] == steps.max() + 1
    assert torch.equal(next(of.train_batches(100, 12, torch.arange(12)))[0], batch.x)
    assert next(data.create(name, root=tmp_path, steps=10).test_batches(10))[0].sum() == batch.x.sum()
    with pytest.raises(DataError, match="steps is 0; it must be a whole number"):
        data.create(name, root=tmp_path, steps=0)
    fixed = data.create(name, root=tmp_path, steps=9, by="count")
    assert next(fixed.test_batches(9))[0].shape == (9, 12, 700)


def test_workers_open_the_file_themselves(tmp_path):
    pytest.importorskip("h5py")
    for split in ("train", "test"):
        files.spikes(tmp_path / "SHD" / f"shd_{split}.h5", 20)
    alone, two = (data.create("shd", root=tmp_path, workers=workers) for workers in (0, 2))
    for (x, y), (x2, y2) in zip(alone.test_batches(80, 3), two.test_batches(80, 3), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_damaged_shd_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    train, test = (tmp_path / "SHD" / f"shd_{split}.h5" for split in ("train", "test"))
    files.spikes(test, 20)
    files.spikes(train, 35)
    with pytest.raises(DataError, match=r"shd_train\.h5 has 35 classes and the set has 20: it is another data set's"):
        data.create("shd", root=tmp_path)
    files.spikes(train, 20)
    with h5py.File(train, "a") as file:
        file["labels"][3] = 20
    with pytest.raises(DataError, match="labels from 0 to 20 and the set has 20 classes"):
        data.create("shd", root=tmp_path)
    train.write_bytes(test.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"shd_train\.h5 is no readable HDF5 file .*truncated"):
        data.create("shd", root=tmp_path)
    with h5py.File(train, "w") as file:
        file["labels"] = [1, 2]
    with pytest.raises(DataError, match=r"shd_train\.h5 is not in the format of SHD"):
        data.create("shd", root=tmp_path)
    for name, value in (("labels", 3), ("labels/inner", 3), ("extra/keys", 3), ("spikes/times", 3)):
        files.spikes(train, 20)
        with h5py.File(train, "a") as file:
            del file[name.partition("/inner")[0]]
            file[name] = value
        with pytest.raises(DataError, match=r"shd_train\.h5 is not in the format of SHD"):
            data.create("shd", root=tmp_path)
    files.spikes(train, 20)
    with h5py.File(train, "a") as file:
        file["spikes/units"][2] = np.array([700] * 32, np.uint16)
    with pytest.raises(DataError, match=r"recording 2 of .*shd_train\.h5 is damaged"):
        data.create("shd", root=tmp_path).train[2]
