"""Thinning and warping: hand-made pictures, and slow programs that follow the definitions word by word."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from minitorch_unet.metrics import thin_borders, warp
from minitorch_unet.metrics.warping import connectivity_numbers


def picture(text: str) -> np.ndarray:
    """'#' is interior, '.' membrane."""
    return np.array([[c == "#" for c in row] for row in text.split()])


def drawn(seed: int, largest: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """A map with many equal values, and a truth, in patches so that there is topology."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, largest, 2))
    patch = rng.integers(1, 4)
    coarse = rng.random((shape[0] // patch + 1, shape[1] // patch + 1)) < rng.uniform(0.3, 0.8)
    truth = np.kron(coarse, np.ones((patch, patch), bool))[: shape[0], : shape[1]]
    noisy = np.clip(truth * 0.6 + rng.random(shape) * 0.5, 0, 1)
    return np.round(noisy, rng.integers(1, 4)), truth


def parts(mask: np.ndarray) -> tuple[int, int]:
    """Objects (4-connected) and pieces of background (8-connected, the outside being one of them)."""
    framed = np.pad(mask, 1)
    return ndimage.label(framed)[1], ndimage.label(~framed, np.ones((3, 3)))[1]


# ---------------------------------------------------------------------------------------------------- thinning


def flood(interior: np.ndarray) -> np.ndarray:
    """The watershed pixel by pixel, with a queue; 0 = line."""
    height, width = interior.shape
    label, count = ndimage.label(interior)
    if count == 0:
        return np.ones(interior.shape, int)
    state = np.where(interior, label, -1)  # -1 dry, -2 queued
    queue: deque[tuple[int, int]] = deque()

    def around(y: int, x: int) -> list[tuple[int, int]]:
        beside = ((y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x))
        return [(v, u) for v, u in beside if 0 <= v < height and 0 <= u < width]

    for x in range(width):
        for y in range(height):
            if state[y, x] == -1 and any(state[q] > 0 for q in around(y, x)):
                queue.append((y, x))
    for p in queue:
        state[p] = -2
    while queue:
        p = queue.popleft()
        objects = {int(state[q]) for q in around(*p) if state[q] > 0}
        state[p] = objects.pop() if len(objects) == 1 else 0
        for q in around(*p):
            if state[q] == -1:
                state[q] = -2
                queue.append(q)
    return state


def test_a_wide_border_becomes_one_pixel() -> None:
    thin = thin_borders(picture("##...## ##...##"))
    assert thin.tolist() == [[1, 1, 1, 0, 2, 2, 2]] * 2
    assert thin.dtype == np.int32


def test_in_a_border_of_two_pixels_the_first_visited_gives_way() -> None:
    # The left pixel joins object 1; the right one then has object 1 on its left and 2 on its right.
    assert thin_borders(picture("#..#")).tolist() == [[1, 1, 0, 2]]


def test_a_border_of_one_pixel_stays_and_dangling_lines_vanish() -> None:
    assert (thin_borders(picture("#.# #.# #.#")) == 0).tolist() == [[False, True, False]] * 3
    assert (thin_borders(picture("#.# #.# ###")) == 1).all()


@pytest.mark.parametrize("text", ["... ...", "### ###", ".#. ...", "."])
def test_a_single_object_or_none_fills_the_picture(text: str) -> None:
    assert (thin_borders(picture(text)) == 1).all()


def test_thinning_refuses_a_stack() -> None:
    with pytest.raises(ValueError, match=r"thin_borders: interior has shape \(1, 2, 3\)"):
        thin_borders(np.zeros((1, 2, 3), bool))


@given(st.integers(0, 100_000))
def test_thinning_against_a_queue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 25, 2))
    interior = rng.random(shape) < rng.choice([0.02, 0.1, 0.3, 0.6])
    found, expected = thin_borders(interior), flood(interior)
    assert ((found == 0) == (expected == 0)).all()
    pairs = set(zip(found.flat, expected.flat, strict=True))  # the same division, perhaps under other names
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@given(st.integers(0, 100_000))
def test_thinning_keeps_objects_apart(seed: int) -> None:
    interior = drawn(seed, 20)[1]
    thin = thin_borders(interior)
    count = max(1, ndimage.label(interior)[1])
    assert ndimage.label(thin > 0)[1] >= count and thin.max() == count
    for axis in (0, 1):  # no two objects touch
        one, other = np.moveaxis(thin, axis, 0)[:-1], np.moveaxis(thin, axis, 0)[1:]
        assert ((one == other) | (one == 0) | (other == 0)).all()


# ---------------------------------------------------------------------------------------------------- simple points

