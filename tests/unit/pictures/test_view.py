"""The page of `vesuvius view` without a browser: packing, colours, shell."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vesuvius.errors import ShapeMismatchError, VolumeFormatError
from vesuvius.pictures import view_pack
from vesuvius.pictures.page import inert_json, page
from vesuvius.pictures.view import Scene, sheet_palette, view_page


def unpacked(slabs, dtype, shape):
    """What the page's JavaScript does."""
    found = []
    for slab in slabs:
        data = np.frombuffer(zlib.decompress(base64.b64decode(slab.text)), dtype)
        planes = data.reshape(-1, *shape[1:])
        found.append(np.cumsum(planes, axis=0, dtype=dtype) if slab.differences else planes)
    return np.concatenate(found)


@given(
    volume=st.one_of(
        arrays(np.uint8, st.tuples(*[st.integers(1, 9)] * 3)),
        arrays(np.uint16, st.tuples(*[st.integers(1, 9)] * 3)),
    ),
    slab_bytes=st.integers(1, 400),
)
@settings(max_examples=60, deadline=None)
def test_packing_loses_nothing(volume, slab_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_pack, "_SLAB_BYTES", slab_bytes)
        slabs = list(view_pack.pack(volume))
    np.testing.assert_array_equal(unpacked(slabs, volume.dtype, volume.shape), volume)


def test_differences_are_used_where_they_are_smaller(rng):
    noise = rng.integers(0, 200, (1, 64, 64))
    fading = (noise + rng.integers(0, 3, (20, 64, 64))).astype(np.uint8)
    flat = rng.choice(np.array([10, 240], np.uint8), (20, 64, 64))
    assert all(slab.differences for slab in view_pack.pack(fading))
    assert not any(slab.differences for slab in view_pack.pack(flat))


def test_neighbouring_sheets_differ_for_those_who_see_lightness_alone():
    colours = np.array(sheet_palette(np.arange(1, 200)))
    luma = colours @ [0.2126, 0.7152, 0.0722]
    distance = np.abs(np.diff(colours, axis=0)).sum(axis=1)
    assert distance.min() > 90
    assert np.median(np.abs(np.diff(luma))) > 40
    assert len({tuple(colour) for colour in colours.tolist()}) > 190


def test_the_page_loads_nothing_and_names_stay_text():
    title = "</title><script>evil()</script>"
    image = np.zeros((3, 4, 5), np.uint8)
    text = view_page(Scene(title=title, image=image, notes=[title], line="<b>")).decode()
    assert "<script>evil" not in text
    assert "<b>" not in text
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", text) == []
    assert "http" not in re.sub(r"http-equiv", "", text)
    facts = json.loads(re.search(r"id='facts'>(.*?)</script>", text).group(1))
    assert facts["notes"] == [title]
    assert facts["line"] == "<b>"
    assert "default-src 'none'" in text
    assert len(re.findall(r"'sha256-[^']{44}'", text)) == 2


def test_shell_without_scripts_allows_none():
    assert "script-src 'none'" in page("t", "b", style="p {}")
    assert json.loads(inert_json({"a": "</script>&"})) == {"a": "</script>&"}
    assert "<" not in inert_json("</script>")


def test_what_cannot_be_shown_is_refused():
    image = np.zeros((2, 300, 300), np.uint8)
    with pytest.raises(ShapeMismatchError, match="argument 'mask' has shape"):
        view_page(Scene(title="t", image=image, mask=image[1:]))
    sheets = np.arange(image.size, dtype=np.int32).reshape(image.shape)
    with pytest.raises(VolumeFormatError, match="179999 different numbers; expected at most 65534"):
        view_page(Scene(title="t", image=image, sheets=sheets))
