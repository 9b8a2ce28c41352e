"""Pages of one file: nothing in their data can leave its place, pictures keep their pixels, nothing is fetched."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from minitorch_unet.pages import asset, embedded, escape, grey8, page, png, png_uri


class Tags(HTMLParser):
    """The elements of a page in order, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] == "script" and data.strip():
            self.scripts.append(data)


def test_hostile_text_stays_text() -> None:
    hostile = "</script><script>alert(1)</script><!-- \u2028 & \"'"
    body = f'<p title="{escape(hostile)}">{escape(hostile)}</p>'
    text = page(hostile, body, data={"name": hostile}, scripts=["1;"])
    tags = Tags(text)
    assert tags.names.count("script") == 2 and tags.names.count("p") == 1
    assert json.loads(tags.scripts[0]) == {"name": hostile}


def test_what_cannot_be_embedded_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        embedded({"loss": float("nan")})
    with pytest.raises(ValueError, match="</script"):
        page("title", "", scripts=["'</script>'"])


def test_nothing_is_fetched() -> None:
    text = page("title", "<p>text</p>", style="p { color: red }")
    assert "default-src 'none'" in text and "p { color: red }" in text
    assert not re.search(r"https?://|@import|url\((?!data:)", text)


def test_light_and_dark_name_the_same_colours() -> None:
    light, dark = asset("pages.css").split("prefers-color-scheme: dark")
    names = set(re.findall(r"(--[a-z]+): #", light))
    assert names == set(re.findall(r"(--[a-z]+): #", dark)) and len(names) > 8


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["ink", "quiet", "link", "blue", "orange", "green", "red", "yellow"])
def test_text_has_contrast(scheme: int, name: str) -> None:
    """WCAG's ratio of luminances, 4.5 for text."""
    rules = asset("pages.css").split("prefers-color-scheme: dark")[scheme]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", rules))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ground in ("ground", "panel", "sunken"):
        dark, light = sorted((luminance(colours[name]), luminance(colours[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (3, 5, 4)])
def test_png_keeps_every_pixel(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    uri = png_uri(picture[::-1])
    assert uri.startswith("data:image/png;base64,")
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    np.testing.assert_array_equal(read, picture[::-1])


def test_png_with_colours() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 3)).astype(np.uint8)
    picture = np.array([[0, 1], [4, 3]], np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png(picture, colours))).convert("RGB"))
    np.testing.assert_array_equal(read, colours[picture])


def test_png_refuses_floats() -> None:
    with pytest.raises(ValueError, match="float64"):
        png(np.zeros((2, 2)))


def test_grey8() -> None:
    np.testing.assert_array_equal(grey8(np.array([-1.0, 0.0, 1.0])), [0, 128, 255])
    np.testing.assert_array_equal(grey8(np.array([-9.0, 0.5, 9.0]), 0, 1), [0, 128, 255])
    np.testing.assert_array_equal(grey8(np.full(3, 7.0)), [0, 0, 0])
