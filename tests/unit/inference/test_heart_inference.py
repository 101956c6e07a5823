"""Dense labels of analytic fields."""

import numpy as np
import pytest
import torch

from vesuvius.errors import ConfigError
from vesuvius.inference.heart import class_fields, cube_points, labels_of, predict_points


def two_balls(points):
    """Class 1: radius 0.5 at the origin; class 2: radius 0.4 at x = 0.4; class 1 where nearer."""
    first = points.norm(dim=-1) - 0.5
    second = (points - torch.tensor([0.4, 0.0, 0.0])).norm(dim=-1) - 0.4
    each = torch.stack((first, second), -1)
    return {"inside": each.amin(-1), "class_logits": -each * 50}


def test_cube_points_are_cell_centres_with_x_first():
    points = cube_points(4)
    assert points.shape == (4, 4, 4, 3)
    assert points[0, 0, 0].tolist() == [-0.75, -0.75, -0.75]
    assert points[3, 1, 0].tolist() == [0.75, -0.25, -0.75]


def test_labels_and_fields_of_two_balls():
    points = cube_points(24)
    found = predict_points(
        two_balls, points, num_classes=2, device=torch.device("cpu"), with_fields=True, block=1000
    )
    first = np.linalg.norm(points, axis=-1) - 0.5
    second = np.linalg.norm(points - np.float32([0.4, 0, 0]), axis=-1) - 0.4
    expected = np.where(np.minimum(first, second) < 0, np.where(first < second, 1, 2), 0)
    np.testing.assert_array_equal(found.labels, expected)
    below = found.fields < 0
    assert below.sum(0).max() == 1
    np.testing.assert_array_equal(below[0], expected == 1)
    np.testing.assert_array_equal(below[1], expected == 2)


def test_outside_of_the_unit_ball_nothing_is_decoded():
    seen = []

    def everywhere(points):
        seen.append(points)
        return {"inside": -torch.ones(points.shape[:2]), "class_logits": torch.zeros(*points.shape)}

    points = cube_points(16)
    found = predict_points(everywhere, points, num_classes=3, device=torch.device("cpu"))
    radius = np.linalg.norm(points, axis=-1)
    assert float(torch.cat(seen, 1).norm(dim=-1).max()) <= 1.02
    np.testing.assert_array_equal(found.labels > 0, radius <= 1.02)


def test_one_class_needs_no_second():
    heads = {"inside": torch.tensor([-0.1, 0.2]), "class_logits": torch.zeros(2, 1)}
    assert labels_of(class_fields(heads)).tolist() == [1, 0]


def test_a_grid_of_one_cell_is_refused():
    with pytest.raises(ConfigError, match="resolution=1"):
        cube_points(1)
