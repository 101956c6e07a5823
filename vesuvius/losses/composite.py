"""Sum of named, weighted terms; each term is reported unweighted."""

from collections.abc import Callable, Mapping
from typing import TypedDict

from torch import Tensor, nn

from vesuvius.errors import ConfigError
from vesuvius.types import IGNORE, SURFACE


class LossTerm(nn.Module):
    """One term: `forward(outputs, targets)` returns a scalar; `heads` names the outputs it uses.

    `targets` holds `label` (b, 1, z, y, x) uint8, `surface` float in {0, 1}, `valid` float in
    {0, 1} (0 where the label is 2), and whatever else the batch brings.
    """

    heads: tuple[str, ...] = ("surface_logit",)

    def forward(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return the unweighted scalar loss."""
        raise NotImplementedError


class WeightedTerm(TypedDict):
    """A term as the config gives it: `{weight: 1.0, fn: {_target_: ...}}`."""

    weight: float
    fn: LossTerm


class CompositeLoss(nn.Module):
    """total = sum of weight * term.

    Args:
        term: name -> {weight, fn}; names become the logged `loss/<name>`.
        labels: label -> label, applied to a batch's `label` first (LabelProcessing); None = as is.

    Raises:
        ConfigError: no term, or a negative weight.
    """

    def __init__(
        self,
        *,
        term: Mapping[str, WeightedTerm],
        labels: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.labels = labels
        if not term:
            raise ConfigError("loss.term is empty; add at least one, e.g. 'loss/term=[dice,bce]'.")
        negative = {name: part["weight"] for name, part in term.items() if part["weight"] < 0}
        if negative:
            raise ConfigError(f"loss.term weights must be >= 0, got {negative}.")
        self.weights = {name: float(part["weight"]) for name, part in term.items()}
        self.terms = nn.ModuleDict({name: part["fn"] for name, part in term.items()})

    def check_heads(self, heads: tuple[str, ...]) -> None:
        """Raise ConfigError unless network heads and loss terms match.

        A head without a term gets no gradient, which DistributedDataParallel refuses much later
        with an error that names no head.
        """
        used = {head for term in self.terms.values() for head in getattr(term, "heads", ())}
        for head in sorted(set(heads) - used):
            if "_deep" in head:
                raise ConfigError(
                    f"Network head {head!r} comes from model.deep_supervision, which needs "
                    "loss=surface_deep; or set model.deep_supervision=0."
                )
            raise ConfigError(
                f"Network head {head!r} has no loss term (terms: {sorted(self.terms)}). Add one "
                f"to loss/term, or drop the head (for 'normals': model.normals_head=false)."
            )
        for head in sorted(used - set(heads)):
            raise ConfigError(
                f"A loss term needs the head {head!r}, the network has {sorted(heads)}. Remove "
                "the term from loss/term or switch the head on in model."
            )

    def forward(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return {"total", "<term>": unweighted} for network outputs and a batch.

        A batch with a `label` volume also gives its terms `surface` and `valid`.

        Computed in float32 whatever the network's precision: sums over 10^6 voxels overflow
        float16 and lose digits in bfloat16.
        """
        if self.labels is not None:
            batch = {**batch, "label": self.labels(batch["label"])}
        return self.sum_terms(outputs, batch)

    def sum_terms(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what `forward` does, for a batch whose label is processed already."""
        targets = label_targets(batch)
        outputs = {name: output.float() for name, output in outputs.items()}
        losses = {name: term(outputs, targets) for name, term in self.terms.items()}
        total = sum(self.weights[name] * loss for name, loss in losses.items())
        assert isinstance(total, Tensor)
        return {"total": total, **losses}


def label_targets(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the batch with the `surface` and `valid` of its label, if it has one."""
    targets = dict(batch)
    label = targets.get("label")
    if label is not None:
        targets["surface"] = (label == SURFACE).float()
        targets["valid"] = (label != IGNORE).float()
    return targets
