"""Distances between outlines: hand-made regions, brute force over all pairs of outline pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitorch_unet.metrics import average_surface_distance, hausdorff_95, surface_distances
from minitorch_unet.metrics.surface import outline


def block(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (12, 12)) -> np.ndarray:
    region = np.zeros(shape, bool)
    region[top : top + height, left : left + width] = True
    return region


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 12, 2))
    one, other = rng.random((2, *shape)) < rng.uniform(0.1, 0.9)
    one[0, 0] = other[-1, -1] = True
    return one, other


def brute(one: np.ndarray, other: np.ndarray, spacing: tuple[float, float]) -> list[np.ndarray]:
    points = []
    for region in (one, other):
        framed = np.pad(region, 1)
        inner = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        points.append(np.argwhere(region & ~inner) * spacing)
    distances = np.sqrt(((points[0][:, None] - points[1]) ** 2).sum(-1))
    return [distances.min(1), distances.min(0)]


def test_outline() -> None:
    assert outline(block(1, 1, 4, 4)).sum() == 12
    assert outline(block(0, 0, 3, 3, (3, 3))).sum() == 8  # the image's border is an outline too
    assert outline(block(0, 0, 1, 5, (1, 5))).all()


def test_equal_regions_have_distance_0() -> None:
    region = block(2, 3, 5, 4)
    assert average_surface_distance(region, region) == hausdorff_95(region, region) == 0


def test_a_shifted_pixel() -> None:
    one, other = block(2, 2, 1, 1), block(5, 6, 1, 1)  # 3 down, 4 right
    assert average_surface_distance(one, other) == hausdorff_95(one, other) == 5
    assert hausdorff_95(one, other, (2.0, 2.0)) == 10
    assert hausdorff_95(one, other, (1.0, 0.5)) == pytest.approx(np.hypot(3, 2))


def test_a_stray_pixel_moves_the_maximum_but_not_the_95th_percentile() -> None:
    region = block(1, 1, 11, 11, (30, 30))  # an outline of 40 pixels
    stray = region.copy()
    stray[29, 29] = True
    there, back = surface_distances(stray, region)
    assert there.max() == pytest.approx(18 * np.sqrt(2)) and back.max() == 0
    assert hausdorff_95(stray, region) == 0
    assert average_surface_distance(stray, region) == pytest.approx(18 * np.sqrt(2) / 81)


def test_the_worse_direction_counts() -> None:
    line, part = block(0, 0, 1, 10, (1, 10)), block(0, 0, 1, 1, (1, 10))
    # From the line: 0, 1 ... 9, whose 95th percentile is 0.95 * 9; back from its end: 0.
    assert hausdorff_95(line, part) == hausdorff_95(part, line) == pytest.approx(0.95 * 9)
    assert average_surface_distance(line, part) == pytest.approx(45 / 11)


def test_empty_regions() -> None:
    nothing, region = block(0, 0, 0, 0), block(2, 2, 3, 3)
    assert average_surface_distance(nothing, nothing) == hausdorff_95(nothing, nothing) == 0
    for pair in ((nothing, region), (region, nothing)):
        assert average_surface_distance(*pair) == hausdorff_95(*pair) == np.inf


@pytest.mark.parametrize(
    ("shapes", "spacing", "words"),
    [
        (((2, 3), (3, 2)), (1.0, 1.0), r"prediction has shape \(2, 3\), truth \(3, 2\)"),
        (((2,), (2,)), (1.0, 1.0), "legal are equal shapes"),
        (((2, 2), (2, 2)), (1.0, 0.0), r"spacing is \(1.0, 0.0\), both must be positive"),
    ],
)
def test_refusals(shapes, spacing, words) -> None:
    with pytest.raises(ValueError, match=words):
        surface_distances(np.ones(shapes[0], bool), np.ones(shapes[1], bool), spacing)


@given(st.integers(0, 10_000), st.sampled_from([(1.0, 1.0), (2.0, 0.5)]))
def test_against_all_pairs_of_pixels(seed: int, spacing: tuple[float, float]) -> None:
    one, other = drawn(seed)
    expected = brute(one, other, spacing)
    for found, wanted in zip(surface_distances(one, other, spacing), expected, strict=True):
        assert found == pytest.approx(wanted)
    assert average_surface_distance(one, other, spacing) == pytest.approx(np.concatenate(expected).mean())
    percentiles = [np.percentile(part, 95) for part in expected]
    assert hausdorff_95(one, other, spacing) == pytest.approx(max(percentiles))


@given(st.integers(0, 10_000))
def test_symmetry_and_bounds(seed: int) -> None:
    one, other = drawn(seed)
    assert average_surface_distance(one, other) == pytest.approx(average_surface_distance(other, one))
    assert hausdorff_95(one, other) == hausdorff_95(other, one)
    assert 0 <= average_surface_distance(one, other) <= np.hypot(*one.shape)
    assert hausdorff_95(one, other) == pytest.approx(hausdorff_95(one.T, other.T))
