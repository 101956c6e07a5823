"""A callback that writes what its own process trained: read by tests of several processes."""

import json
from pathlib import Path

from lightning.pytorch import Callback


class RankProbe(Callback):
    """Writes `rank<k>.json`: learning rate and a checksum of the weights at the end of training."""

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer, pl_module):
        weights = sum(p.detach().double().abs().sum().item() for p in pl_module.parameters())
        (group,) = trainer.optimizers[0].param_groups
        facts = {"lr": group["initial_lr"], "weights": weights, "world": trainer.world_size}
        path = self.folder / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps(facts), encoding="utf-8")


def read_ranks(folder, *, num):
    """Return what each of `num` ranks wrote into a run's folder; more or fewer files fail."""
    paths = sorted(Path(folder).glob("rank*.json"))
    assert [path.name for path in paths] == [f"rank{k}.json" for k in range(num)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]
