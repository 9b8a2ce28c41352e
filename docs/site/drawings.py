"""Pictures for pages of functions, drawn as SVG from what the functions themselves compute.

They stand within the page, so that lines and numbers take on the colour of its text, be it light or dark.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitorch_unet import Tensor
from minitorch_unet import functional as F
from minitorch_unet.microscope.building import WORKED_IMAGE, WORKED_KERNEL
from minitorch_unet.tensor import grad

CELL = 30
CURVES = ("relu", "leaky_relu", "sigmoid", "tanh", "softplus", "silu", "gelu", "exp", "log", "sqrt", "abs", "clamp")
IMAGE, KERNEL = np.array(WORKED_IMAGE, np.float32), np.array(WORKED_KERNEL, np.float32)

Cells = set[tuple[int, int]]


def svg(parts: list[str], width: float, height: float, label: str) -> str:
    """The picture as one element; `label` says in words what it shows."""
    return (
        f'<svg class="figure" role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width:{width:g}px">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words centred at a point."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{words}</text>'


def grid(x: float, y: float, values: np.ndarray, marked: Cells, title: str) -> str:
    """A table of numbers with its title above; cells of `marked` are tinted."""
    rows, columns = values.shape
    parts = [text(x + columns * CELL / 2, y - 8, title, "title")]
    for i in range(rows):
        for j in range(columns):
            kind = "marked" if (i, j) in marked else "cell"
            left, top = x + j * CELL, y + i * CELL
            parts.append(f'<rect x="{left:g}" y="{top:g}" width="{CELL}" height="{CELL}" class="{kind}"/>')
            parts.append(text(left + CELL / 2, top + CELL / 2 + 4, f"{values[i, j]:.3g}".replace("-", "−")))
    return "".join(parts)


def block(top: int, left: int, rows: int, columns: int) -> Cells:
    """The cells of a rectangle."""
    return {(top + i, left + j) for i in range(rows) for j in range(columns)}


def maps(values: np.ndarray) -> Tensor:
    """A table as a Tensor (1, 1, H, W)."""
    return Tensor(values.astype(np.float32)[None, None], requires_grad=True)


def conv2d() -> str:
    """A window, the kernel, and the value that they give."""
    y = F.conv2d(maps(IMAGE), maps(KERNEL)).data[0, 0]
    parts = [
        grid(5, 25, IMAGE, block(1, 2, 3, 3), "input: one window"), text(202, 120, "·", "sign"),
        grid(220, 70, KERNEL, block(0, 0, 3, 3), "weight"), text(327, 120, "=", "sign"),
        grid(345, 55, y, {(1, 2)}, "result: its value"),
    ]  # fmt: skip
    return svg(parts, 475, 215, "A window of 3 by 3 pixels times the kernel gives one value of the result")


def conv_transpose2d() -> str:
    """One input pixel times the kernel, put into the output."""
    x, w = np.array([[1, 2], [3, 4]]), np.array([[1, 0], [5, -1]])
    y = F.conv_transpose2d(maps(x), maps(w), stride=2).data[0, 0]
    parts = [
        grid(5, 55, x, {(0, 1)}, "input"), text(82, 90, "·", "sign"), grid(100, 55, w, block(0, 0, 2, 2), "weight"),
        text(177, 90, "=", "sign"), grid(195, 25, y, block(0, 2, 2, 2), "result, stride 2"),
    ]  # fmt: skip
    return svg(parts, 325, 155, "One pixel times the kernel of 2 by 2 fills a block of the result")


def max_pool2d() -> str:
    """Winners, and the way of the gradient."""
    x = np.array([[1, 7, 3, 2], [4, 5, 3, 3], [0, 2, 8, 1], [9, 6, 4, 4]])
    given = maps(x)
    y = F.max_pool2d(given, 2)
    gy = np.array([[10, 20], [30, 40]])
    (gx,) = grad(y, [given], maps(gy).detach())
    assert gx is not None
    winners = {(i, j) for i, j in zip(*np.nonzero(gx.data[0, 0]), strict=True)}
    parts = [
        grid(5, 25, x, winners, "input: winners"), text(152, 90, "→", "sign"),
        grid(170, 55, y.data[0, 0], set(), "result"),
        grid(280, 55, gy, set(), "gradient"), text(357, 90, "→", "sign"),
        grid(375, 25, gx.data[0, 0], winners, "gradient of the input"),
    ]  # fmt: skip
    return svg(parts, 500, 155, "Each window's largest value is the result, and gets the whole gradient")


def avg_pool2d() -> str:
    """The gradient is shared."""
    x = np.array([[1, 7, 3, 2], [4, 4, 3, 4], [0, 2, 8, 1], [9, 5, 5, 2]])
    given = maps(x)
    y = F.avg_pool2d(given, 2)
    gy = np.array([[4, 8], [12, 16]])
    (gx,) = grad(y, [given], maps(gy).detach())
    assert gx is not None
    corner = block(0, 2, 2, 2)
    parts = [
        grid(5, 25, x, corner, "input"), text(152, 90, "→", "sign"), grid(170, 55, y.data[0, 0], {(0, 1)}, "result"),
        grid(280, 55, gy, {(0, 1)}, "gradient"), text(357, 90, "→", "sign"),
        grid(375, 25, gx.data[0, 0], corner, "gradient of the input"),
    ]  # fmt: skip
    return svg(parts, 500, 155, "Each window's mean is the result, and its gradient is shared evenly")


def interpolate() -> str:
    """Two by two pixels made four by four, in both modes."""
    x = np.array([[0, 4], [8, 12]])
    near, smooth = (F.interpolate(maps(x), (4, 4), mode=mode).data[0, 0] for mode in ("nearest", "bilinear"))
    parts = [
        grid(5, 55, x, {(0, 1)}, "input"), text(82, 90, "→", "sign"),
        grid(100, 25, near, block(0, 2, 2, 2), "nearest"), grid(240, 25, smooth, set(), "bilinear"),
    ]  # fmt: skip
    return svg(parts, 365, 155, "Nearest repeats each pixel, bilinear mixes neighbours")


def pad() -> str:
    """The three modes along a row."""
    x = np.array([[1, 2, 3, 4]])
    parts = []
    for i, mode in enumerate(("constant", "reflect", "replicate")):
        y = F.pad(maps(x), (3, 3), mode).data[0, 0]
        parts.append(grid(5, 25 + 60 * i, y, block(0, 3, 1, 4), mode))
    return svg(parts, 310, 180, "A border of zeros, of mirrored pixels, of repeated edge pixels")


def crop() -> str:
    """The centre, and the gradient with its zeros."""
    x = np.arange(1, 26).reshape(5, 5)
    given = maps(x)
    y = F.crop(given, 2)
    (gx,) = grad(y, [given], Tensor(np.ones((1, 1, 2, 2), np.float32)))
    assert gx is not None
    window = {(i, j) for i, j in zip(*np.nonzero(gx.data[0, 0]), strict=True)}
    parts = [
        grid(5, 25, x, window, "input"), text(182, 105, "→", "sign"), grid(200, 70, y.data[0, 0], set(), "result"),
        grid(310, 25, gx.data[0, 0], window, "gradient of the input"),
    ]  # fmt: skip
    return svg(parts, 465, 185, "The centre is cut out; its gradient is put back among zeros")


def softmax() -> str:
    """Scores and shares as bars."""
    scores = np.array([1.0, 3.0, 0.5, 2.0], dtype=np.float32)
    shares = F.softmax(Tensor(scores), 0).data
    parts = []
    for left, values, scale, title in ((10, scores, 30, "scores"), (240, shares, 120, "softmax: sums to 1")):
        parts.append(text(left + 80, 14, title, "title"))
        for i, value in enumerate(values.tolist()):
            height = value * scale
            place = f'x="{left + 42 * i}" y="{130 - height:g}" width="34" height="{height:g}"'
            parts.append(f'<rect {place} class="marked"/>')
            parts.append(text(left + 42 * i + 17, 146, f"{value:.2f}"))
    return svg(parts, 420, 155, "The largest score takes most of the whole")


def curve(name: str) -> Callable[[], str]:
    """The function and its derivative over an interval, both as the engine computes them."""

    def draw() -> str:
        low, high = (0.05, 4.0) if name in ("log", "sqrt") else (-4.0, 1.4) if name == "exp" else (-4.0, 4.0)
        x = Tensor(np.linspace(low, high, 161), requires_grad=True)
        y = F.clamp(x, -1, 2) if name == "clamp" else getattr(F, name)(x)
        (slope,) = grad(y, [x], Tensor(np.ones(161)))
        assert slope is not None
        top = min(4.0, float(max(y.data.max(), slope.data.max())))
        bottom = max(-4.0, min(0.0, float(min(y.data.min(), slope.data.min()))))
        left, step, scale = 20.0, 320 / (high - low), 150 / (top - bottom)

        def line(values: np.ndarray, kind: str) -> str:
            inside = (values >= bottom) & (values <= top)
            points = " ".join(
                f"{left + (a - low) * step:.1f},{20 + (top - b) * scale:.1f}"
                for a, b in zip(x.data[inside], values[inside], strict=True)
            )
            return f'<polyline points="{points}" class="{kind}"/>'

        zero = 20 + top * scale
        parts = [f'<line x1="{left}" x2="340" y1="{zero:g}" y2="{zero:g}" class="axis"/>']
        if low < 0 < high:
            parts.append(f'<line x1="{left - low * step:g}" x2="{left - low * step:g}" y1="20" y2="170" class="axis"/>')
        parts += [line(slope.data, "slope"), line(y.data, "curve")]
        parts += [text(390, 60, name, "curvename"), text(390, 85, "its derivative", "slopename")]
        marks = [round(low), *([0] if low < 0 else []), round(high)]
        parts += [text(left + (mark - low) * step, zero + 14, f"{mark:g}".replace("-", "−"), "small") for mark in marks]
        return svg(parts, 450, 190, f"{name} and its derivative from {low:g} to {high:g}")

    return draw


PICTURES: dict[str, Callable[[], str]] = {
    "conv2d": conv2d, "conv_transpose2d": conv_transpose2d, "max_pool2d": max_pool2d, "avg_pool2d": avg_pool2d,
    "interpolate": interpolate, "pad": pad, "crop": crop, "softmax": softmax, **{name: curve(name) for name in CURVES},
}  # fmt: skip
