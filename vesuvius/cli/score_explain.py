"""`vesuvius score --explain DIR`: tables, pictures and an HTML page of where score is lost."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesuvius.cli.score_files import read_volume, write_csv

if TYPE_CHECKING:
    from vesuvius.metrics.explain import Explanation
    from vesuvius.pictures.explain_html import Section

Row = dict[str, Any]
_SHOWN = 60
"""Events of a volume in the page; the tables on disk have all."""
_NOTE = (
    "Unmatched components, tunnels and cavities are counted by the TopoScore in each of eight "
    "blocks; merges and splits cost VOI, their bits are those of the whole piece. A contact is "
    "where two pieces grown inside one piece of the other mask meet. Fused: neighbouring label "
    "pieces that one predicted piece holds. Coordinates are voxels z, y, x of the volume."
)
_BLOCK_FEATURES = ("components", "tunnels", "cavities")


def explain_pairs(folder: Path, rows: list[Row], pairs: dict[str, tuple[Path, Path]]) -> Path:
    """Explain volumes, worst first, into a folder; return the page.

    Writes `<id>.png`, `<id>.json`, `events.csv` (one row an event) and `index.html`.

    Raises:
        StorageError: a file cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    from vesuvius.pictures.explain_html import write_report

    events: list[Row] = []
    overview: list[Row] = []
    sections: list[Section] = []
    console = Console(file=sys.stderr)
    for row in track(rows, "explain", console=console):
        name = row["volume"]
        summary, section, found = explain_one(folder, row, pairs[name])
        overview.append(summary)
        sections.append(section)
        events += found
    if events:
        write_csv(folder / "events.csv", events)
    title = f"Where {len(rows)} volumes lose their score"
    return write_report(
        folder / "index.html", title=title, note=_NOTE, overview=overview, sections=sections
    )


def explain_one(
    folder: Path, row: Row, pair: tuple[Path, Path]
) -> tuple[Row, "Section", list[Row]]:
    """Return a volume's row of the overview, its section and its events; write its files."""
    from vesuvius.inference.store import write_json
    from vesuvius.metrics.explain import explain
    from vesuvius.pictures.explain import explain_panel, worst_places
    from vesuvius.pictures.explain_html import Section

    name = row["volume"]
    mask, label = read_volume(pair[0], "prediction"), read_volume(pair[1], "label")
    found = explain(mask, label)
    near = found.neighbours
    fused = f"{len(near.fused)} of {len(near.pairs)} neighbouring pairs fused ({near.rate:.0%})"
    parts = ("score", "topo", "surface_dice", "voi_score", "voi_split", "voi_merge")
    facts = "   ".join(f"{part} {row[part]:.3f}" for part in parts) + f"   {fused}"
    picture = explain_panel(
        folder / f"{name}.png", mask, label, found.events, title=f"Volume {name}", facts=facts
    )
    events = [event_row(name, event) for event in found.events]
    write_json(folder / f"{name}.json", as_json(name, found, events))
    shown = worst_places(found.events, _SHOWN)
    tables = {
        "features by block: matched / prediction / label": block_rows(found),
        f"the {len(shown)} costliest of {len(events)} places": [
            {key: value for key, value in event_row(name, event).items() if key != "volume"}
            for event in shown
        ],
        "fused neighbours": [{"piece": a, "and": b} for a, b in near.fused],
    }
    counts = found.counted()
    summary: Row = {"volume": name} | {part: row[part] for part in parts}
    for side, kinds in (("prediction", ("component", "tunnel", "cavity", "merge")),
                        ("label", ("component", "tunnel", "cavity", "split"))):  # fmt: skip
        for kind in kinds:
            summary[f"{_heading(kind, side)}"] = counts.get(f"{kind} of the {side}", 0)
    summary["fused"] = f"{near.rate:.0%}"
    return summary, Section(name, facts, picture, tables), events


def event_row(name: str, event: Any) -> Row:
    """Return an event as one row of a table."""
    row: Row = {"volume": name, "kind": event.kind, "side": event.side, "block": event.block}
    for place in ("centre", "low", "high"):
        for axis, value in zip("zyx", getattr(event, f"{place}_zyx"), strict=True):
            row[axis if place == "centre" else f"{place}_{axis}"] = value
    return row | {"voxels": event.voxels, "bits": event.bits, "detail": event.detail}


def block_rows(found: "Explanation") -> list[Row]:
    """Return the counts of each block of the TopoScore."""
    rows: list[Row] = []
    for number, block in enumerate(found.score.blocks):
        row: Row = {"block": number, "origin z, y, x": ", ".join(map(str, block.origin_zyx))}
        for k, feature in enumerate(_BLOCK_FEATURES):
            row[feature] = " / ".join(map(str, block.counts[k]))
        rows.append(row)
    return rows


def as_json(name: str, found: "Explanation", events: list[Row]) -> Row:
    """Return everything found in a volume as plain values."""
    near = found.neighbours
    return {
        "volume": name,
        "score": found.score.score,
        "counts": found.counted(),
        "fusion_rate": near.rate,
        "neighbours": [list(pair) for pair in near.pairs],
        "fused": [list(pair) for pair in near.fused],
        "merge_bits": {piece: bits for piece, bits in found.merge_bits.items() if bits},
        "split_bits": {piece: bits for piece, bits in found.split_bits.items() if bits},
        "blocks": block_rows(found),
        "events": [{key: value for key, value in row.items() if key != "volume"} for row in events],
    }


def _heading(kind: str, side: str) -> str:
    """Return the overview's column of a kind of event."""
    words = {
        ("component", "prediction"): "extra pieces",
        ("tunnel", "prediction"): "extra tunnels",
        ("cavity", "prediction"): "extra cavities",
        ("merge", "prediction"): "merge contacts",
        ("component", "label"): "lost pieces",
        ("tunnel", "label"): "lost tunnels",
        ("cavity", "label"): "lost cavities",
        ("split", "label"): "breaks",
    }
    return words[kind, side]
