"""The panel of lost score chooses every kind in turn; the page escapes what it shows."""

from dataclasses import dataclass

import numpy as np
import pytest

from vesuvius.errors import ShapeMismatchError
from vesuvius.pictures.explain import explain_panel, worst_places
from vesuvius.pictures.explain_html import Section, write_report


@dataclass
class Place:
    kind: str
    bits: float = 0.0
    voxels: int = 1
    side: str = "prediction"
    centre_zyx: tuple = (3, 3, 3)
    low_zyx: tuple = (3, 3, 3)
    high_zyx: tuple = (3, 3, 3)


def test_kinds_take_turns_and_the_costliest_comes_first():
    places = [Place("tunnel", voxels=n) for n in (1, 9, 5)]
    places += [Place("merge", bits=0.1), Place("merge", bits=0.4)]
    chosen = [(p.kind, p.bits, p.voxels) for p in worst_places(places, 4)]
    assert chosen == [("merge", 0.4, 1), ("tunnel", 0, 9), ("merge", 0.1, 1), ("tunnel", 0, 5)]


def test_panel_with_and_without_events(tmp_path):
    label = np.zeros((12, 14, 16), np.uint8)
    label[5] = 1
    for events in ([], [Place("cavity"), Place("split", side="label")]):
        path = explain_panel(tmp_path / f"{len(events)}.png", label == 1, label, events)
        assert path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ShapeMismatchError):
        explain_panel(tmp_path / "x.png", label[1:], label, [])


def test_page_escapes_names(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    section = Section("<b>", "a & b", tmp_path / "a.png", {"t": [{"x": 0.5}], "none": []})
    path = write_report(
        tmp_path / "p.html", title="t<", note="n", overview=[{"volume": "<b>"}], sections=[section]
    )
    page = path.read_text()
    assert "<b>" not in page
    assert "a &amp; b" in page
    assert "<a href='#&lt;b&gt;'>" in page
    assert "0.5000" in page
