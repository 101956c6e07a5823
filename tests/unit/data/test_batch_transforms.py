"""Augmentation steps against hand-made crops: what moves, what stays, what is drawn alike."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vesuvius.data import intensity, mixing, spatial
from vesuvius.data.batch_transforms import BatchTransforms
from vesuvius.errors import ConfigError

SHAPE = (10, 12, 14)


def rng(seed=0):
    return np.random.default_rng(seed)


def make_batch(num=3, channels=1, shape=SHAPE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(
            1, 256, (num, channels, *shape), generator=generator, dtype=torch.uint8
        ),
        "label": torch.randint(0, 3, (num, 1, *shape), generator=generator, dtype=torch.uint8),
        "wrap": torch.randint(0, 9, (num, 1, *shape), generator=generator, dtype=torch.int16),
        "volume_id": [f"v{n}" for n in range(num)],
        "origin_zyx": torch.arange(3 * num).view(num, 3),
    }


def part(batch, rows):
    return {
        name: [v for n, v in enumerate(value) if n in rows]
        if isinstance(value, list)
        else value[rows]
        for name, value in batch.items()
    }


STEPS = {
    "contrast": intensity.Contrast(share=1),
    "gamma": intensity.Gamma(share=1),
    "blur": intensity.Blur(share=1),
    "noise": intensity.Noise(share=1),
    "low_resolution": intensity.LowResolution(share=1),
    "rings": intensity.Rings(share=1, sigma=0.2, distance=50),
    "missing_slices": intensity.MissingSlices(share=1),
    "cut_out": intensity.CutOut(share=1),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_changes_the_ct_alone_within_0_and_1_and_repeats(name):
    image = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    before = image.clone()
    changed = STEPS[name](image, rng(3))
    assert torch.equal(image, before)  # not in place: the loader's batch is left alone
    assert not torch.equal(changed[:1], image[:1])
    assert torch.equal(changed[1:], image[1:])  # a former prediction is no CT
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert torch.equal(STEPS[name](image, rng(3)), changed)
    assert not torch.equal(STEPS[name](image, rng(4)), changed)


class Fixed(np.random.Generator):
    """Draws one given number wherever `uniform` is asked."""

    def __init__(self, value):
        super().__init__(np.random.PCG64(0))
        self.value = value

    def uniform(self, low=0.0, high=1.0, size=None):
        assert size is None
        return self.value


def test_contrast_by_hand():
    image = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2)
    changed = intensity.Contrast(share=1, contrast=0.5, shift=0.1)(image, Fixed(1.0))
    torch.testing.assert_close(changed.flatten(), torch.tensor([0.45, 0.75]))


def test_gamma_by_hand_keeps_the_ends():
    image = torch.tensor([0.2, 0.4, 0.6]).view(1, 1, 1, 3)
    changed = intensity.Gamma(share=1, spread=1.0)(image, Fixed(1.0))  # power 2
    torch.testing.assert_close(changed.flatten(), torch.tensor([0.2, 0.3, 0.6]))


def test_gaussian_is_scipys():
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    for sigma in (0.4, 1.0, 1.7):
        reach = max(1, int(np.ceil(3 * sigma)))
        expected = ndimage.gaussian_filter(image[0].numpy(), sigma, mode="nearest", radius=reach)
        np.testing.assert_allclose(intensity.gaussian(image, sigma)[0], expected, atol=1e-5)


def test_low_resolution_keeps_the_mean_and_loses_detail():
    image = torch.rand(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = intensity.LowResolution(share=1, factor=4.0)(image, Fixed(4.0))
    assert float(changed.mean()) == pytest.approx(float(image.mean()), abs=0.02)
    assert float(changed.std()) < 0.3 * float(image.std())


def test_rings_are_the_same_in_every_slice_and_constant_on_circles():
    image = torch.full((1, 4, 21, 21), 0.5)
    step = intensity.Rings(share=1, sigma=0.1, distance=0.0)  # axis in the crop's centre
    added = step(image, rng(1)) - image
    assert torch.equal(added[0, 0], added[0, 3])
    assert added[0, 0].std() > 0
    y, x = torch.meshgrid(torch.arange(21) - 10.5, torch.arange(21) - 10.5, indexing="ij")
    ring = (y.square() + x.square()).sqrt().floor() == 7
    assert len(added[0, 0][ring].unique()) == 1


def test_missing_slices_are_empty_or_repeat_the_one_before():
    image = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) + 0.01
    image = image.clamp(0, 1)
    kinds = set()
    for seed in range(20):
        changed = intensity.MissingSlices(share=1, num=3)(image, rng(seed))
        unequal = (image != changed)[0]
        differs = [
            unequal.movedim(a, 0).flatten(1).any(1).nonzero()[:, 0].tolist() for a in range(3)
        ]
        axis = 1 + min(range(3), key=lambda a: len(differs[a]))
        lost = differs[axis - 1]
        assert lost == list(range(lost[0], lost[0] + len(lost)))
        assert 1 <= len(lost) <= 3
        assert lost[0] > 0
        for n in lost:
            now = changed.select(axis, n)
            empty = not now.any()
            assert empty or torch.equal(now, image.select(axis, lost[0] - 1))
            kinds.add(empty)
    assert kinds == {True, False}


def test_cut_out_blanks_boxes_of_the_asked_size():
    image = torch.ones(1, 10, 20, 30)
    changed = intensity.CutOut(share=1, num=1, size=0.5)(image, rng())
    empty = (changed[0] == 0).nonzero()
    extent = empty.amax(0) - empty.amin(0) + 1
    assert extent.tolist() == [5, 10, 15]
    assert len(empty) == 5 * 10 * 15


def test_spline_basis_sums_to_one_and_reproduces_a_line():
    basis = spatial.spline_basis(33, 8.0)
    np.testing.assert_allclose(basis.sum(1), 1, atol=1e-6)
    controls = np.arange(basis.shape[1]) - 1.0  # control k lies at voxel 8 (k - 1)
    np.testing.assert_allclose(basis @ controls * 8, np.arange(33), atol=1e-4)


def test_elastic_moves_image_and_label_together_and_smoothly():
    shape = (24, 24, 24)
    plane = torch.zeros(1, 1, *shape)
    plane[:, :, 11:13] = 1
    batch = {"image": plane, "label": plane.to(torch.uint8)}
    step = spatial.SpatialTransform(share=1, max_degrees=0, zoom=0, elastic=2.0, spacing=12)
    moved = step(batch, [rng(2)])
    inside = moved["label"] != 2
    agree = (moved["image"] > 0.5) == (moved["label"] == 1)
    assert float(agree[inside].float().mean()) > 0.98
    assert not torch.equal(moved["label"], batch["label"])
    shift = step.displacement(shape, [rng(2)], torch.device("cpu"))
    assert shift.shape == (1, 3, *shape)
    assert 0.5 < float(shift.std()) < 2.5
    assert float(shift.diff(dim=2).abs().max()) < 1  # no voxel passes its neighbour


def test_zoom_by_hand():
    image = torch.arange(8.0).expand(1, 1, 8, 8, 8)
    step = spatial.SpatialTransform(share=1, max_degrees=0, zoom=0.5, elastic=0)
    grid = step.grid((8, 8, 8), [Fixed3(1.0)], torch.device("cpu"))
    taken = spatial.sample_linear(image, grid)[0, 0, 4, 4]
    expected = (torch.arange(8) - 3.5) * 1.5 + 3.5
    torch.testing.assert_close(taken, expected.clamp(0, 7))


class Fixed3(Fixed):
    """As `Fixed`, for several draws at once too."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return self.value if size is None else np.zeros(size)