CIRCLE = [(1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize("centre", [0, 1])
def test_simple_means_that_no_count_of_parts_changes(centre: int) -> None:
    for code in range(256):
        patch = np.zeros((3, 3), bool)
        patch[1, 1] = centre
        for k, where in enumerate(CIRCLE):
            patch[where] = code >> k & 1
        flipped = patch.copy()
        flipped[1, 1] = not centre
        assert (connectivity_numbers()[code] == 1) == (parts(patch) == parts(flipped)), patch


# ---------------------------------------------------------------------------------------------------- warping


def slow_warp(probability: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[np.ndarray, int, int]:
    """Word by word: flip what changes no count of parts in its patch; classify by labelling the whole picture."""
    state = truth.copy()
    height, width = state.shape
    while True:
        wrong = [(y, x) for x in range(width) for y in range(height) if state[y, x] != (probability[y, x] > threshold)]
        wrong.sort(key=lambda p: -np.float32(abs(probability[p] - threshold)))
        changed = False
        for y, x in wrong:
            patch = np.pad(state, 1)[y : y + 3, x : x + 3].copy()
            before = parts(patch)
            patch[1, 1] = not patch[1, 1]
            if parts(patch) == before:
                state[y, x] = not state[y, x]
                changed = True
        if not changed:
            break
    splits = merges = 0
    label = ndimage.label(state)[0]
    for y, x in wrong:

        def near(ids: np.ndarray, y: int = y, x: int = x) -> set[int]:
            window = ids[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].copy()
            window[y - max(y - 1, 0), x - max(x - 1, 0)] = 0
            return set(window.ravel().tolist()) - {0}

        if len(near(label)) >= 2:
            splits, merges = splits + bool(state[y, x]), merges + (not state[y, x])
        elif state[y, x]:
            without = state.copy()
            without[y, x] = False
            splits += len(near(ndimage.label(without)[0])) >= 2
    return state, splits, merges


@given(st.integers(0, 100_000), st.sampled_from([0.0, 0.3, 0.5, 0.8]))
def test_warping_against_the_slow_program(seed: int, threshold: float) -> None:
    probability, truth = drawn(seed)
    found = warp(probability, truth, threshold)
    warped, splits, merges = slow_warp(probability, truth, threshold)
    assert (found.warped == warped).all()
    assert (found.splits, found.merges) == (splits, merges)
    assert found.splits + found.merges + found.others == (warped != (probability > threshold)).sum()


@given(st.integers(0, 100_000))
def test_warping_keeps_the_topology(seed: int) -> None:
    probability, truth = drawn(seed, 25)
    assert parts(warp(probability, truth, 0.5).warped) == parts(truth)


def counts(truth: str, proposed: str) -> tuple[int, int, int]:
    return warp(picture(proposed).astype(float), picture(truth), 0.5)[1:]


@pytest.mark.parametrize(
    ("truth", "proposed", "splits", "merges", "others"),
    [
        ("##.## ##.## ##.##", "##.## ##.## ##.##", 0, 0, 0),  # perfect
        ("##.## ##.## ##.##", "##.## ##### ##.##", 0, 1, 0),  # one pixel of membrane cut: one merge
        ("##### ##### #####", "##.## ##.## ##.##", 1, 0, 0),  # a membrane that is not there: one split
        ("##### ##### #####", "##.## ##### ##.##", 0, 0, 0),  # dents from both sides split nothing
        ("##.## ##.## ##.##", "#..## ##.## ##..#", 0, 0, 0),  # wider borders cost nothing
        (".#.## .#.## ##.##", "##.## ##.## ##.##", 0, 0, 0),
        ("##### ##### #####", "##### ##.## #####", 0, 0, 1),  # a hole: no split
        ("##### ##.## #####", "##### ##### #####", 0, 0, 1),
        ("..... ..... .....", "..... ..#.. .....", 0, 0, 1),  # an object from nowhere
        ("..... ..#.. .....", "..... ..... .....", 0, 0, 1),  # a lost one
        ("##..# ##... ....#", "##..# ##... ....#", 0, 0, 0),
        # An object that moves away altogether is one that vanished and one from nowhere.
        ("#.... ..... .....", "..... ..... ....#", 0, 0, 2),
        # Two pixels of membrane side by side: the second one is simple once the first was flipped.
        ("##..## ##..## ##..##", "##..## ###### ##..##", 0, 1, 0),
        # A ring that is cut: not a split but a hole gone. Cut twice it falls apart, but each cut alone splits nothing.
        ("##### #...# #####", "##.## #...# #####", 0, 0, 1),
        ("##### #...# #####", "##.## #...# ##.##", 0, 0, 2),
    ],
)
def test_mistakes_by_hand(truth: str, proposed: str, splits: int, merges: int, others: int) -> None:
    assert counts(truth, proposed) == (splits, merges, others)


def test_the_surest_mistake_is_flipped_first() -> None:
    """Of a false line the least certain pixel remains."""
    truth = np.ones((1, 5), bool)
    line = np.ones((5, 5), bool)
    probability = np.ones((5, 5))
    probability[:, 2] = [0.1, 0.2, 0.4, 0.2, 0.1]
    found = warp(probability, line, 0.5)
    assert found.splits == 1 and not found.warped[[0, 1, 3, 4], 2].any() and found.warped[2, 2]
    assert warp(np.array([[1.0, 1, 0.5, 1, 1]]), truth, 0.5)[1:] == (1, 0, 0)  # 0.5 is not above 0.5
    assert warp(np.array([[1.0, 1, 0.5, 1, 1]]), truth, 0.4)[1:] == (0, 0, 0)
