"""The mean of several predictors, by hand, and how runs and checkpoints pair up."""

import numpy as np
import pytest
import torch

from vesuvius.errors import CheckpointError, ConfigError, VolumeFormatError
from vesuvius.inference import ensemble_predictor, predict_volume
from vesuvius.runtime.ensemble import as_list, build_ensemble, find_members

IMAGE = torch.zeros(1, 1, 2, 2, 2)


def says(probability, normal=None):
    def predict(image):
        heads = {"probability": torch.full_like(image, probability)}
        if normal is not None:
            vector = torch.tensor(normal).view(1, 3, 1, 1, 1)
            heads["normals"] = vector.expand(len(image), 3, *image.shape[2:])
        return heads

    return predict


def test_probabilities_are_averaged_with_their_weights():
    predict = ensemble_predictor([says(0.2), says(0.8)], weights=[3, 1])
    torch.testing.assert_close(predict(IMAGE)["probability"], torch.full_like(IMAGE, 0.35))
    equal = ensemble_predictor([says(0.2), says(0.8), says(0.5)])
    torch.testing.assert_close(equal(IMAGE)["probability"], torch.full_like(IMAGE, 0.5))


def test_normals_that_point_the_other_way_agree():
    up, down = [1.0, 0.0, 0.0], [-0.5, 0.0, 0.0]
    axial = ensemble_predictor([says(0.5, up), says(0.5, down)])(IMAGE)["normals"]
    assert axial[0, :, 0, 0, 0].tolist() == [0.75, 0.0, 0.0]
    signed = ensemble_predictor([says(0.5, up), says(0.5, down)], axial_normals=False)
    assert signed(IMAGE)["normals"][0, :, 0, 0, 0].tolist() == [0.25, 0.0, 0.0]


def test_a_head_that_one_network_lacks_is_left_out():
    for order in ([says(0.5), says(0.5, [1.0, 0, 0])], [says(0.5, [1.0, 0, 0]), says(0.5)]):
        assert list(ensemble_predictor(order)(IMAGE)) == ["probability"]


def test_only_one_result_is_alive_at_a_time():
    alive = []

    def heavy(image):
        assert not any(ref() is not None for ref in alive)
        import weakref

        value = torch.full_like(image, 0.5)
        alive.append(weakref.ref(value))
        return {"probability": value}

    ensemble_predictor([heavy] * 3)(IMAGE)
    assert len(alive) == 3


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ConfigError, match="one positive weight for each"):
        ensemble_predictor([says(0.5), says(0.5)], weights=weights)


class Net(torch.nn.Module):
    heads = ("surface_logit",)

    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, image):
        return {"surface_logit": self.scale * image[:, -1:]}


def test_first_and_second_stages_do_not_mix():
    how = {"weights": None, "device": "cpu", "precision": "fp32", "tta": "none"}
    with pytest.raises(ConfigError, match=r"read \[1, 2\] channels"):
        build_ensemble([Net(1), Net(2)], **how)
    predict, network = build_ensemble([Net(2)], **how)
    assert network.in_channels == 2
    image = np.stack([np.zeros((8, 9, 10)), np.full((8, 9, 10), 255)]).astype(np.uint8)
    result = predict_volume(predict, image, roi_zyx=(8, 8, 8), channels=2, device="cpu")
    assert result.probability.shape == (8, 9, 10)
    assert np.unique(result.probability).tolist() == [
        round(255 * torch.sigmoid(torch.ones(())).item())
    ]
    with pytest.raises(VolumeFormatError, match=r"must be \(2, z, y, x\).*prior="):
        predict_volume(predict, image[0], roi_zyx=(8, 8, 8), channels=2, device="cpu")


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text("data: {patch_zyx: [8, 8, 8]}\n")
        (tmp_path / name / "checkpoints").mkdir()
        for kind in ("best", "last"):
            (tmp_path / name / "checkpoints" / f"{kind}.ckpt").write_bytes(b"x")
    return tmp_path


def names(members):
    return [(m.run.path.name, m.checkpoint.stem) for m in members]


def test_runs_and_checkpoints_pair_up(folders):
    a, b = str(folders / "a"), str(folders / "b")
    assert names(find_members(a, "best")) == [("a", "best")]
    assert names(find_members([a, b], "last")) == [("a", "last"), ("b", "last")]
    assert names(find_members(a, ["best", "last"])) == [("a", "best"), ("a", "last")]
    assert names(find_members([a, b], ["best", "last"])) == [("a", "best"), ("b", "last")]
    assert as_list("a") == ["a"]


@pytest.mark.parametrize(
    ("run_dir", "checkpoint", "message"),
    [
        (["a", "b"], ["best"] * 3, "2 runs and checkpoint 3"),
        (["a", "b"], "a/checkpoints/best.ckpt", "is one file, but run_dir names 2"),
        (["a", "a"], "best", "named twice"),
        ([], "best", "0 runs"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(folders, monkeypatch, run_dir, checkpoint, message):
    monkeypatch.chdir(folders)
    with pytest.raises(ConfigError, match=message):
        find_members(run_dir, checkpoint)


def test_a_missing_checkpoint_is_named(folders):
    with pytest.raises(CheckpointError, match="checkpoint=epoch9"):
        find_members([str(folders / "a"), str(folders / "b")], ["best", "epoch9"])
