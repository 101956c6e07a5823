"""Normals that are read off the probability instead of a head."""

import numpy as np
import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.inference import predict_volume, surface_predictor, with_normals_from

CENTRE_ZYX = np.array([20.0, -30.0, -25.0])
RADII = (55.0, 66.0)
SHAPE_ZYX = (40, 45, 51)  # odd: blocks of 2 voxels do not divide it


def shells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the uint8 image of two thin spheres, their true normals, and where they are."""
    place = np.stack(np.meshgrid(*map(np.arange, SHAPE_ZYX), indexing="ij")).astype(np.float32)
    offset = place - CENTRE_ZYX[:, None, None, None]
    radius = np.sqrt((offset**2).sum(0))
    near = np.min([np.abs(radius - r) for r in RADII], axis=0)
    image = np.round(255 * np.exp(-((near / 1.5) ** 2))).astype(np.uint8)
    return image, offset / radius, near < 1


def network(image):
    """Say that the image is the probability; the normals of its head are all wrong."""
    wrong = torch.zeros(len(image), 3, *image.shape[2:])
    wrong[:, 0] = 1
    return {"surface_logit": torch.logit(image, eps=1e-6), "normals": wrong}


def without_head(image):
    return {"surface_logit": network(image)["surface_logit"]}


def degrees(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(found, axis=0)
    cosine = np.abs((found * truth).sum(0)) / np.maximum(length, 1e-6)
    return np.degrees(np.arccos(cosine.clip(0, 1)))


@pytest.mark.parametrize("net", [network, without_head], ids=["wrong head", "no head"])
@pytest.mark.parametrize("roi_zyx", [SHAPE_ZYX, (24, 24, 24)], ids=["one window", "stitched"])
def test_the_normals_of_two_spheres_are_their_radii(net, roi_zyx):
    image, truth, surface = shells()
    predict = with_normals_from(surface_predictor(net), "structure_tensor")
    result = predict_volume(predict, image, roi_zyx=roi_zyx, device="cpu")
    normals = np.asarray(result.normals, np.float32)[:, surface] / 127
    angles = degrees(normals, truth[:, surface])
    # 11 voxels between shells of these radii and an average over 10 bend them by a few degrees;
    # without a common sign of the windows the stitched ones would cancel.
    assert angles.mean() < 2
    assert np.percentile(angles, 95) < 6
    assert np.percentile(np.linalg.norm(normals, axis=0), 5) > 0.9
    head = predict_volume(surface_predictor(network), image, roi_zyx=SHAPE_ZYX, device="cpu")
    wrong = degrees(np.asarray(head.normals, np.float32)[:, surface], truth[:, surface])
    assert wrong.mean() > 50


def test_mirrored_copies_change_nothing():
    image = torch.from_numpy(shells()[0][None, None].astype(np.float32) / 255)
    one = with_normals_from(surface_predictor(without_head), "structure_tensor")(image)
    eight = with_normals_from(surface_predictor(without_head, tta="flips"), "structure_tensor")
    torch.testing.assert_close(eight(image)["normals"], one["normals"], atol=1e-3, rtol=0)


def test_air_has_no_normals():
    """Noise below one step of a stored probability is no sheet."""
    noise = torch.rand((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
    result = with_normals_from(surface_predictor(without_head), "structure_tensor")(noise)
    assert float(result["normals"].abs().max()) == 0


def test_unknown_source_is_refused():
    with pytest.raises(
        ConfigError, match="normals must be 'head' or 'structure_tensor', got 'mask'"
    ):
        with_normals_from(surface_predictor(network), "mask")
