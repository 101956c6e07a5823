"""Hearts from a run folder: labels, meshes, picture, scores; what is wrong is named."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
import trimesh
from omegaconf import OmegaConf

from vesuvius.cli.main import main
from vesuvius.data.heart.format import load_case, save_case
from vesuvius.data.heart.labels import LabelMap, read_label_map, write_label_map
from vesuvius.data.heart.sampler import SamplerOptions, sample_case
from vesuvius.models.vecset.field import FieldNetwork
from vesuvius.runtime.heart_mesh import class_surface

NAMES = ("shell", "core", "other")


class Balls(FieldNetwork):
    """Knows the answer: a core within 0.4 of the centre, a shell around it up to 0.8."""

    def __init__(self):
        super().__init__(
            num_classes=3, field="per_class", sharpness=0.02, gap=0.0, decoder_float32=True,
            block=5000,
        )  # fmt: skip
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, surface):
        return surface.mean(1), None

    def decode(self, latents, points):
        radius = points.norm(dim=-1)
        shell = torch.maximum(radius - 0.8, 0.4 - radius)
        sdf = torch.stack((shell, radius - 0.4, radius + 1), -1)
        return {"sdf": sdf, "class_logits": -sdf / self.sharpness}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run that trained `Balls`."""
    folder = tmp_path_factory.mktemp("run")
    (folder / ".hydra").mkdir()
    (folder / "checkpoints").mkdir()
    config = {
        "model": {"_target_": f"{__name__}.Balls"},
        "data": {"sdf_size": 64, "point_cloud_size": 256, "class_names": list(NAMES)},
    }
    OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "config.yaml")
    state = {f"model.{k}": v for k, v in Balls().state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints" / "best.ckpt")
    return folder


def balls(shape=(40, 40, 30), spacing=(1.0, 1.0, 1.4)):
    """Return the label map whose cube holds `Balls`: a shell of radius 16 mm, a core of half."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    centre = (np.array(shape) - 1) / 2
    radius = np.linalg.norm((index - centre) * spacing, axis=-1)
    labels = np.where(radius < 8, 2, np.where(radius < 16, 1, 0)).astype(np.uint8)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [5, -7, 11]
    return LabelMap(labels, np.array(spacing), affine)


@pytest.fixture(scope="module")
def label_file(tmp_path_factory):
    """The balls as a NIfTI file whose first axis points left."""
    path = tmp_path_factory.mktemp("labels") / "ball.nii.gz"
    found = balls()
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = found.labels.shape[0] - 1
    write_label_map(path, np.ascontiguousarray(found.labels[::-1]), found.affine @ flip)
    return path


@pytest.fixture(scope="module")
def results(run_dir, label_file, tmp_path_factory):
    """What the command writes for the label map."""
    out = tmp_path_factory.mktemp("out")
    assert main(["heart", "infer", str(run_dir), str(label_file), "--out", str(out)]) == 0
    return out


def test_labels_lie_where_the_input_lies(results, label_file):
    # the network's shell ends at 0.8 of the farthest vertex (16 mm), its core at half of that
    written = read_label_map(results / "ball_labels.nii.gz", num_classes=3)
    given = read_label_map(label_file, num_classes=3)
    np.testing.assert_allclose(written.affine, given.affine)
    assert written.labels.shape == given.labels.shape
    for number, expected_mm in ((2, 0.4 * 16), (1, 0.8 * 16)):
        volume = (written.labels >= number if number == 2 else written.labels > 0).sum() * 1.4
        radius = (volume * 3 / 4 / np.pi) ** (1 / 3)
        assert radius == pytest.approx(expected_mm, abs=0.5)
    middle = np.argwhere(written.labels == 2).mean(0)
    np.testing.assert_allclose(middle, (np.array(written.labels.shape) - 1) / 2, atol=0.1)


def test_meshes_are_closed_outward_and_in_scanner_millimetres(results):
    core = trimesh.load(results / "ball_core.ply")
    assert core.is_watertight
    assert core.volume == pytest.approx(4 / 3 * np.pi * 6.4**3, rel=0.1)
    image = nib.load(results / "ball_labels.nii.gz")
    expected = nib.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)
    np.testing.assert_allclose(core.bounds.mean(0), expected, atol=0.3)
    assert not (results / "ball_other.ply").exists()


def test_report_has_scores_in_mm_and_names_its_files(results):
    report = json.loads((results / "ball.json").read_text())
    assert 0.4 < report["iou_3d"] < 0.65  # 0.8^3
    assert report["dice_core"] == pytest.approx(2 * 0.8**3 / (1 + 0.8**3), abs=0.06)
    assert report["hd95_mm_core"] == pytest.approx(1.6, abs=0.8)
    assert "dice_other" not in report
    assert all((results / name).is_file() for name in report["files"])
    assert {"ball.png", "ball_slices.png"} <= set(report["files"])


def test_a_case_on_a_coarser_grid_without_meshes(run_dir, results, tmp_path):
    args = ["heart", "infer", str(run_dir), str(results / "ball.npz"), "--out", str(tmp_path)]
    args += ["--resolution", "20", "--mesh", "none", "--no-picture"]
    assert main(args) == 0
    found = read_label_map(tmp_path / "ball_labels.nii.gz", num_classes=3)
    assert found.labels.shape == (20, 20, 20)
    fine = read_label_map(results / "ball_labels.nii.gz", num_classes=3)
    centres = [
        nib.affines.apply_affine(m.affine, np.argwhere(m.labels == 2).mean(0))
        for m in (found, fine)
    ]
    np.testing.assert_allclose(*centres, atol=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ball.json", "ball_labels.nii.gz"]


def test_hidden_classes_are_completed_unless_only_given(run_dir, results, tmp_path):
    base = ["heart", "infer", str(run_dir), str(results / "ball.npz"), "--keep", "1"]
    base += ["--mesh", "none", "--no-picture", "--resolution", "16"]
    assert main([*base, "--out", str(tmp_path / "all")]) == 0
    assert main([*base, "--out", str(tmp_path / "given"), "--only-given"]) == 0
    both, one = (
        read_label_map(tmp_path / name / "ball_labels.nii.gz", num_classes=3).labels
        for name in ("all", "given")
    )
    assert set(np.unique(both)) == {0, 1, 2}
    assert set(np.unique(one)) == {0, 1}


def test_a_failing_heart_is_named_and_the_others_are_done(
    run_dir, results, tmp_path, capsys, caplog
):
    broken = tmp_path / "broken.npz"
    broken.write_bytes((results / "ball.npz").read_bytes()[:500])
    args = ["heart", "infer", str(run_dir), str(broken), str(results / "ball.npz")]
    args += ["--out", str(tmp_path / "out"), "--resolution", "16", "--mesh", "none", "--no-picture"]
    assert main(args) == 2
    assert "1 of 2 hearts failed: broken.npz" in capsys.readouterr().err
    assert "not a readable npz" in caplog.text
    assert (tmp_path / "out" / "ball_labels.nii.gz").is_file()


def test_a_case_of_another_program_needs_a_resolution(run_dir, results, tmp_path, caplog):
    case = load_case(results / "ball.npz")
    arrays = {
        f"{part}_{what}": getattr(case, f"{part}_{what}")
        for part in ("surface", "vol", "near")
        for what in ("points", "labels")
    }
    arrays["surface_labels"] = np.eye(3, dtype=np.float32)[arrays["surface_labels"] - 1]
    path = tmp_path / "old.npz"
    np.savez(path, **arrays, vol_sdf=case.vol_sdf, near_sdf=case.near_sdf)
    args = ["heart", "infer", str(run_dir), str(path), "--out", str(tmp_path / "out")]
    assert main(args) == 2
    assert "give --resolution" in caplog.text
    assert main([*args, "--resolution", "12", "--no-picture"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["."], "holds no .npz"),
        (["{case}", "--keep", "left", "2"], "--keep left 2"),
        (["{case}", "--resolution", "4"], "--resolution 4"),
        (["{case}", "{case}"], "several inputs are named ball"),
    ],
)
def test_wrong_arguments_are_named(
    run_dir, results, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    filled = [a.format(case=results / "ball.npz") for a in arguments]
    assert main(["heart", "infer", str(run_dir), *filled, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_the_surface_of_an_offset_ball_in_an_oblique_mirrored_grid():
    axis = np.arange(20) - 9.5
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    field = (np.linalg.norm(grid, axis=-1) - 6).astype(np.float32)
    affine = np.array([[0, -2.0, 0, 3], [-2, 0, 0, 4], [0, 0, -2, 5], [0, 0, 0, 1]])
    vertices, faces = class_surface(field, affine)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.03)
    np.testing.assert_allclose(mesh.bounds.mean(0), [3 - 19, 4 - 19, 5 - 19], atol=1e-3)
    assert class_surface(np.ones((4, 4, 4), np.float32), affine) is None


def test_a_surface_that_meets_the_border_is_closed():
    mesh = trimesh.Trimesh(*class_surface(-np.ones((5, 5, 5), np.float32), np.eye(4)))
    assert mesh.is_watertight
    assert mesh.volume > 0


def test_a_run_of_another_task_is_refused(tmp_path, results, capsys):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    config = {"model": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1}}
    OmegaConf.save(OmegaConf.create(config), tmp_path / ".hydra" / "config.yaml")
    state = {f"model.{k}": v for k, v in torch.nn.Linear(1, 1).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "checkpoints" / "best.ckpt")
    args = ["heart", "infer", str(tmp_path), str(results / "ball.npz"), "--out", str(tmp_path)]
    assert main(args) == 2
    assert "trained Linear, which decodes no points" in capsys.readouterr().err


def test_save_and_sampler_are_used_as_by_prepare(results, label_file):
    options = SamplerOptions(class_names=NAMES)
    case = sample_case(read_label_map(label_file, num_classes=3), options, case_id="ball")
    again = results / "again.npz"
    save_case(again, case)
    assert again.read_bytes() == (results / "ball.npz").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["check-model", "experiment=heart_vecset_tiny"],
        ["benchmark", "experiment=heart_vecset_tiny"],
    ],
)
def test_tools_of_volume_networks_say_that_they_are(arguments, capsys):
    assert main(arguments) == 2
    assert "vesuvius heart infer" in capsys.readouterr().err
