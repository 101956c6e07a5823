"""What is drawn from a label map: frames, balance, labels, meshes, edge cases."""

import dataclasses

import numpy as np
import pytest
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree
from unit.data.heart.hearts import SMALL, label_map

from vesuvius.data.heart.dense import true_labels
from vesuvius.data.heart.field import box_around, crop_padded
from vesuvius.data.heart.format import ABSENT_SDF, PARTS
from vesuvius.data.heart.mesh import class_mesh, is_closed
from vesuvius.data.heart.phantom import HeartPhantomSettings, make_heart
from vesuvius.data.heart.quota import shared_out
from vesuvius.data.heart.sampler import SamplerOptions, sample_case
from vesuvius.errors import ConfigError, LabelValueError


def sphere_labels(n=40, radius=12.0, value=3):
    index = np.indices((n, n, n)) - (n - 1) / 2
    return np.where((index**2).sum(0) < radius**2, value, 0).astype(np.uint8)


def test_points_fill_the_cube_and_the_surface_the_unit_ball(heart_case):
    for part in PARTS:
        assert np.abs(getattr(heart_case, f"{part}_points")).max() <= 1
    radii = np.linalg.norm(heart_case.surface_points, axis=1)
    assert radii.max() <= 1 + 1e-6
    assert radii.max() > 0.97
    uniform = heart_case.vol_points[len(heart_case.vol_points) // 2 :]
    assert uniform.mean(0) == pytest.approx(0, abs=0.05)
    assert uniform.std(0) == pytest.approx(1 / np.sqrt(3), abs=0.02)


def test_signs_and_labels_never_contradict_each_other(heart_case):
    for part in ("vol", "near"):
        sdf, label = getattr(heart_case, f"{part}_sdf"), getattr(heart_case, f"{part}_labels")
        assert ((sdf < 0) == (label > 0)).all()
        each = heart_case.class_sdf[part]
        inside = sdf < 0
        assert (each.argmin(1)[inside] + 1 == label[inside]).all()
        assert sdf == pytest.approx(each.min(1))


def test_near_points_of_every_class_lie_half_inside_it(heart_case):
    for c in heart_case.present_classes:
        own = heart_case.surface_labels == c
        share = (heart_case.class_sdf["near"][own, c - 1] < 0).mean()
        assert share == pytest.approx(0.5, abs=0.03), f"class {c}"


def test_normals_point_outward_and_surface_distances_are_zero(heart_case, heart_map):
    own = heart_case.surface_labels.astype(int) - 1
    distance = heart_case.class_sdf["surface"][np.arange(len(own)), own]
    voxel = heart_map.spacing[0] * heart_case.geometry.scale
    assert np.abs(distance).mean() < 0.15 * voxel
    step = heart_case.near_points - heart_case.surface_points
    along = (step * heart_case.surface_normals).sum(1)
    near = heart_case.class_sdf["near"][np.arange(len(own)), own]
    assert np.corrcoef(along, near)[0, 1] > 0.8


def test_labels_are_the_label_map_s_away_from_surfaces(heart_case, heart_map):
    voxel = heart_map.spacing[0] * heart_case.geometry.scale
    apart = np.abs(heart_case.vol_sdf) > voxel
    assert apart.mean() > 0.5
    truth = true_labels(heart_case.geometry, heart_case.vol_points)
    assert (truth == heart_case.vol_labels)[apart].mean() > 0.999


def test_a_sphere_has_its_distances_in_cube_units():
    case = sample_case(label_map(sphere_labels()), SamplerOptions(**SMALL), case_id="ball")
    truth = np.linalg.norm(case.vol_points, axis=1) - 12.0 * case.geometry.scale
    error = np.abs(case.vol_sdf - truth) / case.geometry.scale
    assert error[np.abs(truth) < case.geometry.scale].mean() < 0.2
    assert error.max() < 0.75
    assert case.geometry.scale == pytest.approx(1 / 12.1, rel=0.03)
    assert case.geometry.shift == pytest.approx(np.full(3, 19.5))
    assert case.present_classes == (3,)


def test_quotas_give_every_class_its_share(heart_case):
    counts = np.bincount(heart_case.surface_labels, minlength=11)[1:]
    assert counts.sum() == SMALL["num_surface_points"]
    assert counts.min() >= SMALL["min_surface_per_class"]
    assert counts[0] > 2 * counts[8]  # the myocardium's surface is larger than the coronaries'
    assert len(heart_case.vol_points) == SMALL["num_vol_points"]
    assert (heart_case.vol_sdf < 0).mean() == pytest.approx(0.53, abs=0.05)


def test_the_same_seed_gives_the_same_case_and_another_seed_does_not():
    labels, options = label_map(sphere_labels(24, 8.0)), SamplerOptions(**SMALL)
    one = sample_case(labels, options, case_id="a", case_seed=5)
    two = sample_case(labels, options, case_id="a", case_seed=5, threads=2)
    for part in PARTS:
        name = f"{part}_points"
        assert (getattr(one, name) == getattr(two, name)).all()
    other = sample_case(labels, options, case_id="a", case_seed=6)
    assert (one.vol_points != other.vol_points).mean() > 0.99


def test_renumbered_classes_change_nothing_but_numbers(heart_map, heart_case):
    order = np.array([0, 4, 9, 1, 3, 2, 10, 8, 5, 7, 6], np.uint8)  # old number -> new
    moved = dataclasses.replace(heart_map, labels=order[heart_map.labels])
    case = sample_case(moved, SamplerOptions(**SMALL), case_id="heart")
    assert case.geometry.scale == pytest.approx(heart_case.geometry.scale)
    assert case.geometry.shift == pytest.approx(heart_case.geometry.shift)
    grid = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
    old, new = true_labels(heart_case.geometry, grid), true_labels(case.geometry, grid)
    assert (order[old] == new).all()
    counts = np.bincount(heart_case.surface_labels, minlength=11)
    assert np.bincount(case.surface_labels, minlength=11)[order] == pytest.approx(counts, abs=1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_map_is_the_mirrored_heart(axis):
    labels = sphere_labels(24, 8.0, value=1)
    labels[3:14, 5:12, 9:20] = 2
    one = sample_case(label_map(labels), SamplerOptions(**SMALL), case_id="x")
    two = sample_case(label_map(np.flip(labels, axis)), SamplerOptions(**SMALL), case_id="x")
    assert two.geometry.scale == pytest.approx(one.geometry.scale)
    mirror = np.where(np.arange(3) == axis, -1.0, 1.0)
    grid = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    same = true_labels(one.geometry, grid) == true_labels(two.geometry, grid * mirror)
    assert same.mean() > 0.999
    assert two.vol_sdf.mean() == pytest.approx(one.vol_sdf.mean(), abs=0.01)
    counts = [np.bincount(case.surface_labels) for case in (one, two)]
    assert counts[0] == pytest.approx(counts[1], abs=1)


def test_an_anisotropic_map_is_the_same_heart_in_mm_as_its_isotropic_copy(heart_map):
    thick = label_map(heart_map.labels[:, :, ::2], (2.5, 2.5, 5.0))
    even = label_map(np.repeat(thick.labels, 2, axis=2), (2.5, 2.5, 2.5))
    cases = [
        sample_case(m, SamplerOptions(**SMALL, sdf_mode="per_class"), case_id="x")
        for m in (thick, even)
    ]
    radii = [1 / case.geometry.scale for case in cases]
    assert radii[0] == pytest.approx(radii[1], abs=2.5)
    # the copy's first voxel is centred a quarter of the thick voxel below
    shifts = [case.geometry.shift for case in cases]
    assert shifts[0] + (0, 0, 1.25) == pytest.approx(shifts[1], abs=2.5)
    a, b = cases
    mm = a.vol_points / a.geometry.scale + a.geometry.shift + (0, 0, 1.25)
    points = (mm - b.geometry.shift) * b.geometry.scale
    inside = (true_labels(b.geometry, points) > 0) == (a.vol_sdf < 0)
    apart = np.abs(a.vol_sdf) / a.geometry.scale > 2.5
    assert inside[apart].mean() > 0.995


@pytest.mark.parametrize("mode", ["min_of_classes", "union_mask"])
def test_inner_walls_are_surface_in_one_mode_and_not_in_the_other(mode):
    labels = sphere_labels(radius=14.0, value=2)
    labels[sphere_labels(radius=7.0) > 0] = 1
    case = sample_case(label_map(labels), SamplerOptions(**SMALL, sdf_mode=mode), case_id="two")
    wall = np.linalg.norm(case.vol_points, axis=1) < 9 * case.geometry.scale
    wall &= np.linalg.norm(case.vol_points, axis=1) > 5 * case.geometry.scale
    nearest = np.abs(case.vol_sdf[wall]).max() / case.geometry.scale
    if mode == "min_of_classes":
        assert nearest < 2.6
    else:
        truth = np.linalg.norm(case.vol_points, axis=1) / case.geometry.scale - 14
        inside = truth < -1
        error = case.vol_sdf[inside] / case.geometry.scale - truth[inside]
        assert np.abs(error).mean() < 0.35
    assert ((case.vol_sdf < 0) == (case.vol_labels > 0)).all()


def test_a_missing_class_is_reported_and_lies_nowhere(heart_map):
    gone = dataclasses.replace(
        heart_map, labels=np.where(heart_map.labels == 9, 0, heart_map.labels)
    )
    case = sample_case(gone, SamplerOptions(**SMALL, sdf_mode="per_class"), case_id="x")
    assert 9 not in case.present_classes
    assert len(case.present_classes) == 9
    assert not (case.vol_labels == 9).any()
    assert (case.class_sdf["vol"][:, 8] == ABSENT_SDF).all()


def test_a_heart_cut_by_the_border_has_closed_meshes_and_points_beyond_the_file():
    settings = HeartPhantomSettings(
        shape=(48, 48, 48), spacing=(2.5, 2.5, 2.5), touch_border=True, missing=(9,)
    )
    labels = make_heart(0, settings)
    assert (labels[:, :, 0] > 0).sum() > 50
    case = sample_case(label_map(labels, settings.spacing), SamplerOptions(**SMALL), case_id="x")
    index = case.geometry.to_index(case.vol_points)
    assert (index < -0.5).any()  # the cube is larger than the file; the original clamped there
    beyond = (index < -1.5).any(1)
    assert beyond.any()
    assert (case.vol_labels[beyond] == 0).all()
    below = case.surface_points[case.surface_labels == 1]
    assert case.geometry.to_index(below)[:, 2].min() >= -0.51


@pytest.mark.parametrize("size", [1, 2])
def test_walls_and_specks_of_a_voxel_work_if_asked_for(size):
    labels = sphere_labels(value=1)
    labels[19:20, 4:36, 4:36] = 2  # a plate, one voxel thick
    labels[2 : 2 + size, 2, 2] = 3
    case = sample_case(label_map(labels), SamplerOptions(**SMALL), case_id="thin")
    assert case.present_classes == (1, 2, 3)
    for c in (2, 3):
        own = case.surface_labels == c
        assert (case.near_labels[own] == c).mean() == pytest.approx(0.5, abs=0.03)
    assert (case.vol_labels == 2).sum() > 100
    options = SamplerOptions(**{**SMALL, "min_class_voxels": 8})
    with pytest.raises(LabelValueError, match=rf"class 3 LV has {size} voxel.*--min-class-voxels"):
        sample_case(label_map(labels), options, case_id="thin")


def test_meshes_are_closed_and_outward_even_where_voxels_touch_in_an_edge():
    mask = np.zeros((6, 6, 6), bool)
    mask[2, 2, 2] = mask[3, 3, 2] = True
    mesh = class_mesh(mask, (1, 1, 1), (0, 0, 0), "x")
    assert is_closed(mesh)
    assert mesh.volume > 0
    with pytest.raises(LabelValueError, match="not closed"):
        class_mesh(np.pad(mask[2:4, 2:4, 2:3], ((0, 1), (0, 1), (0, 1))), (1, 1, 1), (0, 0, 0), "x")


def test_every_class_of_a_heart_has_a_closed_outward_mesh_of_its_volume(heart_map):
    for c in range(1, 11):
        mask = heart_map.labels == c
        local = crop_padded(mask.view(np.uint8), box_around(mask, 1)).view(bool)
        mesh = class_mesh(local, heart_map.spacing, (0, 0, 0), str(c))
        voxels = mask.sum() * 2.5**3
        smallest = 0.5 if c == 9 else 0.75  # marching cubes cuts the corners of thin tubes
        assert smallest * voxels < mesh.volume < voxels


def test_quotas_add_up_and_are_refused_if_they_cannot():
    assert shared_out({1: 1.0, 4: 3.0}, 10, 1, "n") == {1: 3, 4: 7}
    assert shared_out({2: 1.0, 5: 1.0, 7: 1.0}, 11, 0, "n") == {2: 4, 5: 4, 7: 3}
    with pytest.raises(ConfigError, match="2 classes of 6 samples are more than 10"):
        shared_out({1: 1.0, 2: 1.0}, 10, 6, "n")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"num_surface_points": 0}, "num_surface_points is 0"),
        ({"num_surface_points": 1000}, "10 classes of 2000 samples are more than 1000"),
        ({"near_std": 0.0}, "near_std is 0.0"),
        ({"sdf_mode": "mesh"}, "sdf_mode is 'mesh'; expected min_of_classes"),
        ({"class_names": ("a", "a")}, "class_names is"),
        ({"seed": -1}, "seed is -1"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_options_out_of_range_are_refused(change, text):
    with pytest.raises(ConfigError, match=text):
        SamplerOptions(**change)


def test_the_distance_agrees_with_the_mesh_to_half_a_voxel(heart_map, heart_case):
    """Independent: nearest point on dense samples of the mesh, sign of the mask."""
    c = 3
    mask = heart_map.labels == c
    box = box_around(mask, 1)
    local = crop_padded(mask.view(np.uint8), box).view(bool)
    mesh = class_mesh(local, heart_map.spacing, [s.start for s in box], "LV")
    dense, _ = trimesh.sample.sample_surface(mesh, 60_000, seed=0)
    geometry = heart_case.geometry
    chosen = slice(0, None, 4)
    mm = heart_case.vol_points[chosen] / geometry.scale + geometry.shift
    ours = heart_case.class_sdf["vol"][chosen, c - 1] / geometry.scale
    distance = cKDTree(dense).query(mm)[0]
    assert np.abs(np.abs(ours) - distance).max() < 0.5 * heart_map.spacing[0]
    inside = ndimage.map_coordinates(
        mask.astype(np.float32), (mm / heart_map.spacing).T, order=0, mode="constant"
    )
    sure = distance > 0.5 * heart_map.spacing[0]
    assert ((ours < 0) == (inside > 0.5))[sure].all()
