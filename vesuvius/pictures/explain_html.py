"""A report of scores as one HTML file: tables and pictures inside, nothing to load."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vesuvius.pictures.page import page
from vesuvius.storage.files import write_text

Cell = str | float | int
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1f26; margin: 2rem auto; max-width: 1500px;
  padding: 0 1rem; }
table { border-collapse: collapse; margin: .6rem 0 1.4rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem; text-align: right; border-bottom: 1px solid #e3e6ea; }
th { color: #6b7280; font-weight: 600; }
td:first-child, th:first-child, .words { text-align: left; }
img { max-width: 100%; } summary { cursor: pointer; color: #0072b2; margin: .4rem 0; }
h2 { margin-top: 2.6rem; border-top: 2px solid #c9ced6; padding-top: 1rem; }
p.note { color: #6b7280; max-width: 60rem; } a { color: #0072b2; }
p.facts { color: #6b7280; white-space: pre-wrap; margin-top: -.4rem; }
tbody tr:hover { background: #f4f6f8; }
""".strip()


@dataclass(frozen=True, slots=True)
class Section:
    """One volume of the report.

    Attributes:
        name: heading and anchor.
        facts: line below it.
        picture: PNG file that is put inside.
        tables: {title: rows}; all but the first are folded. Rows share their keys.
    """

    name: str
    facts: str
    picture: Path
    tables: Mapping[str, Sequence[Mapping[str, Cell]]]


def write_report(
    path: Path,
    *,
    title: str,
    note: str,
    overview: Sequence[Mapping[str, Cell]],
    sections: Sequence[Section],
) -> Path:
    """Write the report atomically and return its path.

    Args:
        path: HTML file; its folder is made.
        title: of the page.
        note: how to read it.
        overview: one row a volume; a cell `volume` links to its section.
        sections: one a volume.

    Raises:
        StorageError: the file cannot be written.
    """
    names = {section.name for section in sections}
    parts = [
        f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(note)}</p>",
        _table(overview, names),
        *(_section(section) for section in sections),
    ]
    return write_text(path, page(title, "\n".join(parts), style=_STYLE))


def _section(section: Section) -> str:
    name = html.escape(section.name)
    image = base64.b64encode(section.picture.read_bytes()).decode()
    parts = [f"<h2 id='{name}'>{name}</h2><p class='facts'>{html.escape(section.facts)}</p>"]
    parts.append(f"<img alt='places of volume {name}' src='data:image/png;base64,{image}'>")
    for number, (title, rows) in enumerate(section.tables.items()):
        if not rows:
            continue
        opened = " open" if number == 0 else ""
        parts.append(f"<details{opened}><summary>{html.escape(title)}</summary>")
        parts.append(_table(rows, set()) + "</details>")
    return "\n".join(parts)


def _table(rows: Sequence[Mapping[str, Cell]], links: set[str]) -> str:
    if not rows:
        return ""
    words = {name for name, value in rows[0].items() if re.search("[a-z]", str(value))}

    def cells(tag: str, texts: Mapping[str, str]) -> str:
        aligned = {name: " class='words'" if name in words else "" for name in texts}
        return "".join(f"<{tag}{aligned[name]}>{text}</{tag}>" for name, text in texts.items())

    head = cells("th", {name: html.escape(name) for name in rows[0]})
    body = "".join(
        f"<tr>{cells('td', {name: _cell(value, links) for name, value in row.items()})}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Cell, links: set[str]) -> str:
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    safe = html.escape(text)
    return f"<a href='#{safe}'>{safe}</a>" if text in links else safe
