"""A stored prediction as second channel: turned alike, refused where it does not fit."""

import numpy as np
import pytest

from vesuvius.data.prior import ImageWithPrior, PriorReader
from vesuvius.data.store import PreparedVolume, list_prepared
from vesuvius.data.surface import SurfaceDataModule
from vesuvius.data.surface_dataset import SurfaceDataset
from vesuvius.errors import ConfigError, PairingError, ShapeMismatchError
from vesuvius.inference import PredictionWriter


@pytest.fixture(scope="module")
def priors(prepared, tmp_path_factory):
    """For every training volume a prediction that equals its image."""
    folder = tmp_path_factory.mktemp("priors")
    for path in list_prepared(prepared):
        image = PreparedVolume(path).array("image")
        values = image.read((0, 0, 0), image.shape)
        with PredictionWriter(
            folder, path.stem, shape_zyx=image.shape, outputs=["probability"]
        ) as writer:
            writer.arrays["probability"][:] = values
    return folder


def test_crops_hold_the_prior_of_the_same_place_turned_the_same_way(prepared, priors):
    dataset = SurfaceDataset(
        list_prepared(prepared), (16, 24, 24), augment="cube", prior_root=priors
    )
    plain = SurfaceDataset(list_prepared(prepared), (16, 24, 24), augment="cube")
    for i in range(4):
        sample = dataset[(0, i)]
        assert sample["image"].shape == (2, 16, 24, 24)
        np.testing.assert_array_equal(sample["image"][1], sample["image"][0])
        np.testing.assert_array_equal(sample["image"][:1], plain[(0, i)]["image"])


def test_crops_beyond_a_small_volume_are_padded_with_zeros(prepared, priors):
    dataset = SurfaceDataset(list_prepared(prepared), (48, 48, 48), prior_root=priors)
    image = dataset[(0, 0)]["image"]
    assert not image[:, 40:].any()
    assert image[1, :40].any()


def test_a_data_module_checks_every_volume_before_training(prepared, priors, tmp_path):
    def module(root):
        return SurfaceDataModule(prepared, (16, 16, 16), prior_root=root)

    module(priors).setup()
    with pytest.raises(PairingError, match=r"no prediction of volume .* save_probability=true"):
        module(tmp_path).setup()
    name = list_prepared(prepared)[0].stem
    with PredictionWriter(tmp_path, name, shape_zyx=(8, 8, 8), outputs=["probability"]):
        pass
    with pytest.raises(ShapeMismatchError, match="belongs to another volume"):
        module(tmp_path).setup()


def test_an_image_with_its_prior_reads_like_an_array(tmp_path):
    image = np.arange(6 * 5 * 4, dtype=np.uint16).reshape(6, 5, 4)
    stored = (np.arange(120) * 2).astype(np.uint8).reshape(6, 5, 4)
    with PredictionWriter(tmp_path, "a", shape_zyx=(6, 5, 4), outputs=["probability"]) as writer:
        writer.arrays["probability"][:] = stored
    prior = PriorReader(tmp_path, "a", shape_zyx=(6, 5, 4), dtype=image.dtype)
    both = ImageWithPrior(image, prior)
    assert (both.shape, both.dtype) == ((2, 6, 5, 4), np.uint16)
    box = both[:, 1:4, 2:5, 0:3]
    np.testing.assert_array_equal(box[0], image[1:4, 2:5, 0:3])
    np.testing.assert_array_equal(box[1], stored[1:4, 2:5, 0:3].astype(np.uint16) * 257)
    with pytest.raises(ConfigError, match="uint8 or uint16 images, this one is float32"):
        PriorReader(tmp_path, "a", shape_zyx=(6, 5, 4), dtype=np.float32)
