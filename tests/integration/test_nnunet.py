"""Models of the real nnU-Net answer here as they answer there.

The fixture (tests/fixtures/nnunet/make.py) holds two tiny networks trained by nnU-Net 2.8.1 and
what its predictor said of a phantom. The slow test trains afresh where nnU-Net is installed.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vesuvius.cli.main import main
from vesuvius.data.tiff import read_tiff, write_tiff
from vesuvius.errors import CheckpointError, ConfigError, RunFileError, VolumeFormatError
from vesuvius.inference.store import load_prediction
from vesuvius.runtime.nnunet_import import import_nnunet
from vesuvius.runtime.nnunet_plans import heads_of, network_config
from vesuvius.runtime.nnunet_predict import nnunet_inference
from vesuvius.runtime.run_folder import RunFolder

FIXTURE = Path(__file__).parents[1] / "fixtures" / "nnunet"
TTA = {"plain_ct": "none", "residual_zscore": "flips"}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FIXTURE / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("imported")
    for name in TTA:
        import_nnunet(FIXTURE / name, root / name)
    return root


def inference(folder: Path, *, tta: str = "none", overlap: float = 0.5, **options):
    run = RunFolder(folder)
    network = run.network(run.checkpoint("best"))
    roi = options.pop("roi_zyx", run.patch_zyx())
    found = nnunet_inference(
        folder,
        network,
        roi_zyx=roi,
        overlap=overlap,
        tta=tta,
        device="cpu",
        precision=options.pop("precision", "auto"),
    )
    assert found is not None
    return found


def assert_same(found: np.ndarray, stored: np.ndarray) -> None:
    """Compare to 1e-4, but for one voxel in a thousand.

    Logits are blended in half precision: where a sum lies on a rounding border, the order in which
    a CPU adds decides on which side it falls.
    """
    difference = np.abs(found - stored / 65535)
    assert difference.max() <= 1e-3
    assert (difference > 1e-4).mean() <= 1e-3


@pytest.mark.parametrize("name", TTA)
def test_probabilities_are_nnunets(imported, expected, name):
    found = inference(imported / name, tta=TTA[name]).probability(expected["image"])
    assert (expected[name] / 65535).std() > 0.05  # not a constant that anything would match
    assert_same(found, expected[name])
    assert found[:2].max() == found[:, -3:].max() == 0  # outside the non-zero box


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("residual_zscore", {"tta": "none"}),
        ("residual_zscore", {"tta": "flips", "overlap": 0.75}),
        ("plain_ct", {"roi_zyx": [16, 32, 32]}),
    ],
)
def test_other_settings_would_be_seen(imported, expected, name, changes):
    found = inference(imported / name, **changes).probability(expected["image"])
    assert np.abs(found - expected[name] / 65535).max() > 1e-3


def test_wrong_normalisation_would_be_seen(imported, expected, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(imported / "plain_ct", folder)
    facts = json.loads((folder / "nnunet.json").read_text())
    facts["normalisation"]["high"] = facts["normalisation"]["mean"]
    (folder / "nnunet.json").write_text(json.dumps(facts))
    found = inference(folder).probability(expected["image"])
    assert np.abs(found - expected["plain_ct"] / 65535).max() > 1e-3


def test_infer_stores_them_to_half_a_grey_value(imported, expected, tmp_path, run_infer):
    write_tiff(tmp_path / "in" / "v.tif", expected["image"])
    run_infer(
        imported / "plain_ct",
        tmp_path / "out",
        f"volume={tmp_path / 'in'}",
        "postprocess=threshold",
        "pictures=false",
    )
    found, normals = load_prediction(tmp_path / "out" / "v.zarr")
    assert normals is None
    assert np.abs(found - expected["plain_ct"] / 65535).max() <= 0.5 / 255 + 1e-5
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["volumes"]["v"]["windows"] == 2 * 2 * 2


def test_windowed_forward_agrees_where_constants_normalise(imported, expected):
    folder = imported / "plain_ct"
    run = RunFolder(folder)
    network = run.network(run.checkpoint("best")).eval()
    window = expected["image"][2:18, :24, :24]
    with torch.no_grad():
        logit = network(torch.from_numpy(window / np.float32(255))[None, None])["surface_logit"]
    whole = inference(folder).probability(np.ascontiguousarray(window))
    # one window: blending changes nothing but the rounding to half precision, which is coarse in
    # the corners, where weights are of the order of the smallest half
    difference = np.abs(torch.sigmoid(logit)[0, 0].numpy() - whole)
    assert difference[4:-4, 6:-6, 6:-6].max() < 1e-3
    assert difference.max() > 1e-2  # nnU-Net's own artefact, kept on purpose


def test_per_volume_normalisation_refuses_windows(imported):
    run = RunFolder(imported / "residual_zscore")
    network = run.network(run.checkpoint("best"))
    with pytest.raises(ConfigError, match="figures of each whole volume"):
        network(torch.zeros(1, 1, 16, 24, 24))


def test_two_folds_are_averaged(expected, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(FIXTURE / "plain_ct", model)
    shutil.copytree(model / "fold_0", model / "fold_1")
    facts = import_nnunet(model, tmp_path / "out")
    assert facts["folds"] == ["0", "1"]
    found = inference(tmp_path / "out").probability(expected["image"])
    assert_same(found, expected["plain_ct"])  # the mean of two equals


def test_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["nnunet", "import", str(FIXTURE / "plain_ct"), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "3d_fullres of Dataset001_CT, folds 0, window [16, 24, 24], CTNormalization" in text
    assert main(["nnunet", "import", str(FIXTURE / "plain_ct"), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err


def changed_model(tmp_path: Path, change) -> Path:
    model = tmp_path / "model"
    shutil.copytree(FIXTURE / "plain_ct", model)
    plans = json.loads((model / "plans.json").read_text())
    dataset = json.loads((model / "dataset.json").read_text())
    change(plans, plans["configurations"]["3d_fullres"], dataset)
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps(dataset))
    return model


def _set(path: str, value):
    def change(plans, configuration, dataset):
        node = {"plans": plans, "conf": configuration, "data": dataset}
        *parents, last = path.split(".")
        for key in parents:
            node = node[key]
        node[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (_set("conf.patch_size", [24, 24]), ConfigError, "is 2-D"),
        (_set("conf.previous_stage", "3d_lowres"), ConfigError, "second stage of a cascade"),
        (_set("data.channel_names", {"0": "a", "1": "b"}), ConfigError, "takes 2 image channels"),
        (_set("data.labels", {"background": 0, "a": 1, "b": 2}), ConfigError, "--label NAME"),
        (
            _set("conf.architecture.network_class_name", "x.Primus"),
            CheckpointError,
            "network Primus; this package knows PlainConvUNet",
        ),
        (
            _set("conf.architecture.arch_kwargs.nonlin_kwargs", {"negative_slope": 0.2}),
            CheckpointError,
            "nonlin_kwargs=",
        ),
        (
            _set("conf.architecture.arch_kwargs.features_per_stage", [2, 3, 5]),
            CheckpointError,
            "does not fit the network of plans.json: shape: ",
        ),
        (_set("conf.normalization_schemes", ["MyNorm"]), ConfigError, "'MyNorm' is unknown"),
        (_set("plans.transpose_forward", None), CheckpointError, "not as nnU-Net v2 writes it"),
    ],
)
def test_models_that_cannot_be_imported_are_refused(tmp_path, change, error, text):
    model = changed_model(tmp_path, change)
    with pytest.raises(error, match=text):
        import_nnunet(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plans_of_both_formats_give_the_same_network():
    plans = json.loads((FIXTURE / "plain_ct" / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    kwargs = configuration["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [4, 8, 10]
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 10,
        "n_conv_per_stage_encoder": kwargs["n_conv_per_stage"],
        "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
        "pool_op_kernel_sizes": kwargs["strides"],
        "conv_kernel_sizes": kwargs["kernel_sizes"],
    }
    new = network_config(configuration, in_channels=1, num_classes=2)
    assert network_config(old, in_channels=1, num_classes=2) == new
    assert new["n_conv_per_stage"] == [1, 2, 1]
    assert new["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]


def test_regions_and_classes_find_their_head():
    classes = {"labels": {"background": 0, "fibre": 1, "surface": 2, "ignore": 3}}
    assert heads_of(classes, None) == (3, 2, True)
    assert heads_of(classes, "fibre") == (3, 1, True)
    regions = {"labels": {"background": 0, "all": [1, 2], "surface": [2]}}
    assert heads_of(regions, None) == (2, 1, False)


def test_files_that_are_missing_or_hold_code(tmp_path):
    with pytest.raises(RunFileError, match=r"plans\.json: no such file"):
        import_nnunet(tmp_path, tmp_path / "out")
    model = tmp_path / "model"
    shutil.copytree(FIXTURE / "plain_ct", model)
    with pytest.raises(RunFileError, match=r"fold_3/checkpoint_final\.pth: no such file"):
        import_nnunet(model, tmp_path / "out", folds=["3"])
    with pytest.raises(RunFileError, match=r"it has \['fold_0/checkpoint_final.pth'\]"):
        import_nnunet(model, tmp_path / "out", checkpoint="checkpoint_best.pth")
    path = model / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "hook": shutil.rmtree}, path)
    with pytest.raises(CheckpointError, match="never executed"):
        import_nnunet(model, tmp_path / "out")
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of nnU-Net v2"):
        import_nnunet(model, tmp_path / "out")


def test_a_copy_that_differs_is_refused(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(FIXTURE / "plain_ct", model)
    path = model / "fold_0" / "checkpoint_final.pth"
    from vesuvius.runtime.nnunet_checkpoint import NUMBERS

    with torch.serialization.safe_globals(NUMBERS):
        content = torch.load(path, weights_only=True)
    name = "decoder.encoder.stages.0.0.convs.0.conv.weight"
    content["network_weights"][name] = content["network_weights"][name] + 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"differs from encoder\.stages\.0"):
        import_nnunet(model, tmp_path / "out")


def test_other_spacing_and_other_grey_values(imported, expected, tmp_path):
    with pytest.raises(ConfigError, match=r"--spacing is \[2.0, 1.0, 1.0\], but the model was"):
        import_nnunet(FIXTURE / "plain_ct", tmp_path / "x", spacing_zyx=[2.0, 1.0, 1.0])
    wide = expected["image"].astype(np.uint16) * 257
    with pytest.raises(VolumeFormatError, match=r"up to 255 and .* is uint16 \(up to 65535\)"):
        inference(imported / "plain_ct").probability(wide)
    # z-score does not care about the scale, so 16 bits are allowed there
    found = inference(imported / "residual_zscore", tta="flips").probability(wide)
    assert np.abs(found - expected["residual_zscore"] / 65535).max() < 2e-3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tta": "flips_rot90"}, "tta=none or tta=flips"),
        ({"overlap": 1.0}, "one share in"),
        ({"roi_zyx": [16, 24, 26]}, r"must be multiples of \[2, 4, 4\]"),
        ({"precision": "fp16"}, "fp16 on a GPU only"),
    ],
)
def test_settings_nnunet_does_not_have(imported, options, text):
    with pytest.raises(ConfigError, match=text):
        inference(imported / "plain_ct", **options)


def test_normals_are_not_made_for_it(imported, tmp_path, run_infer):
    with pytest.raises(ConfigError, match="predicted as nnU-Net does, without normals"):
        run_infer(imported / "plain_ct", tmp_path / "out", "normals=structure_tensor")


def real_image() -> np.ndarray:
    """A box of the real scan where there is one (Makefile: REAL), else noise."""
    path = Path(__file__).parents[3] / "shared" / "data" / "real_ct128" / "image.tif"
    if path.is_file():
        return read_tiff(path)[:40, :72, :70]
    return np.random.default_rng(3).integers(0, 256, (40, 72, 70), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is None, reason="nnU-Net not installed")
@pytest.mark.filterwarnings("ignore")
def test_against_nnunet_itself(tmp_path, monkeypatch):
    """Train two folds afresh; compare unrounded probabilities: ensemble, steps, swapped axes."""
    monkeypatch.syspath_prepend(str(FIXTURE))
    import make

    image = real_image()
    cases = [("CT", True, (0, 1, 2)), ("rescale_to_0_1", False, (2, 0, 1))]
    for number, (channel, residual, transpose) in enumerate(cases, 1):
        model = make.train(
            tmp_path / "work",
            number,
            channel,
            residual=residual,
            folds=(0, 1),
            transpose=transpose,
        )
        out = tmp_path / channel
        import_nnunet(model, out)
        for mirror, step in ((False, 0.5), (True, 0.7)):
            truth = make.nnunet_probability(model, image, mirror=mirror, step=step, folds=(0, 1))
            found = inference(out, tta="flips" if mirror else "none", overlap=1 - step).probability(
                image
            )
            difference = np.abs(found - truth).max()
            print(f"{channel} mirror={mirror} step={step}: {difference:.2e}, std {truth.std():.3f}")
            assert difference <= 1e-4
