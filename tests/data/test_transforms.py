"""Augmentations."""

import pytest
import torch

from fastsnn import data
from fastsnn.data.mapped import drawing
from fastsnn.data.transforms import FRAMES, IMAGES, Roll, chosen, frame_transform, image_transform
from fastsnn.errors import DataError

from . import files

v2 = pytest.importorskip("torchvision.transforms.v2", reason="pip install 'fastsnn[vision]'")

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_cutout_hides_a_square_cut_off_at_the_border():
    torch.manual_seed(0)
    cut, image, sides = data.Cutout(4), torch.ones(3, 9, 9), set()
    for _ in range(200):
        hidden = cut(image)[0] == 0
        rows, columns = hidden.any(1), hidden.any(0)
        assert torch.equal(hidden, rows[:, None] & columns)
        sides |= {int(rows.sum()), int(columns.sum())}
    assert sides == {2, 3, 4}
    assert (image == 1).all()


def test_temporal_delete_keeps_frames_in_their_order():
    torch.manual_seed(0)
    frames, seen = torch.arange(20.0)[:, None], set()
    for _ in range(50):
        kept = data.RandomTemporalDelete(14)(frames)[:, 0]
        assert len(kept) == 14
        assert (kept.diff() > 0).all()
        seen |= set(kept.tolist())
    assert seen == set(range(20))
    with pytest.raises(DataError, match="temporal_delete keeps 21 frames; a sample has 20"):
        data.RandomTemporalDelete(21)(frames)


def test_roll_moves_up_to_its_pixels_both_ways():
    torch.manual_seed(0)
    frames = torch.zeros(3, 2, 16, 16)
    frames[..., 8, 8] = 1
    moves = torch.stack([Roll(5)(frames)[0, 0].nonzero()[0] for _ in range(300)]) - 8
    assert moves.min(0).values.tolist() == [-5, -5]
    assert moves.max(0).values.tolist() == [5, 5]


def test_nda_moves_all_frames_alike_and_mirrors_half():
    torch.manual_seed(0)
    frame = torch.rand(2, 24, 24)
    frames, left_alone, mirrored, rolled = frame.expand(4, 2, 24, 24).clone(), 0, 0, 0
    for _ in range(300):
        moved = data.NDA(30)(frames)
        assert torch.equal(moved, moved[:1].expand_as(moved))
        for image, is_mirrored in ((frame, False), (frame.flip(-1), True)):
            if any(torch.equal(moved[0], image.roll((i, j), (-2, -1))) for i in range(-5, 6) for j in range(-5, 6)):
                rolled, mirrored = rolled + 1, mirrored + is_mirrored
        left_alone += torch.equal(moved, frames)
    assert 60 < rolled < 140  # a third
    assert 0.3 < mirrored / rolled < 0.7
    assert left_alone < 10


def test_images_without_augmentation_are_scaled_and_normalised():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    out = image_transform({}, 32, ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3)))(image)
    torch.testing.assert_close(out[2], (image[2] / 255 - 0.3) / 0.3)


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "mixup"])
def test_every_augmentation_of_images_does_its_own(name):
    image = torch.randint(1, 256, (3, 32, 32), dtype=torch.uint8)
    transform = image_transform(chosen([name], IMAGES), 32, PLAIN)
    outs = []
    for seed in range(8):
        with drawing(seed, 0):
            outs.append(transform(image))
    assert all(out.shape == (3, 32, 32) and out.dtype == torch.float32 for out in outs)
    assert len({out.numpy().tobytes() for out in outs}) > 1
    plain = image_transform({}, 32, PLAIN)(image)
    if name == "flip":
        assert all(torch.equal(out, plain) or torch.equal(out, plain.flip(-1)) for out in outs)
    if name == "crop":
        padded = torch.nn.functional.pad(plain, [4] * 4)
        crops = [padded[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
        assert all(any(torch.equal(out, crop) for crop in crops) for out in outs)
    if name == "cutout":
        assert all(((out == 0) | (out == plain)).all() and 64 <= (out[0] == 0).sum() <= 256 for out in outs)


def test_augmentations_have_the_values_they_are_given():
    values = chosen({"crop": 2, "autoaugment": "imagenet", "randaugment": None, "mixup": 0.2}, IMAGES)
    assert values == {"crop": 2, "autoaugment": "imagenet", "randaugment": 9, "mixup": 0.2}
    made = image_transform(values, 32, PLAIN).transforms
    assert [type(one) for one in made] == [v2.RandomCrop, v2.AutoAugment, v2.RandAugment, v2.ToDtype, v2.Normalize]
    assert made[0].padding == [2] * 4
    assert made[1].policy == v2.AutoAugmentPolicy.IMAGENET
    assert made[2].magnitude == 9


def test_gesture_is_augmented_as_in_osr():
    names = ("resized_crop", "rotation", "temporal_delete")
    made = frame_transform(chosen(names, FRAMES), (128, 128), 48, None, 20).transforms
    assert [type(one) for one in made] == [
        v2.RandomResizedCrop,
        v2.Resize,
        v2.RandomRotation,
        data.RandomTemporalDelete,
    ]
    assert made[0].size == (128, 128)
    assert tuple(made[0].scale) == (0.7, 1)
    assert made[3].keep == 14
    assert v2.Compose(made)(torch.rand(20, 2, 128, 128)).shape == (14, 2, 48, 48)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("cifar10", {"augment": ["cutuot"]}, "augment is 'cutuot'; allowed: crop, .*; did you mean cutout"),
        ("cifar10", {"augment": {"crop": -1}}, "augment 'crop' is -1; it must be a whole number of at least 1"),
        ("cifar10", {"augment": {"mixup": float("nan")}}, "augment 'mixup' is nan; it must be a positive number"),
        ("cifar10", {"augment": {"autoaugment": "cifar"}}, "autoaugment is 'cifar'; allowed: imagenet, cifar10, svhn"),
        ("cifar10", {"augment": {"crop": "wide"}}, "augment 'crop' is 'wide'"),
        ("cifar10", {"augment": {"cutout": 2.5}}, "augment 'cutout' is 2.5; it must be a whole number of at least 1"),
        ("cifar10", {"augment": {"flip": 2}}, r"augment 'flip' is 2; it must be in \(0, 1\]"),
        ("dvs128-gesture", {"augment": ["mixup"]}, "augment is 'mixup'; allowed: resized_crop"),
        ("dvs128-gesture", {"augment": {"temporal_delete": 21}}, "is how many of T = 20 frames stay, 1 to 20"),
        (
            "dvs128-gesture",
            {"augment": ["temporal_delete"], "by": "window", "window": 5},
            "augment 'temporal_delete' needs samples of T frames",
        ),
    ],
)
def test_unknown_and_impossible_augmentations_are_refused(tmp_path, name, options, said):
    from .test_events import gestures

    files.cifar10(tmp_path)
    gestures(tmp_path)
    with pytest.raises(DataError, match=said):
        data.create(name, root=tmp_path, **options)
