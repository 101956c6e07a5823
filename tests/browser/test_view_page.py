"""`vesuvius view` in a real browser: what is drawn and read is what the arrays hold."""

import numpy as np
import pytest
import tifffile
import zarr

from vesuvius.cli.main import main

SHAPE = (12, 20, 30)
EVIL = "<img src=x onerror=\"document.title='evil'\">"


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Grey value 20 z + y + x modulo 256; four layers whose values at a voxel are known."""
    folder = tmp_path_factory.mktemp("view")
    z, y, x = np.indices(SHAPE)
    tifffile.imwrite(folder / f"{EVIL}.tif", ((20 * z + y + x) % 256).astype(np.uint8))
    probability = np.zeros(SHAPE, np.float32)
    probability[:, :, 20:] = 0.8
    probability[0, 0, 0] = np.nan
    zarr.open_group(folder / "p.zarr", mode="w").create_array("probability", data=probability)
    mask = (y >= 12).astype(np.uint8)
    tifffile.imwrite(folder / "mask.tif", mask)
    label = np.where(x < 5, 2, (y == 6)).astype(np.uint8)
    tifffile.imwrite(folder / "label.tif", label)
    sheets = np.where(y < 3, 1000 * (x // 10) - 1000, 0).astype(np.int32)  # -1000, 0, 1000
    np.save(folder / "sheets.npy", sheets)
    return folder


@pytest.fixture(scope="module")
def page(scan):
    """The page of the scan with all layers."""
    out = scan / "view.html"
    layers = ["--prediction", str(scan / "p.zarr"), "--mask", str(scan / "mask.tif")]
    layers += ["--label", str(scan / "label.tif"), "--sheets", str(scan / "sheets.npy")]
    command = ["view", str(scan / f"{EVIL}.tif"), *layers, "--out", str(out)]
    assert main([*command, "--voxel-size-um", "8"]) == 0
    return out


@pytest.fixture
def opened(browser, page):
    """The page, freshly loaded at voxel (3, 5, 20), full grey range, all layers off."""
    browser.open(page, "#zyx=3,5,20")
    for name in ("probability", "sheets", "mask", "label"):
        browser.script(f"document.getElementById('show-{name}').click()")
    for name in ("crosshair", "scalebar", "full"):
        browser.script(f"document.getElementById('{name}').click()")
    browser.settle()
    assert browser.complaints() == []
    return browser


def reading(browser, name, column=1):
    text = f"return document.querySelector('[data-reading=\"{name}\"]').cells[{column}].textContent"
    return browser.script(text)


def pixel(browser, letter, row, column):
    """RGB in the middle of a voxel of a plane that fills its canvas."""
    sizes = {"z": (1, 2), "y": (0, 2), "x": (0, 1)}[letter]
    rows, columns = (SHAPE[axis] for axis in sizes)
    canvas = f"document.getElementById('plane-{letter}')"
    width, height = browser.script(f"return [{canvas}.width, {canvas}.height]")
    edge = min(width / columns, height / rows)
    x = int(width / 2 + (column + 0.5 - columns / 2) * edge)
    y = int(height / 2 + (row + 0.5 - rows / 2) * edge)
    data = f"{canvas}.getContext('2d').getImageData({x}, {y}, 1, 1).data"
    return browser.script(f"return [...{data}].slice(0, 3)")


def test_the_readout_is_what_the_arrays_hold(opened):
    assert reading(opened, "voxel z, y, x") == "3, 5, 20"
    assert reading(opened, "image") == "85"  # 60 + 5 + 20
    assert reading(opened, "probability") == "0.800"
    assert reading(opened, "mask") == "-"
    assert reading(opened, "label") == "background"
    assert reading(opened, "sheets") == "0"
    assert [reading(opened, f"{axis} \u00b5m") for axis in "zyx"] == ["24.0", "40.0", "160.0"]
    note = opened.script("return document.getElementById('note').textContent")
    assert note == "1 probabilities are not finite, shown as 0"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("0,0,0", {"image": "0", "label": "ignore", "sheets": "-1000", "probability": "0.000"}),
        ("11,2,29", {"image": "251", "sheets": "1000", "label": "background"}),
        ("4,6,7", {"image": "93", "label": "surface", "sheets": "0", "mask": "-"}),
        ("2,12,7", {"image": "59", "mask": "surface"}),
    ],
)
def test_places_in_the_address(browser, page, place, expected):
    browser.open(page, f"#zyx={place}")
    assert {name: reading(browser, name) for name in expected} == expected


def test_pixels_are_grey_values_in_all_planes(opened):
    for letter, voxel in (("z", (3, 9, 11)), ("y", (8, 5, 2)), ("x", (7, 13, 20))):
        others = [k for k in range(3) if "zyx"[k] != letter]
        grey = (20 * voxel[0] + voxel[1] + voxel[2]) % 256
        assert pixel(opened, letter, *(voxel[k] for k in others)) == [grey] * 3


def test_layers_change_their_voxels_alone(opened):
    inside, outside = (15, 8), (2, 12)  # y, x of the axial plane
    before = pixel(opened, "z", *inside), pixel(opened, "z", *outside)
    opened.script("document.getElementById('show-mask').click()")
    opened.script(
        "const s = document.getElementById('style-mask'); s.value = 'fill';"
        "s.dispatchEvent(new Event('change'))"
    )
    opened.settle()
    assert pixel(opened, "z", *inside) == [86, 180, 233]  # opacity 1
    assert pixel(opened, "z", *outside) == before[1]
    opened.script("document.getElementById('show-mask').click()")
    opened.settle()
    assert pixel(opened, "z", *inside) == before[0]
    opened.script("document.getElementById('show-probability').click()")
    opened.settle()
    assert pixel(opened, "z", 8, 25) != [(20 * 3 + 8 + 25) % 256] * 3
    assert pixel(opened, "z", 8, 12) == [80] * 3  # probability 0
    opened.script("document.getElementById('show-sheets').click()")
    opened.settle()
    colours = {tuple(pixel(opened, "z", 1, x)) for x in (3, 13, 23)}
    assert len(colours) == 3


def test_outlines_run_along_the_border(opened):
    opened.script("document.getElementById('show-mask').click()")
    opened.settle()
    row = (
        "const c = document.getElementById('plane-z'), g = c.getContext('2d');"
        "const k = Math.min(c.width / 30, c.height / 20);"
        "const x = Math.round(c.width / 2 - 6.5 * k), y = Math.round(c.height / 2 + 2 * k);"
        "return [-4, 0, 1, 2, 8].map(d => [...g.getImageData(x, y + d, 1, 1).data].slice(0, 3))"
    )
    above, *border, below = opened.script(row)  # around the upper edge of y = 12 at x = 8
    assert above == [79] * 3  # 60 + 11 + 8
    assert any(blue > red + 40 for red, _, blue in border)
    assert below == [80] * 3


def test_mouse_keys_and_wheel_move_the_crosshair(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.common.keys import Keys

    canvas = opened.driver.find_element("id", "plane-z")
    before = pixel(opened, "z", 9, 11)
    ActionChains(opened.driver).scroll_from_origin(
        ScrollOrigin.from_element(canvas), 0, 100
    ).perform()
    opened.settle()
    assert reading(opened, "voxel z, y, x") == "4, 5, 20"
    assert pixel(opened, "z", 9, 11) == [before[0] + 20] * 3
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.PAGE_DOWN)
    opened.settle()
    assert reading(opened, "voxel z, y, x") == "5, 4, 21"
    ActionChains(opened.driver).move_to_element(canvas).click().perform()
    opened.settle()
    assert reading(opened, "voxel z, y, x") in ("5, 10, 15", "5, 9, 14", "5, 10, 14", "5, 9, 15")
    assert reading(opened, "image", column=2) == reading(opened, "image")  # under the pointer
    other = opened.driver.find_element("id", "plane-y")
    other.send_keys("+")
    opened.settle()
    assert opened.script("return document.getElementById('zoom-value').textContent") == "1.3 x"
    other.send_keys("2")
    assert opened.script("return document.getElementById('show-sheets').checked")
    assert opened.complaints() == []


def test_names_of_the_data_do_not_run(browser, page, scan):
    browser.open(page)
    assert browser.script("return document.querySelector('h1').textContent") == EVIL
    assert browser.driver.title == EVIL
    title = "</script><script>document.title = 'evil'</script>"
    out = scan / "title.html"
    command = ["view", str(scan / f"{EVIL}.tif"), "--title", title, "--out", str(out)]
    assert main(command) == 0
    browser.open(out)
    assert browser.driver.title == title
    assert browser.complaints() == []


def test_uint16_shows_about_its_own_values(browser, tmp_path):
    volume = np.linspace(10_000, 50_000, 8 * 9 * 10).reshape(8, 9, 10).astype(np.uint16)
    tifffile.imwrite(tmp_path / "v.tif", volume)
    assert main(["view", str(tmp_path / "v.tif"), "--out", str(tmp_path / "v.html")]) == 0
    browser.open(tmp_path / "v.html", "#zyx=4,4,5")
    sign, value = reading(browser, "image").split()
    assert sign == "\u2248"
    assert abs(int(value) - int(volume[4, 4, 5])) <= 160  # a 256th of the range
    note = browser.script("return document.getElementById('note').textContent")
    assert note.startswith("uint16 grey cut to 1.004e+04 ... 4.996e+04")


def test_a_region_in_cells_names_voxels_of_the_scan(browser, tmp_path):
    volume = np.zeros((20, 20, 20), np.uint8)
    volume[6:8, 4:6, 10:12] = 80  # the cell (2, 1, 4) of the region in cells of two
    volume[7, 5, 11] = 120
    tifffile.imwrite(tmp_path / "v.tif", volume)
    box = "[[2,18],[2,18],[2,19]]"
    command = ["view", str(tmp_path / "v.tif"), "--region-zyx", box, "--max-voxels", "1000"]
    assert main([*command, "--out", str(tmp_path / "v.html")]) == 0
    browser.open(tmp_path / "v.html", "#zyx=7,5,11")
    assert reading(browser, "voxel z, y, x") == "6, 4, 10"
    assert reading(browser, "image") == "\u2248 85"  # mean of 7 x 80 and 120
