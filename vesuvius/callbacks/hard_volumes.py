"""Draws more crops from the volumes on which the network does badly."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vesuvius.errors import ConfigError


class HardVolumes(Callback):
    """After each epoch, volumes with a higher training loss get more of the next epoch's crops.

    The share of a volume is (its mean loss / the mean of all) ^ strength, held within
    [1 / max_ratio, max_ratio] of an even share. A loss that stays high because the labels are wrong
    draws crops as well: look at the weights it logs before trusting it. Rank zero's losses decide.

    Args:
        strength: 0 draws evenly, 1 in proportion to the loss.
        momentum: weight of the earlier epochs in a volume's loss, in [0, 1).
        max_ratio: greatest over- and under-representation, >= 1.

    Raises:
        ConfigError: a number out of range.

    Source: own; cf. online hard example mining, Shrivastava et al. 2016.
    """

    def __init__(
        self, *, strength: float = 1.0, momentum: float = 0.5, max_ratio: float = 3.0
    ) -> None:
        if strength < 0 or not 0 <= momentum < 1 or max_ratio < 1:
            raise ConfigError(
                f"callbacks.hard_volumes: strength={strength} must be >= 0, momentum={momentum} "
                f"lie in [0, 1), max_ratio={max_ratio} be >= 1."
            )
        self.strength, self.momentum, self.max_ratio = strength, momentum, max_ratio
        self.losses: dict[str, float] = {}
        self.weights: dict[str, float] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what the next epochs depend on."""
        return {"losses": dict(self.losses), "weights": dict(self.weights)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the interrupted run was."""
        self.losses, self.weights = dict(state_dict["losses"]), dict(state_dict["weights"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Apply the weights of a resumed run."""
        del pl_module
        if not hasattr(trainer.datamodule, "weigh_volumes"):  # type: ignore[attr-defined]
            raise ConfigError(
                "callbacks=hard_volumes needs a data module of volumes (data=surface_zarr or "
                "surface_phantom)."
            )
        if self.weights:
            trainer.datamodule.weigh_volumes(self.weights)  # type: ignore[attr-defined]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Book the batch's loss for each of its volumes."""
        del trainer, pl_module, batch_idx
        loss = float(torch.as_tensor(outputs["loss"]))
        if loss != loss or loss == float("inf"):  # a skipped step
            return
        for name in batch["volume_id"]:
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + loss, count + 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Weigh the volumes anew."""
        for name, (total, count) in self._sums.items():
            mean = total / count
            before = self.losses.get(name, mean)
            self.losses[name] = self.momentum * before + (1 - self.momentum) * mean
        self._sums = {}
        self.losses = trainer.strategy.broadcast(self.losses, src=0)
        self.weights = volume_weights(self.losses, self.strength, self.max_ratio)
        if self.weights:
            trainer.datamodule.weigh_volumes(self.weights)  # type: ignore[attr-defined]
            pl_module.log("train/hardest_weight", max(self.weights.values()), rank_zero_only=True)


def volume_weights(losses: dict[str, float], strength: float, max_ratio: float) -> dict[str, float]:
    """Return the weight of each volume, 1 = an even share.

    Example: losses 1 and 3, strength 1: weights 0.5 and 1.5.
    """
    if not losses:
        return {}
    mean = sum(losses.values()) / len(losses)
    if mean <= 0:
        return dict.fromkeys(losses, 1.0)
    return {
        name: min(max((max(loss, 0.0) / mean) ** strength, 1 / max_ratio), max_ratio)
        for name, loss in losses.items()
    }
