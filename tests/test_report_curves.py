"""The charts of the report: lines that stand where their values are."""

import re

import numpy as np
import pytest

from minitorch_unet.report import curves
from minitorch_unet.report.curves import Line, chart, running_mean, thinned


def points(svg: str) -> list[np.ndarray]:
    """Coordinates of every line."""
    paths = re.findall(r'<path class="line[^"]*" style="[^"]*" d="M([^"]*)"', svg)
    return [np.array(path.split(), float).reshape(-1, 2) for path in paths]


def grid(svg: str) -> list[tuple[float, float]]:
    """(y coordinate, value written beside it) of the horizontal lines."""
    found = re.findall(r'd="M52 ([\d.]+)H[^>]*/><text[^>]*>([^<]*)<', svg)
    return [(float(y), float(text.replace(",", ""))) for y, text in found]


@pytest.mark.parametrize("log", [False, True])
def test_a_line_stands_where_the_grid_says(log) -> None:
    y = np.array([2.0, 50.0, 7.0, 0.4])
    svg = chart([Line("a", [1, 2, 3, 4], y)], "step", "loss", log=log)
    (line,) = points(svg)
    marks = grid(svg)
    assert len(marks) >= 3
    scale = np.log10 if log else np.asarray
    at = np.array([p for p, _ in marks]), scale(np.array([v for _, v in marks]))
    slope, start = np.polyfit(at[1], at[0], 1)
    np.testing.assert_allclose(line[:, 1], start + slope * scale(y), atol=0.2)
    np.testing.assert_allclose(np.diff(line[:, 0]), np.diff(line[:, 0])[0], atol=0.11)
    assert (line[:, 0] >= 0).all() and (line[:, 0] <= curves.WIDTH).all()
    assert (line[:, 1] >= 0).all() and (line[:, 1] <= curves.HEIGHT).all()


def test_what_cannot_be_drawn_is_left_out() -> None:
    svg = chart([Line("a", [1, 2, 3, 4], [1.0, np.nan, np.inf, 2.0])], "x", "y")
    assert len(points(svg)[0]) == 2
    svg = chart([Line("a", [1, 2, 3], [0.0, -1.0, 2.0])], "x", "y", log=True)
    assert len(points(svg)[0]) == 1 and "<circle" in svg
    assert "nothing recorded" in chart([Line("a", [], [])], "x", "y")


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5.0, 5.0], [-3.0, -3.0], [1e-9, 2e-9], [1e6, 3e6]])
def test_constant_tiny_and_huge_values_have_an_axis(values) -> None:
    svg = chart([Line("a", range(len(values)), values, dots=True)], "x", "y")
    assert len(grid(svg)) >= 2 and "nan" not in svg and "inf" not in svg
    assert svg.count("<circle") == len(values)


def test_names_are_escaped() -> None:
    assert "<b>" not in chart([Line("<b>", [1, 2], [1, 2], dots=True)], "x<i>", "y&")


def test_thinning_keeps_the_extremes_and_the_ends() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(20_000.0), rng.standard_normal(20_000)
    y[12_345] = 99
    thin_x, thin_y = thinned(x, y)
    assert len(thin_x) <= 302 and (np.diff(thin_x) > 0).all()
    assert thin_y.max() == 99 and thin_y.min() == y.min() and thin_x[0] == 0 and thin_x[-1] == 19_999
    assert all(y[int(i)] == v for i, v in zip(thin_x, thin_y, strict=True))
    assert thinned(x[:300], y[:300])[0].size == 300


def test_running_mean() -> None:
    y = np.random.default_rng(1).uniform(size=50)
    for window in (1, 7, 50):
        np.testing.assert_allclose(running_mean(y, window), np.convolve(y, np.ones(window) / window, "valid"))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.5, "0.5"), (1234.5, "1,234"), (1e-5, "1e-05"), (0.01234, "0.0123"), (-2, "-2")]
)
def test_numbers_for_people(value, text) -> None:
    assert curves.number(value) == text
