"""`vesuvius score --explain`: tables, pictures and one page that needs nothing else."""

import csv
import json
import re

import numpy as np
import pytest
import tifffile

from vesuvius.cli.main import main


@pytest.fixture
def folders(tmp_path):
    """A perfect volume and one with a bridge, a hole and a false piece."""
    label = np.zeros((24, 24, 24), np.uint8)
    label[4:6] = label[9:11] = 1
    bad = label.copy()
    bad[6:9, 20, 5] = 1
    bad[4:6, 7, 8] = 0
    bad[7, 2, 2:5] = 1
    for name, mask in (("bad", bad), ("good", label)):
        for kind, array in (("masks", mask), ("labels", label)):
            (tmp_path / kind).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / kind / f"{name}.tif", array)
    return tmp_path


def test_page_tables_and_pictures(folders, capsys):
    out = folders / "lost"
    places = [str(folders / "masks"), str(folders / "labels")]
    assert main(["score", *places, "--explain", str(out), "--jobs", "1"]) == 0
    assert str(out / "index.html") in capsys.readouterr().err
    rows = list(csv.DictReader((out / "events.csv").read_text().splitlines()))
    kinds = sorted((row["kind"], row["side"]) for row in rows)
    assert kinds == [
        ("component", "label"),  # two label pieces joined in their block
        ("component", "prediction"),
        ("merge", "prediction"),
        ("tunnel", "prediction"),
    ]
    assert {row["volume"] for row in rows} == {"bad"}
    (merge,) = [row for row in rows if row["kind"] == "merge"]
    assert (merge["y"], merge["x"]) == ("20", "5")
    bad = json.loads((out / "bad.json").read_text())
    assert bad["fusion_rate"] == 1.0
    assert bad["counts"]["tunnel of the prediction"] == 1
    assert len(bad["blocks"]) == 8
    assert json.loads((out / "good.json").read_text())["events"] == []
    page = (out / "index.html").read_text()
    assert page.index("id='bad'") < page.index("id='good'")  # worst first
    assert page.count("data:image/png;base64,") == 2
    assert re.search(r"(src|href)='(?!data:|#)", page) is None  # nothing to load
    for name in ("bad", "good"):
        assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
