"""Figures of a run over many volumes."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vesuvius.storage.files import write_json
from vesuvius.types import Report


@dataclass(slots=True)
class RunReport:
    """Collects the report of each volume and projects the time for all.

    Attributes:
        total_volumes: volumes of the whole job, finished ones included.
        volumes: report by volume id, in the order of the work.
        skipped: ids found finished and not predicted again.
        failed: error message by volume id.
    """

    total_volumes: int
    volumes: dict[str, Report] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, volume_id: str, report: Report) -> None:
        """Record a volume predicted in this run; the report has "seconds"."""
        self.volumes[volume_id] = report

    def add_skipped(self, volume_id: str) -> None:
        """Record a volume that an earlier run finished."""
        self.skipped.append(volume_id)

    def add_failed(self, volume_id: str, error: Exception) -> None:
        """Record a volume that could not be predicted."""
        self.failed[volume_id] = f"{type(error).__name__}: {error}"

    @property
    def seconds(self) -> float:
        """Time of the volumes predicted in this run."""
        return sum(_number(report, "seconds") for report in self.volumes.values())

    @property
    def seconds_per_volume(self) -> float:
        """Mean time of a volume, 0 before the first."""
        return self.seconds / len(self.volumes) if self.volumes else 0.0

    @property
    def projected_seconds(self) -> float:
        """Time for all `total_volumes` at the mean speed so far."""
        return self.seconds_per_volume * self.total_volumes

    @property
    def remaining_seconds(self) -> float:
        """Time for the volumes that are still to do."""
        done = len(self.volumes) + len(self.skipped) + len(self.failed)
        return self.seconds_per_volume * max(0, self.total_volumes - done)

    def summary(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "total_volumes": self.total_volumes,
            "predicted": len(self.volumes),
            "skipped": list(self.skipped),
            "failed": dict(self.failed),
            "seconds": self.seconds,
            "seconds_per_volume": self.seconds_per_volume,
            "projected_seconds": self.projected_seconds,
            "rss_peak_mb": max(
                (_number(report, "rss_peak_mb") for report in self.volumes.values()), default=0.0
            ),
            "volumes": {name: dict(report) for name, report in self.volumes.items()},
        }

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write `summary` as JSON."""
        return write_json(path, self.summary())


def _number(report: Report, key: str) -> float:
    value = report.get(key, 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0
