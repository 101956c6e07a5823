"""Explanations agree with the score's own counts and point at the right places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.metrics import voi_score
from vesuvius.metrics.explain import explain
from vesuvius.metrics.explain_contacts import touching


def slabs(size=24):
    label = np.zeros((size,) * 3, np.uint8)
    label[4:6] = label[9:11] = 1
    return label


def of(found, kind, side=None):
    return [e for e in found.events if e.kind == kind and side in (None, e.side)]


def test_a_perfect_prediction_has_no_events():
    found = explain(slabs(), slabs())
    assert found.events == ()
    assert found.score.score == 1
    assert found.neighbours.fused == ()
    assert [pair[:2] for pair in found.neighbours.pairs] == [(1, 2)]
    assert found.neighbours.rate == 0


def test_a_false_piece_and_a_missed_one_are_found_with_their_voxels():
    label, mask = slabs(), slabs()
    mask[7, 2, 2:5] = 1
    label[7, 14:16, 18:20] = 1
    found = explain(mask, label)
    (false,) = of(found, "component", "prediction")
    assert (false.voxels, false.centre_zyx, false.block) == (3, (7, 2, 3), 0)
    assert (false.low_zyx, false.high_zyx) == ((7, 2, 2), (7, 2, 4))
    assert false.detail == "false piece"
    (missed,) = of(found, "component", "label")
    assert (missed.voxels, missed.block, missed.detail) == (4, 3, "missed piece")


def test_a_hole_is_a_tunnel_at_its_place():
    mask = slabs()
    mask[4:6, 7, 8] = 0
    (hole,) = of(explain(mask, slabs()), "tunnel")
    assert hole.side == "prediction"
    assert hole.block == 0
    assert np.abs(np.array(hole.centre_zyx) - (4.5, 7, 8)).max() < 1
    (filled,) = of(explain(slabs(), mask), "tunnel")
    assert (filled.side, filled.detail) == ("label", "hole that was filled")


def test_matched_holes_are_not_listed_and_the_other_one_is():
    label, mask = slabs(), slabs()
    label[4:6, 3, 3] = mask[4:6, 3, 3] = 0
    mask[4:6, 9, 9] = 0
    (extra,) = of(explain(mask, label), "tunnel")
    assert np.abs(np.array(extra.centre_zyx) - (4.5, 9, 9)).max() < 1


def test_cavities_are_exact():
    label = np.zeros((24, 24, 24), np.uint8)
    label[2:9, 2:9, 2:9] = 1
    mask = label.copy()
    label[4, 4, 4] = mask[4, 4, 4] = 0
    mask[6, 6, 6:8] = 0
    (cavity,) = of(explain(mask, label), "cavity")
    assert (cavity.side, cavity.voxels) == ("prediction", 2)
    assert cavity.low_zyx == (6, 6, 6)


def test_a_bridge_is_a_merge_where_it_stands_and_fuses_neighbours():
    mask = slabs()
    mask[6:9, 20, 5] = 1
    found = explain(mask, slabs())
    (merge,) = of(found, "merge")
    assert merge.side == "prediction"
    assert merge.centre_zyx[1:] == (20, 5)
    assert 5 <= merge.centre_zyx[0] <= 9
    assert merge.block == 2
    assert merge.bits == pytest.approx(found.merge_bits[1])
    assert found.neighbours.fused == ((1, 2),)
    assert found.neighbours.rate == 1
    assert of(found, "split") == []


def test_a_cut_is_a_split_where_it_runs():
    mask = slabs()
    mask[4:6, 12] = 0
    found = explain(mask, slabs())
    places = of(found, "split", "label")
    assert {event.centre_zyx[1] for event in places} <= {11, 12}
    assert sum(event.voxels for event in places) >= 24
    assert "predicted pieces" in places[0].detail


def test_one_piece_alone_in_its_block_costs_no_topology():
    mask = slabs()
    mask[20, 2, 2:5] = 1  # the only piece of block 4: essential, never a feature
    assert of(explain(mask, slabs()), "component") == []


def test_ignored_voxels_are_no_events():
    label, mask = slabs(), slabs()
    mask[20, 2, 2:5] = 1
    label[20] = 2
    assert explain(mask, label).events == ()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.floats(0.45, 0.6))
def test_numbers_are_those_of_the_score(seed, level):
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((2, 14, 13, 15)), (0, 1, 1, 1))
    label = noise[0] > level
    mask = 0.6 * noise[0] + 0.4 * noise[1] > level
    found = explain(mask, label)
    for k, kind in enumerate(("component", "tunnel", "cavity")):
        for side, name in enumerate(("prediction", "label")):
            for number, block in enumerate(found.score.blocks):
                own = [e for e in of(found, kind, name) if e.block == number]
                assert len(own) == block.counts[k][1 + side] - block.counts[k][0], (kind, name)
    voi = voi_score(mask, label)
    assert sum(found.merge_bits.values()) == pytest.approx(voi.merge, abs=1e-9)
    assert sum(found.split_bits.values()) == pytest.approx(voi.split, abs=1e-9)
    for event in found.events:
        inside = found.prediction if event.side == "prediction" else found.label
        if event.kind in ("component", "merge", "split"):
            assert inside[event.centre_zyx]
        else:
            assert not inside[event.centre_zyx]


def test_touching_lists_each_pair_once():
    labels = np.zeros((1, 2, 4), np.int32)
    labels[0, 0] = [1, 1, 2, 3]
    pairs = touching(labels)
    assert {pair: voxels.tolist() for pair, voxels in pairs.items()} == {
        (1, 2): [[0, 0, 1]],
        (2, 3): [[0, 0, 2]],
    }


def test_empty_volumes_and_bad_arguments():
    empty = np.zeros((4, 4, 4), np.uint8)
    assert explain(empty, empty).events == ()
    with pytest.raises(ConfigError, match="at least 1"):
        explain(empty, empty, reach=0)
    with pytest.raises(ShapeMismatchError):
        explain(empty, empty[1:])
