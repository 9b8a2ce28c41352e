"""Pages that need nothing beside themselves: one HTML file with its style, its scripts, its data and its pictures.

They open from the disk, fetch nothing (their own policy forbids it), and follow the reader's choice of light or dark.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np

# What the page may use: itself. A slip that would load something from elsewhere shows as an error in the browser.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_SKELETON = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body>
{body}
{scripts}</body>
</html>
"""


def page(title: str, body: str, style: str = "", data: Any = None, scripts: Sequence[str] = ()) -> str:
    """The whole page. `title` is plain text; `body` is HTML, with foreign text in it escaped by the caller.

    style: CSS behind the common one (pages.css). data: anything JSON can hold; scripts find it with
    `JSON.parse(document.getElementById("data").textContent)`. scripts: sources of JavaScript, run in order.
    """
    parts = [] if data is None else [f'<script type="application/json" id="data">{embedded(data)}</script>\n']
    for source in scripts:
        if "</script" in source.lower():
            raise ValueError("page: a script contains '</script', which would end it; write it as '<\\/script'")
        parts.append(f"<script>\n{source}</script>\n")
    return _SKELETON.format(
        policy=POLICY, title=escape(title), style=asset("pages.css") + style, body=body, scripts="".join(parts)
    )


def escape(text: object) -> str:
    """Text for HTML, also between the quotes of an attribute."""
    return html.escape(str(text), quote=True)


def embedded(data: Any) -> str:
    """JSON that may stand inside <script>: nothing in it can end the element. Raises ValueError for NaN or infinity."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def asset(name: str, package: str = "minitorch_unet") -> str:
    """Text of a file that lies beside the code: a style sheet, a script, a template."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def grey8(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values as uint8 greys: `low` (default: the smallest) black, `high` (the largest) white; all equal: black."""
    values = np.asarray(values, np.float64)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    return np.rint(np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255).astype(np.uint8)


def png(picture: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """A picture (H, W), (H, W, 3) or (H, W, 4) of uint8 as a PNG file.

    With `colours` (N, 3) uint8, N at most 256, the values of a picture (H, W) are numbers of these colours.
    """
    from PIL import Image

    if picture.dtype != np.uint8 or picture.ndim not in (2, 3):
        raise ValueError(
            f"png: picture is {picture.dtype} of shape {picture.shape}; it must be uint8, (H, W[, 3 or 4])"
        )
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    if colours is not None:
        image.putpalette(colours.astype(np.uint8).tobytes())
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def png_uri(picture: np.ndarray, colours: np.ndarray | None = None) -> str:
    """The picture as a data: URI, for `src`."""
    return "data:image/png;base64," + base64.b64encode(png(picture, colours)).decode("ascii")
