"""Zarr volumes with sparse labels for tests, and data modules over them."""

import itertools
from pathlib import Path

import numpy as np
import zarr

from vesuvius.data.remote import RemoteSettings
from vesuvius.data.surface_volumes import SurfaceVolumesDataModule

SHAPE = (40, 48, 56)
PATCH = (16, 16, 16)
FAST = RemoteSettings(timeout_s=5, attempts=3, wait_s=0.01)


def make_arrays(seed=0, shape=SHAPE):
    """Return noise, and labels of which only two chunks of 16^3 are annotated (others: None)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, shape, dtype=np.uint8)
    label = np.full(shape, 2, np.uint8)
    label[0:16, 16:32, 0:16] = 0
    label[5, 18:30, 2:14] = 1
    label[32:40, 32:48, 48:56] = rng.integers(0, 2, (8, 16, 8))
    return image, label


def write_label(folder, label, **options):
    """Write a sparse label array: chunks that hold nothing but 2 are never written."""
    array = zarr.create_array(
        folder,
        shape=label.shape,
        dtype=label.dtype,
        chunks=(16, 16, 16),
        fill_value=0,
        config={"write_empty_chunks": True},
        **options,
    )
    for z, y, x in itertools.product(*(range(0, n, 16) for n in label.shape)):
        box = (slice(z, z + 16), slice(y, y + 16), slice(x, x + 16))
        if (label[box] != 2).any():
            array[box] = label[box]


def write_scroll(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write image.zarr and label.zarr into a folder; return the two arrays."""
    image, label = make_arrays()
    zarr.create_array(folder / "image.zarr", data=image, chunks=(16, 16, 16))
    write_label(folder / "label.zarr", label)
    return image, label


def write_ome(folder, image, label, version):
    for name, data in (("image", image), ("label", label)):
        group = zarr.create_group(folder / f"{name}.zarr", zarr_format=2 if version == "0.4" else 3)
        for level in range(2):
            step = 2**level
            group.create_array(str(level), data=data[::step, ::step, ::step], chunks=(16, 16, 16))
        axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
        scales = [[{"type": "scale", "scale": [8.0 * 2**level] * 3}] for level in range(2)]
        datasets = [
            {"path": str(level), "coordinateTransformations": scales[level]} for level in range(2)
        ]
        meta = {"multiscales": [{"axes": axes, "datasets": datasets}]}
        group.attrs.update(meta if version == "0.4" else {"ome": meta})


def module_of(tmp_path, *volumes, **options):
    plain = {
        "patch_zyx": PATCH,
        "cache_folder": tmp_path / "cache",
        "num_workers": 0,
        "val_share": 0,
        "samples_per_volume": 10,
        "batch_size": 5,
        "augment": "none",
        "remote": FAST,
    }
    return SurfaceVolumesDataModule(list(volumes), **{**plain, **options})


def here(tmp_path, **more):
    data = tmp_path / "data"
    return {"image": str(data / "image.zarr"), "label": str(data / "label.zarr"), **more}


def there(server, **more):
    return {"image": f"{server.url}/image.zarr", "label": f"{server.url}/label.zarr", **more}


def chunk_requests(server, name):
    return [p for p, _ in server.requests if p.startswith(f"{name}.zarr/") and "/c/" in p]


def check_crops(module, image, label, origin=(0, 0, 0), num=12):
    """Compare samples with the arrays they were cut from."""
    module.setup()
    for i in range(num):
        sample = module.train_dataset[3, i]
        box = tuple(
            slice(a + o, a + o + p)
            for a, o, p in zip(origin, sample["origin_zyx"], PATCH, strict=True)
        )
        np.testing.assert_array_equal(sample["image"][0], image[box])
        np.testing.assert_array_equal(sample["label"][0], label[box])


def blocks_of(voxels):
    return {tuple(v) for v in (np.asarray(voxels) // 8).tolist()}
