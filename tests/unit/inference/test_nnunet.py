"""Parts of nnU-Net's inference by hand; the whole of it: tests/integration/test_nnunet.py."""

import numpy as np
import pytest
import torch

from vesuvius.errors import CheckpointError, ConfigError
from vesuvius.inference.nnunet import (
    Normalisation,
    gaussian_weights,
    mirror_combinations,
    nonzero_box,
    predict_nnunet,
    window_boxes,
)


def grey(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        (Normalisation("CTNormalization", mean=3, std=2, low=1, high=5), [-1, -0.5, 1]),
        (Normalisation("ZScoreNormalization"), [-1.069045, -0.267261, 1.336306]),
        (Normalisation("RescaleTo01Normalization"), [0, 1 / 3, 1]),
        (Normalisation("RGBTo01Normalization"), [0, 2 / 255, 6 / 255]),
        (Normalisation("NoNormalization"), [0, 2, 6]),
        # 2 and 6 alone: mean 4, deviation 2; 0 stays
        (Normalisation("ZScoreNormalization", mask_only=True), [0, -1, 1]),
    ],
)
def test_normalisations(normalisation, expected):
    image = grey(0, 2, 6)
    np.testing.assert_allclose(normalisation(image)[0, 0], expected, rtol=1e-5, atol=1e-7)
    assert image.tolist() == grey(0, 2, 6).tolist()  # a copy


def test_constant_volumes_do_not_divide_by_zero():
    assert np.isfinite(Normalisation("ZScoreNormalization")(grey(7, 7))).all()
    assert Normalisation("RescaleTo01Normalization")(grey(7, 7)).max() == 0


def test_windows_are_spread_evenly():
    # nnU-Net's own example: 110 voxels, window 64, step 0.5: 0, 23, 46
    starts = [box[0].start for box in window_boxes((110, 64, 64), (64, 64, 64), 0.5)]
    assert starts == [0, 23, 46]
    boxes = window_boxes((4, 6, 6), (4, 4, 4), 0.5)
    assert [(b[1].start, b[2].start) for b in boxes] == [(0, 0), (0, 2), (2, 0), (2, 2)]


def test_weights_peak_in_the_middle_and_are_never_zero():
    weights = gaussian_weights((16, 24, 24))
    assert weights.dtype == torch.half
    assert weights[8, 12, 12] == weights.max() == 10
    assert weights.min() > 0
    # sigma = 24 / 8 = 3 along x, up to half precision's 3 digits
    assert float(weights[8, 12, 15]) == pytest.approx(10 * np.exp(-0.5), rel=2e-3)


def test_box_of_nonzero_voxels():
    image = np.zeros((4, 5, 6), np.float32)
    assert nonzero_box(image) == (slice(None), slice(None), slice(None))
    image[1, 2, 3] = image[2, 2, 5] = 1
    assert nonzero_box(image) == (slice(1, 3), slice(2, 3), slice(3, 6))


def test_mirrors_are_all_combinations():
    assert mirror_combinations((0, 2)) == [(2,), (4,), (2, 4)]
    assert mirror_combinations(()) == []
    with pytest.raises(ConfigError, match="expected some of 0, 1, 2"):
        mirror_combinations((3,))


def ramp_logits(window: torch.Tensor) -> torch.Tensor:
    """Two heads: 0, and the voxel's value plus a term that tells the axes apart."""
    z, y, x = (torch.arange(n, dtype=torch.float32) for n in window.shape[2:])
    place = z[:, None, None] / 7 + y[:, None] / 5 + x / 3
    surface = window[0, 0] + place
    return torch.stack([torch.zeros_like(surface), surface])[None]


def run(image: np.ndarray, **options) -> np.ndarray:
    values = {"roi_zyx": (4, 4, 4), "normalisation": Normalisation("NoNormalization")}
    return predict_nnunet([ramp_logits], image, device="cpu", **(values | options))


def test_transposed_plans_see_the_transposed_volume(rng):
    image = rng.random((4, 6, 5), dtype=np.float32) + 0.1
    for axes in ((1, 2, 0), (2, 1, 0)):
        found = run(image, transpose=axes)
        truth = run(np.ascontiguousarray(image.transpose(axes))).transpose(np.argsort(axes))
        np.testing.assert_array_equal(found, truth)
        assert not np.array_equal(found, run(image))


def test_small_volumes_are_padded_and_folds_averaged(rng):
    image = rng.random((2, 3, 4), dtype=np.float32) + 0.1
    found = run(image)
    assert found.shape == (2, 3, 4)
    # one window, the volume in its middle: one voxel before z, none before y
    place = (np.arange(2) + 1)[:, None, None] / 7 + np.arange(3)[:, None] / 5 + np.arange(4) / 3
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-(image + place))), atol=0.1)
    np.testing.assert_allclose(
        found[:, 1:, 1:3], (1 / (1 + np.exp(-(image + place))))[:, 1:, 1:3], atol=2e-3
    )
    twice = predict_nnunet(
        [ramp_logits, lambda window: -ramp_logits(window)],
        image,
        device="cpu",
        roi_zyx=(4, 4, 4),
        normalisation=Normalisation("NoNormalization"),
    )
    np.testing.assert_allclose(twice, 0.5, atol=1e-6)


def test_sigmoid_for_regions_and_what_is_refused(rng):
    image = rng.random((4, 4, 4), dtype=np.float32) + 0.1
    np.testing.assert_allclose(run(image, softmax=False), run(image), atol=1e-6)  # other head is 0
    with pytest.raises(ConfigError, match="head is 2; the network has 2 heads"):
        run(image, head=2)
    with pytest.raises(ConfigError, match="step_share is 0"):
        run(image, step_share=0)
    with pytest.raises(ConfigError, match="'Mine' is unknown"):
        Normalisation("Mine")
    with pytest.raises(CheckpointError, match="infinities or NaN"):
        predict_nnunet(
            [lambda window: ramp_logits(window) * torch.nan],
            image,
            device="cpu",
            roi_zyx=(4, 4, 4),
            normalisation=Normalisation("NoNormalization"),
        )
