"""Normal targets and the cosine loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from vesuvius.errors import ConfigError
from vesuvius.losses.normals import NormalLoss, gather_voxels
from vesuvius.structure_tensor import block_mean, mask_gradient, principal_axis

PAIRS = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]


def plane(size, normal, *, thickness=2.5, offset=0.0):
    """Return the (1, 1, z, y, x) mask of a plane through the middle, and its unit normal."""
    normal = np.asarray(normal, float) / np.linalg.norm(normal)
    grid = np.stack(np.meshgrid(*[np.arange(size) - size / 2] * 3, indexing="ij"))
    distance = np.tensordot(normal, grid, 1) - offset
    mask = torch.from_numpy((np.abs(distance) <= thickness / 2).astype(np.float32))
    return mask[None, None], torch.from_numpy(normal.astype(np.float32))


def angle(a, b):
    cosine = torch.nn.functional.cosine_similarity(a, b.expand_as(a), dim=1).abs().clamp(max=1)
    return torch.rad2deg(torch.arccos(cosine))


def field(normal, shape):
    return normal.view(1, 3, 1, 1, 1).expand(1, 3, *shape).clone()


def test_mask_gradient_is_a_central_difference_blind_to_ignored_voxels():
    surface = torch.zeros(1, 1, 3, 3, 5)
    surface[..., 2] = 1
    valid = torch.ones_like(surface)
    gradient = mask_gradient(surface, valid)
    assert gradient[0, 2, 1, 1].tolist() == [0.0, 0.5, 0.0, -0.5, 0.0]
    assert gradient[0, :2].abs().sum() == 0
    valid[..., 4] = 0
    assert mask_gradient(surface, valid)[0, 2, 1, 1].tolist() == [0.0, 0.5, 0.0, 0.0, 0.0]


def test_principal_axis_agrees_with_eigh(rng):
    a = torch.from_numpy(rng.normal(size=(200, 3, 3)).astype(np.float32))
    tensor = a @ a.transpose(1, 2)
    values, vectors = torch.linalg.eigh(tensor)
    clear = values[:, 2] > 1.3 * values[:, 1]
    assert clear.sum() > 100
    parts = torch.stack([tensor[:, i, j] for i, j in PAIRS])
    assert angle(principal_axis(parts)[clear], vectors[clear][:, :, 2]).max() < 1.0


def test_principal_axis_of_zero_is_zero():
    assert torch.equal(principal_axis(torch.zeros(6, 2)), torch.zeros(2, 3))


@pytest.mark.parametrize(
    "normal", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0.3, 0.8, 0.5)], ids=str
)
def test_structure_tensor_finds_the_normal_of_a_thin_plane(normal):
    surface, truth = plane(24, normal)
    where, found = NormalLoss().target_normals(surface, torch.ones_like(surface))
    inner = ((where[:, 1:] > 4) & (where[:, 1:] < 19)).all(1)
    assert angle(found[inner], truth).mean() < 3.0


def test_mask_gradient_target_vanishes_in_the_middle_of_a_thick_sheet():
    surface, _ = plane(24, (1, 0, 0), thickness=5)
    _, found = NormalLoss(target="mask_gradient").target_normals(surface, torch.ones_like(surface))
    assert (found.norm(dim=1) == 0).float().mean() > 0.2


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sign_free_loss_is_zero_for_both_signs(sign):
    surface, truth = plane(16, (0, 1, 0))
    targets = {"surface": surface, "valid": torch.ones_like(surface)}
    loss = NormalLoss()({"normals": sign * 0.3 * field(truth, surface.shape[2:])}, targets)
    assert loss.item() == pytest.approx(0.0, abs=1e-3)


def test_signed_loss_by_hand():
    # A plane of two voxels: gradients +1/2 and -1/2 along z, targets (1, 0, 0) and (-1, 0, 0);
    # a prediction of (1, 0, 0) has cosines 1 and -1 on equally many voxels: loss 1.
    surface = torch.zeros(1, 1, 8, 4, 4)
    surface[:, :, 3:5] = 1
    targets = {"surface": surface, "valid": torch.ones_like(surface)}
    outputs = {"normals": field(torch.tensor([1.0, 0, 0]), (8, 4, 4))}
    assert NormalLoss(target="mask_gradient")(outputs, targets).item() == pytest.approx(1.0)


def test_components_of_one_voxel_are_not_mixed_with_another():
    # The original viewed a masked (3, ...) tensor as (-1, 3), which gave 0.111 for this case.
    surface, truth = plane(16, (0.2, 0.9, 0.4))
    targets = {"surface": surface, "valid": torch.ones_like(surface)}
    _, expected = NormalLoss().target_normals(surface, targets["valid"])
    outputs = {"normals": torch.zeros(1, 3, 16, 16, 16)}
    b, z, y, x = surface[:, 0].nonzero().unbind(1)
    outputs["normals"][b, :, z, y, x] = expected
    assert NormalLoss()(outputs, targets).item() == pytest.approx(0.0, abs=1e-5)
    assert truth.norm() == pytest.approx(1.0)


def test_perpendicular_prediction_costs_one_and_has_a_gradient():
    surface, _ = plane(16, (1, 0, 0))
    targets = {"surface": surface, "valid": torch.ones_like(surface)}
    predicted = field(torch.tensor([0.05, 1.0, 0.0]), (16, 16, 16)).requires_grad_()
    loss = NormalLoss()({"normals": predicted}, targets)
    loss.backward()
    assert loss.item() == pytest.approx(1.0, abs=0.06)
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad.abs().sum() > 0


def test_without_surface_the_loss_is_zero_with_a_gradient_path():
    predicted = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    empty = torch.zeros(1, 1, 4, 4, 4)
    loss = NormalLoss()({"normals": predicted}, {"surface": empty, "valid": 1 - empty})
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(predicted.grad, torch.zeros_like(predicted))


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match="window_blocks=2; expected an odd number"):
        NormalLoss(window_blocks=2)
    with pytest.raises(ConfigError, match="target='gradient'; expected 'structure_tensor'"):
        NormalLoss(target="gradient")


@pytest.mark.parametrize("shape_zyx", [(4, 6, 8), (5, 6, 7)])
def test_block_means_are_those_of_pooling(shape_zyx, rng):
    values = torch.from_numpy(rng.random((2, 1, *shape_zyx), dtype=np.float32))
    expected = F.avg_pool3d(values, 2, ceil_mode=True)
    torch.testing.assert_close(block_mean(values), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_vectors_are_gathered_from_either_layout(layout, rng):
    field = torch.from_numpy(rng.random((2, 3, 4, 5, 6), dtype=np.float32))
    field = field.contiguous(memory_format=layout).requires_grad_()
    where = torch.tensor([[0, 3, 2, 1], [1, 0, 4, 5]])
    vectors = gather_voxels(field, where)
    assert torch.equal(vectors, torch.stack([field[0, :, 3, 2, 1], field[1, :, 0, 4, 5]]))
    vectors.sum().backward()
    assert field.grad.sum() == 6
    assert bool((field.grad[0, :, 3, 2, 1] == 1).all())
    assert bool((field.grad[1, :, 0, 4, 5] == 1).all())
