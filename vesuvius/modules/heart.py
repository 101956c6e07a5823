"""Hearts as point sets: a labelled surface to signed distance and class everywhere."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vesuvius.errors import ConfigError, ShapeMismatchError
from vesuvius.modules.base import BaseModule, OptimizerFactory, SchedulerFactory
from vesuvius.types import HeartLayout


class HeartModule(BaseModule):
    """LightningModule of the point-set networks.

    The model is called as `model(surface, points, num_gradients=...)`, names its heads in
    `model.heads` and offers `encode`, `inside` and `predict` (see FieldNetwork). Decoded are the
    queries of the batch and, behind them, surface points; the loss gets their distances also as
    `sdf_vol`, `sdf_near` and `sdf_surface`. The gradient of the distance is computed if a term of
    the loss asks for it.

    Args:
        model, loss, optimizer, scheduler, metrics: see BaseModule. Metrics get (sdf, class logits,
            target) of the queries: (b, Q), (b, Q, C), (b, Q, 2).
        sdf_size: as in the data: half of it are volume queries, a quarter near queries.
        num_surface_queries: surface points that are decoded; None = all of the batch, 0 = none.

    Raises:
        ConfigError: sizes that do not fit, or heads and terms that do not.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        loss: nn.Module,
        optimizer: OptimizerFactory,
        scheduler: SchedulerFactory | None = None,
        metrics: Mapping[str, Metric] | None = None,
        sdf_size: int = 4096,
        num_surface_queries: int | None = None,
    ) -> None:
        if sdf_size < 4 or sdf_size % 4:
            raise ConfigError(f"data.sdf_size={sdf_size}; expected a positive multiple of 4.")
        if num_surface_queries is not None and num_surface_queries < 0:
            raise ConfigError(
                f"module.num_surface_queries={num_surface_queries}; expected >= 0 or null."
            )
        super().__init__(
            model=model, loss=loss, optimizer=optimizer, scheduler=scheduler, metrics=metrics
        )
        self.num_volume = sdf_size // 2
        self.num_near = sdf_size // 4
        self.num_surface_queries = num_surface_queries
        terms = getattr(loss, "terms", {})
        wanted = {head for term in terms.values() for head in getattr(term, "heads", ())}
        self.with_gradient = "sdf_gradient" in wanted
        extra = ("sdf_gradient",) if self.with_gradient else ()
        self.check_heads((*getattr(model, "heads", ("sdf", "class_logits")), *extra))

    def batch_size(self, batch: dict[str, Any]) -> int:
        """Return the number of hearts in a batch."""
        return len(batch["points"])

    def layout(self, batch: Mapping[str, Any]) -> HeartLayout:
        """Return which of the decoded points are volume, near and surface points.

        Raises:
            ShapeMismatchError: the batch has another number of queries than data.sdf_size says.
        """
        num_queries = batch["points"].shape[1]
        if num_queries != self.num_volume + self.num_near:
            raise ShapeMismatchError(
                f"The batch has {num_queries} queries; expected {self.num_volume} volume and "
                f"{self.num_near} near points. Give module.sdf_size the value of data.sdf_size."
            )
        count = batch["surface_target"].shape[1]
        if self.num_surface_queries is not None:
            count = min(count, self.num_surface_queries)
        return HeartLayout(self.num_volume, self.num_near, count)

    def forward_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return the heads at queries and surface points, and the parts of the distance."""
        layout = self.layout(batch)
        on_surface = batch["surface_target"][:, : layout.num_surface, :3]
        points = torch.cat((batch["points"], on_surface), 1)
        count = layout.num_volume if self.with_gradient else 0
        outputs: dict[str, Tensor] = self.model(batch["surface"], points, num_gradients=count)
        for part in ("vol", "near", "surface"):
            outputs[f"sdf_{part}"] = outputs["sdf"][:, getattr(layout, part)]
        return outputs

    def update_metrics(self, outputs: Mapping[str, Tensor], batch: dict[str, Any]) -> None:
        """Feed every metric with the queries; padded classes do not count."""
        num_queries = batch["points"].shape[1]
        sdf, logits = outputs["sdf"][:, :num_queries], outputs["class_logits"][:, :num_queries]
        valid = batch["valid_class_mask"]
        inside: Tensor = self.model.inside(sdf.float(), valid)  # type: ignore[operator]
        logits = logits.float().masked_fill(valid.unsqueeze(1) == 0, -torch.inf)
        for metric in self.metrics.values():
            assert isinstance(metric, Metric)
            metric.update(inside, logits, batch["target"])

    @torch.no_grad()
    def encode_surface(self, surface: Tensor) -> Tensor:
        """Return the latents of (b, P, 3 + C) surface points, for `decode_points`."""
        latents: Tensor = self.model.encode(surface)[0]  # type: ignore[operator]
        return latents

    @torch.no_grad()
    def decode_points(
        self, latents: Tensor, points: Tensor, classes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return {"inside", "class_logits"} at (b, n, 3) points; classes (K,) 1 = may be there."""
        heads: dict[str, Tensor] = self.model.predict(latents, points, classes)  # type: ignore[operator]
        return heads
