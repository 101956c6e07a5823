"""Farthest points against the definition."""

import pytest
import torch

from vesuvius.models.vecset.sampling import choose_points, farthest_loop


def by_definition(cloud, count, first):
    chosen = [first]
    for _ in range(count - 1):
        distance = torch.cdist(cloud, cloud[chosen]).amin(1)
        chosen.append(int(distance.argmax()))
    return chosen


@pytest.mark.parametrize(("num_points", "count"), [(10, 10), (64, 5), (700, 64)])
def test_both_implementations_choose_what_the_definition_says(num_points, count):
    clouds = torch.rand(2, num_points, 3, generator=torch.Generator().manual_seed(0))
    for choose in (farthest_loop, choose_points):
        chosen = choose(clouds, count).tolist()
        assert chosen == choose(clouds, count).tolist()
        for cloud, found in zip(clouds, chosen, strict=True):
            assert found == by_definition(cloud, count, found[0])


def test_random_points_are_distinct():
    clouds = torch.rand(2, 50, 3)
    chosen = choose_points(clouds, 20, sampling="random")
    assert chosen.shape == (2, 20)
    assert len(set(chosen[0].tolist())) == 20
