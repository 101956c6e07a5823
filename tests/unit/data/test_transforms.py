"""Rotation, grey values and cut-outs of batches, by hand."""

import numpy as np
import pytest
import torch

from vesuvius.data.transforms import (
    SurfaceTransforms,
    rotation_grid,
    rotation_matrix,
    sample_linear,
    sample_nearest,
)
from vesuvius.errors import ConfigError

SHAPE = (8, 12, 12)
OFF = {"rotate_share": 0.0, "intensity_share": 0.0, "cutout_share": 0.0}


def make_batch(num=3, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (num, 1, *shape), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, 3, (num, 1, *shape), generator=generator, dtype=torch.uint8)
    return {
        "image": image,
        "label": label,
        "volume_id": [f"v{n}" for n in range(num)],
        "origin_zyx": torch.arange(3 * num).view(num, 3),
    }


def part(batch, n):
    return {name: value[n : n + 1] for name, value in batch.items()}


def grid_for(degrees, shape=SHAPE):
    return rotation_grid(shape, np.array([degrees], dtype=float), torch.device("cpu"))


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_quarter_turn_about_z_is_rot90(angle):
    image = torch.rand(1, 1, *SHAPE)
    turned = sample_linear(image, grid_for([angle, 0, 0]))
    torch.testing.assert_close(turned, image.rot90(-angle // 90, (3, 4)), atol=1e-5, rtol=0)
    label = torch.randint(0, 3, (1, 1, *SHAPE), dtype=torch.uint8)
    assert torch.equal(
        sample_nearest(label, grid_for([angle, 0, 0]), 2), label.rot90(-angle // 90, (3, 4))
    )


def test_a_half_turn_about_x_flips_z_and_y_of_any_shape():
    image = torch.rand(1, 1, 4, 6, 10)
    turned = sample_linear(image, grid_for([0, 0, 180], (4, 6, 10)))
    torch.testing.assert_close(turned, image.flip(2, 3), atol=1e-5, rtol=0)


def test_angles_are_true_on_patches_that_are_no_cubes():
    # a sheet z = 0.5 y of a 16 x 32 x 8 patch, turned back by its slope, lies flat
    z, y, _ = torch.meshgrid(*[torch.arange(n) for n in (16, 32, 8)], indexing="ij")
    height = (z - 7.5) - 0.3 * (y - 15.5)
    sheet = torch.exp(-(height**2) / 4)[None, None]
    angle = np.degrees(np.arctan(0.3))
    spreads = []
    for sign in (-1, 1):
        turned = sample_linear(sheet, grid_for([0, 0, sign * angle], (16, 32, 8)))
        peaks = turned[0, 0, :, 8:24, 4].argmax(0)
        spreads.append(int(peaks.max() - peaks.min()))
    assert min(spreads) <= 1  # flat one way, twice as steep the other way
    assert max(spreads) >= 6


def test_rotations_are_proper():
    matrix = rotation_matrix([10, -20, 30])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_what_comes_from_outside_is_ignored():
    label = torch.ones(1, 1, 16, 16, 16, dtype=torch.uint8)
    turned = sample_nearest(label, grid_for([45, 0, 0], (16, 16, 16)), 2)
    assert (turned[0, 0, :, 0, 0] == 2).all()
    assert (turned[0, 0, :, 8, 8] == 1).all()
    # corners of a square turned by 45 degrees: 2 - 2 (sqrt 2 - 1) of its area are kept
    kept = float((turned == 1).float().mean())
    assert kept == pytest.approx(2 * (np.sqrt(2) - 1), abs=0.06)


def test_with_everything_off_only_the_scale_changes():
    batch = make_batch()
    changed = SurfaceTransforms(seed=0, **OFF)(batch, epoch=3)
    assert torch.equal(changed["image"], batch["image"].float() / 255)
    assert torch.equal(changed["label"], batch["label"])
    assert changed["volume_id"] == batch["volume_id"]


def test_image_label_and_wrap_turn_together():
    batch = make_batch(1, (12, 12, 12))
    batch["label"] = torch.zeros_like(batch["label"])
    batch["label"][:, :, 5:7] = 1
    batch["image"] = batch["label"] * 200
    batch["wrap"] = batch["label"].to(torch.int16) * 7
    options = {**OFF, "rotate_share": 1.0}
    before = {name: value.clone() for name, value in batch.items() if name != "volume_id"}
    changed = SurfaceTransforms(seed=0, max_degrees=30, **options)(batch, epoch=0)
    assert changed["label"].dtype == torch.uint8
    assert set(changed["label"].unique().tolist()) == {0, 1, 2}
    surface = changed["label"] == 1
    assert not torch.equal(changed["label"], batch["label"])
    assert changed["image"][surface].min() > 0.2
    assert (changed["wrap"][surface] == 7).all()
    for name, value in before.items():
        assert torch.equal(batch[name], value)  # the batch itself stays as it was


def test_cut_outs_blank_boxes_and_leave_the_label():
    batch = make_batch()
    batch["image"].clamp_(min=1)
    options = {**OFF, "cutout_share": 1.0}
    one = SurfaceTransforms(seed=0, num_cuts=1, cut_share=0.25, **options)(batch, epoch=0)
    assert torch.equal(one["label"], batch["label"])
    assert (one["image"] == 0).flatten(1).sum(1).tolist() == [2 * 3 * 3] * 3
    five = SurfaceTransforms(seed=0, num_cuts=5, cut_share=0.25, **options)(batch, epoch=0)
    blank = (five["image"] == 0).flatten(1).sum(1)
    assert (blank > 18).all()
    assert (blank <= 5 * 18).all()


def test_grey_values_change_within_their_range():
    batch = make_batch()
    options = {**OFF, "intensity_share": 1.0}
    plain = batch["image"].float() / 255
    shifted = SurfaceTransforms(seed=0, shift=0.05, contrast=0.0, **options)(batch, epoch=0)
    for new, old in zip(shifted["image"], plain, strict=True):
        inside = (old > 0.1) & (old < 0.9)
        difference = (new - old)[inside]
        assert difference.std() < 1e-6
        assert 0 < abs(difference.mean()) <= 0.05
    wild = SurfaceTransforms(seed=0, shift=1.0, contrast=0.9, **options)(batch, epoch=0)["image"]
    assert wild.min() >= 0
    assert wild.max() <= 1
    narrow = SurfaceTransforms(seed=0, shift=0.0, contrast=0.5, **options)(batch, epoch=0)["image"]
    ratio = narrow.flatten(1).std(1) / plain.flatten(1).std(1)
    assert ((ratio - 1).abs() <= 0.5).all()
    assert (ratio != 1).all()


def test_a_sample_looks_the_same_in_any_batch_and_differs_between_epochs():
    batch = make_batch()
    transforms = SurfaceTransforms(seed=4)
    together = transforms(batch, epoch=1)
    for n in range(3):
        alone = transforms(part(batch, n), epoch=1)
        torch.testing.assert_close(alone["image"], together["image"][n : n + 1])
        assert torch.equal(alone["label"], together["label"][n : n + 1])
    assert not torch.equal(transforms(batch, epoch=2)["image"], together["image"])
    assert not torch.equal(SurfaceTransforms(seed=5)(batch, epoch=1)["image"], together["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate_share": 1.5}, r"transforms\.rotate_share=1.5; expected a share in \[0, 1\]"),
        ({"max_degrees": 200}, r"max_degrees=200 must lie in \[0, 180\]"),
        ({"contrast": 1.0}, r"contrast=1\.0 in \[0, 1\)"),
        ({"cut_share": 0.0}, r"cut_share=0\.0 lie in \(0, 1\]"),
    ],
    ids=["share", "angle", "contrast", "cut"],
)
def test_bad_numbers_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        SurfaceTransforms(seed=0, **options)
