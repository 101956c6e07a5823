"""Scores by fold and by scroll, from the file of folds."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesuvius.data.folds import Folds

Row = dict[str, Any]


def check_groups(names: Iterable[str], splits: Path) -> None:
    """Raise what `group_means` would raise, before hours of scoring."""
    _folds_of(names, splits)


def _folds_of(names: Iterable[str], splits: Path) -> "Folds":
    from vesuvius.data.folds import load_folds
    from vesuvius.errors import ConfigError

    folds = load_folds(splits)
    unknown = [name for name in names if name not in folds.fold_of]
    if unknown:
        raise ConfigError(f"{splits}: volume {unknown[0]} is in no fold (--splits)")
    return folds


def group_means(rows: list[Row], splits: Path, parts: tuple[str, ...]) -> dict[str, list[Row]]:
    """Return {"fold": rows, "scroll": rows}: volumes, mean of each part, deviation of the score.

    Args:
        rows: figures of each volume, with `volume`.
        splits: file of `vesuvius splits`.
        parts: names of the figures, the first of them the score.

    Raises:
        ConfigError: the file is malformed or does not hold a volume.
        VolumeNotFoundError: no such file.
    """
    folds = _folds_of((row["volume"] for row in rows), splits)
    groups: dict[str, dict[str, list[Row]]] = {
        "fold": defaultdict(list),
        "scroll": defaultdict(list),
    }
    for row in rows:
        name = row["volume"]
        groups["fold"][str(folds.fold_of[name])].append(row)
        groups["scroll"][folds.facts[name].scroll or "unknown"].append(row)
    return {
        kind: [_mean(kind, name, members[name], parts) for name in sorted(members)]
        for kind, members in groups.items()
    }


def _mean(kind: str, name: str, rows: list[Row], parts: tuple[str, ...]) -> Row:
    means = {part: sum(float(row[part]) for row in rows) / len(rows) for part in parts}
    variance = sum((float(row[parts[0]]) - means[parts[0]]) ** 2 for row in rows) / len(rows)
    return {kind: name, "volumes": len(rows), **means, "deviation": variance**0.5}


def print_groups(groups: dict[str, list[Row]], parts: tuple[str, ...]) -> None:
    """Print one table by fold and one by scroll."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for kind, rows in groups.items():
        table = Table(title=f"means by {kind}; +- is the deviation of the score over volumes")
        for column in (kind, "volumes", *parts, "+-"):
            table.add_column(column, justify="left" if column == kind else "right", no_wrap=True)
        for row in rows:
            values = [f"{row[part]:.4f}" for part in (*parts, "deviation")]
            table.add_row(row[kind], str(row["volumes"]), *values)
        Console(width=None if console.is_terminal else 140).print(table)
