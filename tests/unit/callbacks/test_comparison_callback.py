"""Pictures and masks after an epoch."""

import matplotlib.image
import numpy as np
import pytest
import tifffile
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from vesuvius.callbacks.comparison import ComparisonCallback, richest_crops
from vesuvius.errors import ConfigError

from .tiny import SHAPE, TinyModule, fit, sample

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated",
    "ignore:GPU available but not used",
)


def names(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def test_writes_mask_panel_and_3d_view_of_the_crop_with_most_surface(tmp_path):
    module = TinyModule()
    folder = tmp_path / "pictures"
    label = sample(5, 1)
    callback = ComparisonCallback(folder=str(folder), view3d="numpy")
    fit([callback], planes=(None, 5, 3), module=module)
    assert names(folder) == [
        "epoch000_3d_comparison.png", "epoch000_comparison.png", "epoch000_pred_mask.tif",
    ]  # fmt: skip
    assert module.predicted_ids == ["vol1"], "the first of the two crops with a plane of surface"
    assert module.was_training == [False]
    mask = tifffile.imread(folder / "epoch000_pred_mask.tif")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, label["label"][0].numpy())
    height, width = matplotlib.image.imread(folder / "epoch000_comparison.png").shape[:2]
    assert width > 1000
    assert height > 800


def test_the_same_crop_every_nth_epoch_and_the_last(tmp_path):
    module = TinyModule()
    callback = ComparisonCallback(folder=str(tmp_path / "p"), every_n_epochs=2, view3d=None)
    fit([callback], epochs=5, module=module)
    assert names(tmp_path / "p") == [
        f"epoch{epoch:03d}_{kind}"
        for epoch in (1, 3, 4)
        for kind in ("comparison.png", "pred_mask.tif")
    ]
    assert module.predicted_ids == ["vol1"] * 3


def test_several_crops_are_numbered(tmp_path):
    module = TinyModule(with_normals=False)
    callback = ComparisonCallback(folder=str(tmp_path / "p"), num_crops=2, view3d=None)
    fit([callback], module=module, batch_size=3)
    assert module.predicted_ids == ["vol1", "vol2"]
    assert names(tmp_path / "p") == [
        "epoch000_comparison.png", "epoch000_comparison_1.png",
        "epoch000_pred_mask.tif", "epoch000_pred_mask_1.tif",
    ]  # fmt: skip
    assert tifffile.imread(tmp_path / "p" / "epoch000_pred_mask_1.tif")[3].all()


def test_only_the_first_batches_are_searched(tmp_path):
    module = TinyModule()
    callback = ComparisonCallback(folder=str(tmp_path / "p"), search_batches=1, view3d=None)
    fit([callback], module=module)
    assert module.predicted_ids == ["vol0"], "without surface, but the only one searched"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"fast_dev_run": True}, id="fast_dev_run"),
        pytest.param({"num_sanity_val_steps": 2, "limit_val_batches": 0}, id="no validation"),
        pytest.param({"num_sanity_val_steps": 2, "max_steps": 0}, id="sanity check only"),
    ],
)
def test_silent_when_nothing_is_to_be_shown(tmp_path, options):
    fit([ComparisonCallback(folder=str(tmp_path / "p"))], **options)
    assert names(tmp_path / "p") == []


class _ImageLogger(Logger):
    """What of WandbLogger the callback uses."""

    def __init__(self):
        super().__init__()
        self.calls = []

    name = "images"
    version = "0"

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def log_image(self, key, images, step=None, **kwargs):
        self.calls.append((key, images, step))


def test_panel_goes_to_loggers_that_take_images_and_csv_is_left_alone(tmp_path):
    logger = _ImageLogger()
    csv = CSVLogger(tmp_path, name=None, version="")
    folder = tmp_path / "p"
    fit([ComparisonCallback(folder=str(folder), view3d=None)], logger=[csv, logger])
    assert logger.calls == [("val/comparison", [str(folder / "epoch000_comparison.png")], 2)]


def test_tensorboard_gets_the_picture(tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra 'tensorboard' is not installed",
    )
    logger = TensorBoardLogger(tmp_path, name="tb", version="")
    fit([ComparisonCallback(folder=str(tmp_path / "p"), view3d=None)], logger=logger)
    logger.finalize("success")
    events = reader.EventAccumulator(logger.log_dir).Reload()
    (image,) = events.Images("val/comparison")
    assert image.width == matplotlib.image.imread(tmp_path / "p/epoch000_comparison.png").shape[1]


def test_richest_crops_keeps_the_order_by_surface():
    counts = [3, 9, 0, 9, 5]
    labels = torch.zeros(5, 1, *SHAPE, dtype=torch.uint8)
    for label, count in zip(labels, counts, strict=True):
        label.view(-1)[:count] = 1
    labels[2, 0, 4] = 2  # ignore is no surface
    batch = {"image": labels * 100, "label": labels, "volume_id": [f"v{i}" for i in range(5)]}
    crops = richest_crops([], batch, keep=3)
    assert [(count, crop["volume_id"]) for count, crop in crops] == [
        (9, "v1"), (9, "v3"), (5, "v4"),
    ]  # fmt: skip
    assert crops[0][1]["image"].shape == (1, 1, *SHAPE)
    later = richest_crops(crops, {**batch, "volume_id": ["w"] * 5}, keep=3)
    assert [crop["volume_id"] for _, crop in later] == ["v1", "v3", "w"]
    labels.zero_()
    assert crops[0][1]["label"].sum() == 9, "a copy, not a view of the loader's memory"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_epochs": 0}, r"callbacks\.comparison\.every_n_epochs=0; expected >= 1"),
        ({"num_crops": 0}, r"callbacks\.comparison\.num_crops=0; expected >= 1"),
        ({"view3d": "vtk"}, r"callbacks\.comparison\.view3d='vtk'; expected null or one of"),
    ],
)
def test_bad_arguments_name_the_key(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ComparisonCallback(folder="p", **arguments)
