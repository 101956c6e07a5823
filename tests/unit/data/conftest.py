"""Small Kaggle-layout folders, prepared stores, a scroll with absent chunks."""

from pathlib import Path

import numpy as np
import pytest
from http_volumes import serve

from vesuvius.data.prepare import PrepareOptions, prepare_volume
from vesuvius.data.sources import SourceItem, find_items
from vesuvius.data.tiff import write_tiff

SHAPE = (24, 40, 36)


def make_pair(seed: int, shape=SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Noise and a label with one small surface patch, 2 at the first slices."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[:2] = 2
    label[5, 6 + seed : 9 + seed, 4:9] = 1
    return rng.integers(1, 256, shape, dtype=np.uint8), label


def write_kaggle(root: Path, num: int = 5) -> Path:
    for i in range(num):
        image, label = make_pair(i)
        write_tiff(root / "train_images" / f"v{i}.tif", image)
        write_tiff(root / "train_labels" / f"v{i}.tif", label)
    write_tiff(root / "test_images" / "t0.tif", make_pair(9)[0])
    rows = "".join(f"v{i},{100 + i % 2}\n" for i in range(num))
    (root / "train.csv").write_text("id,scroll_id\n" + rows)
    return root


@pytest.fixture
def kaggle(tmp_path):
    return write_kaggle(tmp_path / "source")


@pytest.fixture
def scroll(tmp_path):
    """Image and label of `<tmp_path>/data`, mostly absent chunks."""
    from sparse_volumes import write_scroll  # imports Lightning

    return write_scroll(tmp_path / "data")


@pytest.fixture
def server(tmp_path):
    """`<tmp_path>/data` over HTTP: what was asked for, and faults to be set."""
    (tmp_path / "data").mkdir(exist_ok=True)
    with serve(tmp_path / "data") as state:
        yield state


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Five prepared training volumes v0 to v4 in 16-voxel chunks."""
    root = tmp_path_factory.mktemp("prepared")
    for item in find_items(write_kaggle(root / "source")):
        prepare_volume(item, root / item.split / f"{item.volume_id}.zarr", PrepareOptions(chunk=16))
    return root / "train"


@pytest.fixture
def prepare_array(tmp_path):
    """Prepare arrays given as NumPy; return the store's path."""

    def prepare(image, label=None, name="v", **options):
        image_path, label_path = tmp_path / f"{name}_i.npy", tmp_path / f"{name}_l.npy"
        np.save(image_path, image)
        if label is not None:
            np.save(label_path, label)
        item = SourceItem(name, "", image_path, None if label is None else label_path)
        target = tmp_path / "out" / f"{name}.zarr"
        prepare_volume(item, target, PrepareOptions(**options))
        return target

    return prepare
