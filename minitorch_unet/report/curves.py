"""Line charts as inline SVG: small, readable on a telephone, in the page's colours by day and by night."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ..pages import escape

WIDTH, HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
_POINTS = 300  # that a line is drawn through at most


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart. colour: a name of the style sheet (blue, orange, ...). faint: thin and pale, in the back.

    dots: mark the points, each with its values as text under the pointer.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    colour: str = "blue"
    faint: bool = False
    dots: bool = False


def chart(
    lines: Sequence[Line], x_label: str, y_label: str, log: bool = False, limits: tuple[float, float] | None = None
) -> str:
    """A figure with a legend; what y is, its title says. log: y on a logarithmic scale, without values up to 0.

    limits: of y; without them those of the lines that are not faint, and 0 where y is not logarithmic.
    """
    clean = [_clean(line, log) for line in lines]
    clean = [line for line in clean if len(line.x)]
    if not clean:
        return '<p class="quiet">nothing recorded yet</p>'
    x_low, x_high = min(float(np.min(line.x)) for line in clean), max(float(np.max(line.x)) for line in clean)
    if x_low == x_high:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    y_low, y_high = limits or _limits([line for line in clean if not line.faint] or clean, log)

    def at_x(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        low, high, value = (math.log10(v) for v in (y_low, y_high, value)) if log else (y_low, y_high, value)
        share = (value - low) / (high - low)
        return HEIGHT - _BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM)

    title = f"{y_label} over {x_label}: {', '.join(line.name for line in clean)}"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    bottom = HEIGHT - _BOTTOM
    for value in _log_ticks(y_low, y_high) if log else _ticks(y_low, y_high, 5):
        y = at_y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in _ticks(x_low, x_high, 6, whole=True):
        parts.append(f'<path class="grid" d="M{at_x(value):.1f} {bottom}v5"/>')
        parts.append(f'<text x="{at_x(value):.1f}" y="{bottom + 19}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>')
    centre = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{centre}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    for line in sorted(clean, key=lambda line: not line.faint):
        thin = thinned(np.asarray(line.x, float), np.asarray(line.y, float))
        path = " ".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(*thin, strict=True))
        style = f"line{' faint' if line.faint else ''}"
        parts.append(f'<path class="{style}" style="stroke:var(--{line.colour})" d="M{path}"/>')
        if (line.dots and len(thin[0]) <= 60) or len(thin[0]) == 1:
            parts += [
                f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" style="fill:var(--{line.colour})">'
                f"<title>{escape(line.name)}, {escape(x_label)} {number(x)}: {number(y)}</title></circle>"
                for x, y in zip(*thin, strict=True)
            ]
    legend = "".join(
        f'<span><i class="{"faint" if line.faint else ""}" style="background:var(--{line.colour})"></i>'
        f"{escape(line.name)}</span>"
        for line in clean
    )
    return f'<div class="legend">{legend}</div>{"".join(parts)}</svg>'


def thinned(x: np.ndarray, y: np.ndarray, points: int = _POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most about `points` of a line: of pieces of equal length the lowest and the highest, in their order."""
    if len(x) <= points:
        return x, y
    kept = set()
    for piece in np.array_split(np.arange(len(x)), points // 2):
        kept |= {int(piece[np.argmin(y[piece])]), int(piece[np.argmax(y[piece])])}
    order = sorted(kept | {0, len(x) - 1})
    return x[order], y[order]


def running_mean(y: np.ndarray, window: int) -> np.ndarray:
    """Means of `window` neighbours: len(y) - window + 1 of them."""
    sums = np.concatenate([[0.0], np.cumsum(y, dtype=np.float64)])
    return (sums[window:] - sums[:-window]) / window


def number(value: float) -> str:
    """A number for people, in three or four digits: 0.012, 1e-05, 1,200."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.2g}"


def _clean(line: Line, log: bool) -> Line:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    usable = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log))
    return dataclasses.replace(line, x=x[usable], y=y[usable])


def _limits(lines: Sequence[Line], log: bool) -> tuple[float, float]:
    low, high = min(float(np.min(line.y)) for line in lines), max(float(np.max(line.y)) for line in lines)
    if log:
        return low / 1.2, high * 1.2
    low, high = min(0.0, low), max(0.0, high)
    spare = 0.06 * (high - low)
    return (low - spare if low else low, high + spare if high else high) if spare else (0.0, 1.0)


def _ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Round numbers from low to high, about `count`: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and where there are few of them also 3, or 2 and 5 times these."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [m * 10.0**d for d in decades for m in factors if low <= m * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    return ticks[:: max(1, len(ticks) // 7)] if ticks else [low, high]
