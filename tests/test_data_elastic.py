"""The random field: against SciPy and nested loops, one for all maps, exact where nothing is to move."""

import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minitorch_unet.data import Warp, augment, change_greys, draw_warp, extract
from minitorch_unet.data.elastic import PAPER_ELASTIC, PAPER_GRID, cubic_weights

STRENGTHS = {"elastic": 3.0, "shift": 4.0, "angle": 25.0, "zoom": 0.3}


def keys(s: float) -> float:
    """The cubic convolution kernel with a = -1/2, as Keys (1981) writes it."""
    s = abs(s)
    if s < 1:
        return 1.5 * s**3 - 2.5 * s**2 + 1
    return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s < 2 else 0.0


def bicubic_slowly(nodes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every pixel as the sum over all nodes of a grid padded with its own edge."""
    padded = np.pad(nodes, 2, mode="edge")
    out = np.zeros(size)
    for r, c in np.ndindex(size):
        y, x = (p * (n - 1) / max(1, m - 1) for p, n, m in zip((r, c), nodes.shape, size, strict=True))
        for i, j in np.ndindex(padded.shape):
            out[r, c] += padded[i, j] * keys(y - (i - 2)) * keys(x - (j - 2))
    return out


def drawn(seed: int, size: tuple[int, int], **strengths: float) -> Warp:
    warp = draw_warp(np.random.default_rng(seed), size, **strengths)
    assert warp is not None
    return warp


def still(size: tuple[int, int], shift: tuple[float, float] = (0, 0)) -> Warp:
    return Warp(size, np.zeros((2, 3, 3)), np.eye(2), np.array(shift, float))


@pytest.mark.parametrize(("nodes", "size"), [(3, (13, 10)), (2, (5, 6)), (5, (9, 17))])
def test_the_field_is_bicubic_interpolation_of_the_coarse_grid(nodes: int, size: tuple[int, int]) -> None:
    warp = drawn(1, size, elastic=10, grid=nodes)
    rows, columns = warp.coordinates()
    r, c = np.indices(size)
    np.testing.assert_allclose(rows - r, bicubic_slowly(warp.displacement[0], size), atol=2e-5)
    np.testing.assert_allclose(columns - c, bicubic_slowly(warp.displacement[1], size), atol=2e-5)
    corners = [rows[0, 0], rows[0, -1] - 0, rows[-1, 0] - (size[0] - 1)]
    np.testing.assert_allclose(corners, [warp.displacement[0][at] for at in ((0, 0), (0, -1), (-1, 0))], atol=2e-5)


@given(st.integers(1, 30), st.integers(2, 7))
def test_cubic_weights_sum_to_one_and_pass_through_the_nodes(n: int, nodes: int) -> None:
    np.testing.assert_allclose(cubic_weights(n, nodes).sum(axis=1), 1, atol=1e-12)
    at_nodes = cubic_weights((nodes - 1) * n + 1, nodes)[::n]
    np.testing.assert_allclose(at_nodes, np.eye(nodes), atol=1e-12)


def test_displacements_are_gaussian_with_the_papers_standard_deviation_by_default() -> None:
    fields = np.array([drawn(seed, (9, 9)).displacement for seed in range(400)])
    assert (PAPER_ELASTIC, PAPER_GRID) == (10.0, 3) and fields.shape == (400, 2, 3, 3)
    assert abs(fields.std() - 10) < 0.3 and abs(fields.mean()) < 0.4
    share = (np.abs(fields) < 10).mean()
    assert abs(share - 0.6827) < 0.02


def test_the_linear_part_turns_about_the_centre_and_scales() -> None:
    size = (21, 31)
    for seed in range(20):
        warp = drawn(seed, size, elastic=0, angle=40, zoom=0.5, shift=3)
        rows, columns = warp.coordinates()
        centre = np.array([rows[10, 15], columns[10, 15]])
        assert np.abs(centre - (10, 15)).max() <= 3
        down = np.array([rows[11, 15], columns[11, 15]]) - centre
        right = np.array([rows[10, 16], columns[10, 16]]) - centre
        step = np.hypot(*down)
        assert 1 / 1.5 - 1e-5 <= step <= 1.5 + 1e-5
        np.testing.assert_allclose(np.hypot(*right), step, rtol=1e-4)
        np.testing.assert_allclose(down @ right, 0, atol=1e-5)
        assert abs(np.degrees(np.arctan2(down[1], down[0]))) <= 40 + 1e-3
    turns = [drawn(s, size, elastic=0, angle=40).linear[1, 0] for s in range(50)]
    assert min(turns) < -0.4 and max(turns) > 0.4
    steps = [drawn(s, size, elastic=0, zoom=0.5).linear[0, 0] for s in range(50)]
    assert min(steps) < 0.75 and max(steps) > 1.35


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(-30, 40), st.integers(-30, 40), st.integers(1, 14), st.integers(1, 3))
def test_the_image_is_sampled_as_scipy_does_mirrored_at_borders(seed, top, left, side, channels) -> None:
    image = np.random.default_rng(seed).random((channels, side, 9))
    warp = drawn(seed, (15, 12), **STRENGTHS)
    places = np.stack(warp.coordinates()).astype(np.float64) + np.array([top, left])[:, None, None]
    expected = [ndimage.map_coordinates(plane, places, order=1, mode="mirror") for plane in image]
    np.testing.assert_allclose(warp.image(image, (top, left)), expected, atol=1e-4)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(-30, 40), st.integers(-30, 40))
def test_maps_are_taken_at_the_nearest_pixel(seed, top, left) -> None:
    ids = np.arange(9 * 14).reshape(9, 14)
    weights = ids.astype(np.float32) / 7
    warp = drawn(seed, (15, 12), **STRENGTHS)
    rows, columns = (a.astype(np.float64) + o for a, o in zip(warp.coordinates(), (top, left), strict=True))
    (taken, nothing, heavy), outside = warp.maps(ids, None, weights, origin=(top, left))
    assert nothing is None and taken.dtype == ids.dtype and heavy.dtype == np.float32
    padded = np.pad(ids, 99, mode="reflect")
    for at in np.ndindex(15, 12):
        r, c = int(np.floor(rows[at] + 0.5)), int(np.floor(columns[at] + 0.5))
        if min(abs(rows[at] - r - 0.5), abs(columns[at] - c - 0.5), abs(rows[at] - r + 0.5)) > 1e-4:
            assert taken[at] == padded[99 + r, 99 + c]
            assert outside[at] == (not (0 <= r < 9 and 0 <= c < 14))
    assert np.array_equal(heavy, taken.astype(np.float32) / 7)
    inner = slice(3, -3)
    (part,), part_outside = warp.maps(ids, origin=(top, left), inner=inner)
    assert np.array_equal(part, taken[inner, inner]) and np.array_equal(part_outside, outside[inner, inner])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int32])
@pytest.mark.parametrize("origin", [(0, 0), (-4, 3), (30, -17)])
def test_a_field_of_zeros_changes_nothing_at_all(dtype, origin) -> None:
    image = (np.random.default_rng(0).random((2, 11, 16)) * 200).astype(dtype)
    for shift in ((0, 0), (2, -3)):
        found = still((11, 16), shift).image(image, origin)
        expected = extract(image, origin[0] + shift[0], origin[1] + shift[1], 11, 16)
        assert found.dtype == dtype and np.array_equal(found, expected)
        (label,), _ = still((11, 16), shift).maps(image[0], origin=origin)
        assert np.array_equal(label, expected[0])


def test_nothing_is_drawn_where_nothing_moves() -> None:
    rng = np.random.default_rng(0)
    assert draw_warp(rng, (9, 9), elastic=0) is None
    assert rng.random() == np.random.default_rng(0).random()


def test_halfway_between_pixels_is_their_mean() -> None:
    image = np.array([[[0.0, 4.0, 8.0], [16.0, 20.0, 24.0]]])
    found = still((2, 3), (0.5, 0.5)).image(image)
    # Beyond the border the image is mirrored: row 2 is row 0, column 3 is column 1.
    assert found[0].tolist() == [[10, 14, 14], [10, 14, 14]]


def test_equal_seeds_give_equal_fields_and_other_seeds_others() -> None:
    def made(seed: int) -> bytes:
        return b"".join(a.tobytes() for a in drawn(seed, (20, 20), **STRENGTHS).coordinates())

    assert made(3) == made(3) != made(4)
    # A strength does not change what the others draw.
    assert np.array_equal(drawn(3, (9, 9), angle=10).displacement, drawn(3, (9, 9)).displacement)


@given(st.integers(0, 10_000))
def test_one_field_moves_image_label_ids_and_weights(seed: int) -> None:
    """The image shows the ids themselves: where the field is smooth, moved image and moved ids say the same."""
    ids = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((12, 12), int)).astype(np.int32)
    label = (ids % 2).astype(np.int64)
    weights = ids * np.float32(0.5)
    image = np.stack([ids, 2 * ids]).astype(np.float32)
    moved, new_label, new_ids, new_weights = augment(
        np.random.default_rng(seed), image, label, ids, weights, grey=0, **STRENGTHS
    )
    assert np.array_equal(new_label, new_ids % 2) and np.array_equal(new_weights, new_ids * np.float32(0.5))
    assert set(np.unique(new_ids)) <= set(range(1, 10))
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-5)
    inside = moved[0] == np.rint(moved[0])  # away from the ids' borders, or by chance
    assert (moved[0][inside] == new_ids[inside]).mean() > 0.97
    assert not np.array_equal(new_ids, ids)


def test_augment_with_every_strength_zero_is_the_identity() -> None:
    image, label = np.random.default_rng(0).random((1, 9, 9), dtype=np.float32), np.eye(9, dtype=np.int64)
    off = {"flips": False, "rotations": False, "grey": 0, "elastic": 0, "shift": 0, "angle": 0, "zoom": 0}
    same, same_label = augment(np.random.default_rng(5), image, label, **off, blur=0, noise=0)
    assert np.array_equal(same, image) and np.array_equal(same_label, label)


@pytest.mark.parametrize("name", ["elastic", "shift", "angle", "zoom", "grey", "blur", "noise"])
def test_strengths_are_checked(name: str) -> None:
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{name} is {value}, it must be a finite number"):
            augment(np.random.default_rng(0), np.zeros((1, 5, 5)), **{name: value})


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="grid is 1"):
        draw_warp(np.random.default_rng(0), (5, 5), grid=1)
    with pytest.raises(ValueError, match="nodes 1"):
        cubic_weights(5, 1)
    with pytest.raises(ValueError, match="one shape is legal"):
        still((4, 4)).maps(np.zeros((4, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="one shape is legal"):
        still((4, 4)).maps(None)


def test_blur_and_noise() -> None:
    rng = np.random.default_rng
    image = rng(0).random((2, 40, 40), dtype=np.float32)
    kept = image.copy()
    blurred = change_greys(rng(1), image, grey=0, blur=2.0)
    sigma = rng(1).uniform(0, 2.0)
    for plane, expected in zip(blurred, image, strict=True):
        expected = ndimage.gaussian_filter(expected.astype(np.float64), sigma, mode="mirror", truncate=3)
        np.testing.assert_allclose(plane, expected, atol=1e-5)
    noisy = change_greys(rng(2), image, grey=0, noise=0.3)
    difference = noisy - image
    assert abs(difference.std() - rng(2).uniform(0, 0.3)) < 0.01 and abs(difference.mean()) < 0.01
    assert abs(np.corrcoef(difference[0].ravel(), difference[1].ravel())[0, 1]) < 0.1
    assert noisy.dtype == blurred.dtype == np.float32 and np.array_equal(image, kept)
    assert np.array_equal(noisy, change_greys(rng(2), image, grey=0, noise=0.3))


@pytest.fixture
def another_module(monkeypatch) -> types.ModuleType:
    """NumPy under another name, with SciPy where CuPy's counterpart of it would be."""
    module = types.ModuleType("cupy")
    for name in dir(np):
        setattr(module, name, getattr(np, name))
    cupyx = types.ModuleType("cupyx")
    cupyx.scipy = types.ModuleType("cupyx.scipy")
    cupyx.scipy.ndimage = ndimage
    for name, made in (("cupyx", cupyx), ("cupyx.scipy", cupyx.scipy), ("cupyx.scipy.ndimage", ndimage)):
        monkeypatch.setitem(sys.modules, name, made)
    return module


def test_the_way_by_the_librarys_functions_gives_the_same(another_module) -> None:
    image = np.random.default_rng(0).random((2, 30, 25), dtype=np.float32)
    label = np.random.default_rng(1).integers(0, 5, (30, 25))
    how = {**STRENGTHS, "blur": 1.0, "noise": 0.1}
    for seed in range(5):
        ours = augment(np.random.default_rng(seed), image, label, **how)
        theirs = augment(np.random.default_rng(seed), image, label, **how, xp=another_module)
        np.testing.assert_allclose(theirs[0], ours[0], atol=1e-4)
        assert theirs[0].dtype == np.float32 and np.array_equal(theirs[1], ours[1])
