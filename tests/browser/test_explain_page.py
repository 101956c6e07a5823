"""The page of `vesuvius score --explain` in a browser: its policy lets its own parts through."""

from matplotlib.figure import Figure

from vesuvius.pictures.explain_html import Section, write_report


def test_pictures_tables_and_links_work(browser, tmp_path):
    Figure(figsize=(3, 2), dpi=100).savefig(tmp_path / "a.png")
    tables = {"places": [{"kind": "tunnel", "z": 3, "detail": "hole"}], "more": [{"x": "1"}]}
    path = write_report(
        tmp_path / "index.html",
        title="t",
        note="n",
        overview=[{"volume": "a<b", "score": 0.5}],
        sections=[Section("a<b", "score 0.5   topo 1", tmp_path / "a.png", tables)],
    )
    browser.open(path)
    assert browser.script("return document.querySelector('img').naturalWidth") == 300
    assert browser.script("return document.querySelector('h2').textContent") == "a<b"
    colour = "return getComputedStyle(document.querySelector('a')).color"
    assert browser.script(colour) == "rgb(0, 114, 178)"  # the style is applied
    browser.driver.find_element("link text", "a<b").click()
    assert browser.script("return decodeURIComponent(location.hash)") == "#a<b"
    align = "return [...document.querySelectorAll('td')].map(c => getComputedStyle(c).textAlign)"
    assert browser.script(align) == ["left", "right", "left", "right", "left", "left"]
    assert browser.complaints() == []