def test_cutmix_takes_image_and_label_of_the_next_crop_and_ignores_the_seam():
    batch = make_batch()
    batch["image"] = batch["image"].float() / 255
    mixed = mixing.MixCrops(cutmix_share=1, size=0.5, ignored_rim=1)(
        batch, [rng(n) for n in range(3)], ignore=2
    )
    for n in range(3):
        other = (n + 1) % 3
        changed = (mixed["image"][n] != batch["image"][n])[0].nonzero()
        low, high = changed.amin(0), changed.amax(0) + 1
        assert (high - low).tolist() == [5, 6, 7]
        box = (0, *(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))
        core = (0, *(slice(int(a) + 1, int(b) - 1) for a, b in zip(low, high, strict=True)))
        assert torch.equal(mixed["image"][n][box], batch["image"][other][box])
        assert torch.equal(mixed["label"][n][core], batch["label"][other][core])
        assert torch.equal(mixed["wrap"][n][box], batch["wrap"][other][box])
        face = mixed["label"][n][0, int(low[0]), int(low[1]) : int(high[1])]
        if int(low[0]) > 0:
            assert (face[:, int(low[2]) : int(high[2])] == 2).all()


def test_mixup_adds_a_faint_copy_and_keeps_the_label():
    batch = make_batch()
    batch["image"] = batch["image"].float() / 255
    mixed = mixing.MixCrops(cutmix_share=0, mixup_share=1, strength=0.4)(
        batch, [rng(n) for n in range(3)], ignore=2
    )
    assert torch.equal(mixed["label"], batch["label"])
    drawn = (mixed["image"][0] - batch["image"][0]) / (batch["image"][1] - batch["image"][0])
    weight = float(drawn.nanmedian())
    assert 0 < weight < 0.4
    expected = torch.lerp(batch["image"][0], batch["image"][1], weight)
    torch.testing.assert_close(mixed["image"][0], expected, atol=1e-4, rtol=0)


def test_a_crop_looks_the_same_in_any_batch_and_other_in_another_epoch():
    transforms = BatchTransforms(
        seed=1, spatial=spatial.SpatialTransform(share=0.7), intensity={**STEPS, "none": None}
    )
    batch = make_batch(4)
    whole = transforms(batch, epoch=2)
    assert whole["image"].dtype == torch.float32
    for rows in ([0], [2, 3]):
        alone = transforms(part(batch, rows), epoch=2)
        for name in ("image", "label", "wrap"):
            torch.testing.assert_close(alone[name], whole[name][rows], atol=1e-6, rtol=0)
    assert not torch.equal(transforms(batch, epoch=3)["image"], whole["image"])


def test_nothing_drawn_leaves_the_scaled_image():
    batch = make_batch()
    same = BatchTransforms(seed=0, intensity={"noise": intensity.Noise(share=0)})(batch, epoch=0)
    torch.testing.assert_close(same["image"], batch["image"].float() / 255)
    assert same["label"] is batch["label"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: intensity.Noise(share=1.5), r"noise: share=1\.5; expected a share"),
        (lambda: intensity.Blur(sigma=-1), r"blur: sigma=-1; expected >= 0"),
        (lambda: intensity.LowResolution(factor=1), r"factor=1; expected > 1"),
        (lambda: intensity.MissingSlices(num=0), r"num=0; expected >= 1"),
        (lambda: intensity.CutOut(size=0), r"size=0 lie in \(0, 1\]"),
        (lambda: spatial.SpatialTransform(max_degrees=200), r"max_degrees=200"),
        (lambda: spatial.SpatialTransform(spacing=1), r"spacing=1 be >= 4"),
        (lambda: mixing.MixCrops(strength=0.5), r"strength=0\.5"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
