"""Stores read by ome-zarr-models, which knows OME-NGFF 0.5 and nothing of this project."""

import numpy as np
import pytest
import zarr
from ome_zarr_models.v04.omero import Omero
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels

from vesuvius.inference.prediction_blocks import PredictionBlocks
from vesuvius.inference.store import PredictionWriter
from vesuvius.storage.block_store import BlockStore
from vesuvius.storage.ome import BlockArray

PLACE = {"voxel_size_zyx_um": (7.91, 7.91, 7.91), "origin_zyx": (100, 0, 10)}


def write_prediction(kind, folder, shape):
    """A prediction of zeros with normals."""
    outputs = ("probability", "normals")
    if kind == "blocks":
        store = PredictionBlocks(folder, "v", shape_zyx=shape, outputs=outputs, block=64, **PLACE)
        for index in store.blocks():
            size = [part.stop - part.start for part in store.box(index)]
            zeros = {"probability": np.zeros(size, np.uint8)}
            store.write(index, {**zeros, "normals": np.zeros((3, *size), np.int8)})
        assert store.finish()
        return store.path
    with PredictionWriter(folder, "v", shape_zyx=shape, outputs=outputs, **PLACE) as writer:
        pass
    return writer.path


@pytest.mark.parametrize(("kind", "levels"), [("blocks", 2), ("whole", 1)])
def test_predictions_are_strict_ome_zarr(tmp_path, kind, levels):
    path = write_prediction(kind, tmp_path, (70, 64, 65))
    image = Image.from_zarr(zarr.open_group(path, mode="r"))
    ome = image.ome_attributes
    assert ome.version == "0.5"
    probability, normals = ome.multiscales
    assert [axis.name for axis in probability.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in probability.axes} == {"micrometer"}
    assert [axis.type for axis in normals.axes] == ["channel", "space", "space", "space"]
    assert (probability.type, normals.type) == ("mean", "nearest")
    assert all(scales.name and scales.metadata for scales in ome.multiscales)  # strict schema
    assert [len(scales.datasets) for scales in ome.multiscales] == [levels] * 2
    scale, translation = probability.datasets[-1].coordinateTransformations
    step = 2 ** (levels - 1)
    assert scale.scale == pytest.approx([7.91 * step] * 3)
    shift = (step - 1) / 2
    assert translation.translation == pytest.approx(
        [(n + shift) * 7.91 for n in PLACE["origin_zyx"]]
    )
    # 0.5 names no keys of `omero`; viewers read those of 0.4
    (channel,) = Omero(**ome.omero).channels
    assert (channel.window.start, channel.window.end) == (0, 255)
    group = zarr.open_group(path, mode="r")
    for scales in ome.multiscales:  # "dimension_names must match the names in the axes metadata"
        for dataset in scales.datasets:
            names = group[dataset.path].metadata.dimension_names
            assert list(names) == [axis.name for axis in scales.axes]


def test_unknown_voxel_size_leaves_the_axes_without_unit(tmp_path):
    with PredictionWriter(tmp_path, "v", shape_zyx=(4, 4, 4), outputs=("probability",)) as writer:
        pass
    image = Image.from_zarr(zarr.open_group(writer.path, mode="r"))
    assert {axis.unit for axis in image.ome_attributes.multiscales[0].axes} == {None}


def test_label_images_lie_where_viewers_look(tmp_path):
    arrays = [
        BlockArray("field", "float32", pick=True),
        BlockArray("labels", "int32", pick=True, label="sheets"),
    ]
    store = BlockStore(
        tmp_path / "s.zarr", arrays, shape_zyx=(70, 64, 65), attributes={"settings": {}},
        block=128, **PLACE,
    )  # fmt: skip
    numbers = np.arange(70 * 64 * 65, dtype=np.int32).reshape(70, 64, 65)
    store.write((0, 0, 0), {"field": numbers.astype(np.float32), "labels": numbers})
    assert store.finish()
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    image = Image.from_zarr(group)
    assert [scales.name for scales in image.ome_attributes.multiscales] == ["s field"]
    assert Labels.from_zarr(group["labels"]).ome_attributes.labels == ["sheets"]
    label = ImageLabel.from_zarr(group["labels/sheets"])
    assert label.ome_attributes.image_label.source.image == "../../"
    assert [d.path for d in label.ome_attributes.multiscales[0].datasets] == ["0", "1"]
    np.testing.assert_array_equal(group["labels/sheets/0"][:], numbers)
    np.testing.assert_array_equal(group["labels/sheets/1"][:], numbers[::2, ::2, ::2])
