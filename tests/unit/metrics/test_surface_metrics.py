"""torchmetrics classes: the functional values, batches, and two processes as one."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from vesuvius.errors import ShapeMismatchError
from vesuvius.metrics import competition_score, dice, surface_dice, voi_score
from vesuvius.metrics.surface_metrics import CompetitionMetric, SurfaceProxyMetric

PARTS = ("score", "topo", "surface_dice", "voi_score")


def volumes(count, size=12):
    rng = np.random.default_rng(5)
    label = (rng.random((count, size, size, size)) < 0.3).astype(np.uint8)
    label[:, 0] = 2
    flip = rng.random(label.shape) < 0.1
    return np.where(flip, 1 - label % 2, label % 2).astype(np.uint8), label


def test_competition_metric_is_the_mean_over_volumes():
    masks, labels = volumes(3)
    metric = CompetitionMetric()
    metric.update(torch.from_numpy(masks[0]), torch.from_numpy(labels[0]))
    metric.update(torch.from_numpy(masks[1:])[:, None], torch.from_numpy(labels[1:])[:, None])
    found = metric.compute()
    assert tuple(found) == PARTS
    scores = [competition_score(m, g) for m, g in zip(masks, labels, strict=True)]
    for part in PARTS:
        assert float(found[part]) == pytest.approx(np.mean([getattr(s, part) for s in scores]))
    metric.reset()
    metric.update(torch.from_numpy(labels[0] == 1)[None], torch.from_numpy(labels[0])[None])
    assert float(metric.compute()["score"]) == 1.0


def test_shapes_that_differ_are_named():
    with pytest.raises(ShapeMismatchError, match=r"mask \(4, 4, 4\) and label \(4, 4, 5\)"):
        CompetitionMetric().update(torch.zeros(4, 4, 4), torch.zeros(4, 4, 5))


def test_proxy_is_surface_dice_and_voi_of_crops():
    masks, labels = volumes(2)
    metric = SurfaceProxyMetric()
    metric.update(torch.from_numpy(masks)[:, None], torch.from_numpy(labels)[:, None])
    found = {name: float(value) for name, value in metric.compute().items()}
    pairs = list(zip(masks, labels, strict=True))
    surface = np.mean([surface_dice(m, g) for m, g in pairs])
    voi = np.mean([voi_score(m, g).score for m, g in pairs])
    assert found["surface_dice"] == pytest.approx(surface)
    assert found["voi_score"] == pytest.approx(voi)
    assert found["score"] == pytest.approx((surface + voi) / 2)
    joined = [np.concatenate(part) for part in (masks, labels)]
    assert found["dice"] == pytest.approx(dice(*joined))


def test_proxy_falls_as_the_prediction_gets_worse():
    label = torch.zeros(1, 1, 16, 16, 16, dtype=torch.uint8)
    label[..., 5:8, :, :] = 1
    scores = []
    for damage in (0.0, 0.1, 0.4):
        drop = torch.from_numpy(np.random.default_rng(0).random((16, 16, 16)) < damage)
        metric = SurfaceProxyMetric()
        metric.update(label * ~drop, label)
        scores.append(float(metric.compute()["score"]))
    assert scores[0] == 1.0
    assert scores[0] > scores[1] > scores[2]


def _rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    masks, labels = volumes(3)
    found = {}
    for name, metric in (("whole", CompetitionMetric()), ("proxy", SurfaceProxyMetric())):
        for index in range(rank, 3, 2):  # rank 0 sees two volumes, rank 1 one
            pair = (torch.from_numpy(v[index])[None, None] for v in (masks, labels))
            metric.update(*pair)
        found[name] = metric.compute()
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_give_the_number_of_one_process(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(_rank, (port, str(tmp_path)), nprocs=2, start_method="spawn")
    masks, labels = (torch.from_numpy(v)[:, None] for v in volumes(3))
    for name, metric in (("whole", CompetitionMetric()), ("proxy", SurfaceProxyMetric())):
        metric.update(masks, labels)
        expected = metric.compute()
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[name]
            for part, value in expected.items():
                assert float(found[part]) == pytest.approx(float(value), abs=1e-7), part
