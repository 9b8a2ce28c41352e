"""The five membrane scores: hand-made maps, thresholds, stacks, ignored pixels, and real labels where they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minitorch_unet.data import read_image
from minitorch_unet.metrics import (
    MembraneScores,
    information_scores,
    pixel_error,
    rand_error,
    rand_scores,
    thin_borders,
    v_info,
    v_rand,
    warp,
    warping_error,
)
from minitorch_unet.metrics.membranes import THRESHOLDS, WARPING_THRESHOLDS

SCORES = (pixel_error, rand_error, warping_error, v_rand, v_info)
PERFECT = (0, 0, 0, 1, 1)


def picture(text: str) -> np.ndarray:
    """'#' is interior, '.' membrane."""
    return np.array([[c == "#" for c in row] for row in text.split()])


TWO = picture("##.## ##.## ##.##")  # two cells of 6 pixels


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A stack of maps with steps of 0.05, of two slices of cells."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 14, 2))
    truth = np.stack([np.kron(rng.random(shape) < 0.7, np.ones((2, 2), bool)) for _ in range(2)])
    return np.round(20 * np.clip(0.6 * truth + 0.5 * rng.random(truth.shape), 0, 1)) / 20, truth


def all_scores(probability: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    return tuple(score(probability, truth) for score in SCORES)


@pytest.mark.parametrize("truth", [TWO, picture("#"), np.zeros((4, 4), bool), np.ones((4, 4), bool), picture("#.#.#")])
def test_a_perfect_map(truth: np.ndarray) -> None:
    """Thin membranes, thick ones, one cell, none: values 0 0 0 1 1. An empty truth has nothing that could be wrong."""
    assert all_scores(truth.astype(float), truth) == pytest.approx(PERFECT, abs=1e-12)
    assert all_scores(0.35 + 0.1 * truth, truth) == pytest.approx(PERFECT, abs=1e-12)  # 0.35 and 0.45: at t = 0.4


def test_one_pixel_of_membrane_cut_is_one_merge() -> None:
    proposed = picture("##.## ##### ##.##").astype(float)
    # Both cells of 6 pixels become one of 12 (the 13th is true membrane): precision (36 + 36) / 144, recall 1.
    f_score = 2 * 72 / (72 + 144)
    assert all_scores(proposed, TWO)[:4] == pytest.approx((1 - 24 / 25, 1 - f_score, 1 / 15, f_score))
    assert v_info(proposed, TWO) == 0  # a single object holds no information


def test_one_membrane_too_many_is_one_split() -> None:
    truth = np.ones((3, 5), bool)
    # Two parts of 6 pixels and 3 single ones of a cell of 15: recall (36 + 36 + 3) / 225, precision 1.
    f_score = 2 * 75 / (75 + 225)
    found = all_scores(TWO.astype(float), truth)
    assert found[:4] == pytest.approx((1 - 24 / 27, 1 - f_score, 1 / 15, f_score))
    assert found[4] == 0  # the true cell alone holds no information


def test_wide_borders_cost_rand_but_neither_v_rand_nor_warping() -> None:
    truth = picture("###.### ###.### ###.###")
    wide = picture("##...## ##...## ##...##").astype(float)
    assert rand_error(wide, truth) == pytest.approx(1 - 2 * (72 + 6) / (72 + 6 + 162))
    assert (v_rand(wide, truth), v_info(wide, truth), warping_error(wide, truth)) == (1, 1, 0)
    assert pixel_error(wide, truth) == pytest.approx(1 - 24 / 30)


def test_borders_that_do_not_close_are_thinned_away() -> None:
    """A dangling membrane is no border, so it must not cost V_rand the pixels it covers."""
    truth = np.ones((3, 5), bool)
    dangling = picture("##.## ##.## #####").astype(float)
    assert (v_rand(dangling, truth), v_info(dangling, truth), warping_error(dangling, truth)) == (1, 1, 0)
    assert rand_error(dangling, truth) > 0


def test_a_map_that_knows_nothing() -> None:
    nothing = np.zeros(TWO.shape)
    # No object: 12 single pixels for Rand; one object everywhere after thinning; the cells vanish in warping.
    assert pixel_error(nothing, TWO) == 1
    assert rand_error(nothing, TWO) == pytest.approx(1 - 2 * 12 / (12 + 72))
    assert v_rand(nothing, TWO) == pytest.approx(2 * 72 / (72 + 144))
    assert v_info(nothing, TWO) == 0
    assert warping_error(nothing, TWO) == 0  # two lost objects are neither split nor merged


def test_objects_that_touch_only_at_corners_are_two() -> None:
    truth = picture("##.. ##.. ..## ..##")
    assert rand_error(truth.astype(float), truth) == 0
    joined = truth.copy()
    joined[1, 2] = True
    # 4 and 4 pixels become one object of 8 (its 9th pixel is true background).
    assert rand_error(joined.astype(float), truth) == pytest.approx(1 - 2 * 32 / (32 + 64))
    assert warping_error(joined.astype(float), truth) == pytest.approx(1 / 16)


def test_thresholds_are_the_challenges() -> None:
    assert len(THRESHOLDS) == 11 and THRESHOLDS[:10] == WARPING_THRESHOLDS
    assert pytest.approx([k / 10 for k in range(11)]) == THRESHOLDS and THRESHOLDS[10] < 1
    scores = MembraneScores()
    scores.add(np.where(TWO, 0.75, 0.65), TWO)
    found = scores.result()
    for name in ("pixel_error", "rand_error", "warping_error", "v_rand", "v_info"):
        assert found[f"{name}_threshold"] == pytest.approx(0.7)  # the only one that parts 0.65 from 0.75
    assert [found[k] for k in ("pixel_error", "rand_error", "warping_error", "v_rand", "v_info")] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("k", range(1, 10))
def test_a_value_equal_to_a_threshold_is_not_above_it(k: int) -> None:
    """In float32, as the program holds maps: 0.7 is a little less there than in double precision, 0.1 a little more."""
    value = float(np.float32(k / 10))
    at_or_below = [t for t in THRESHOLDS if not value > t]
    truth = np.array([[True, False]])
    assert pixel_error(np.where(truth, k / 10, 0.0), truth) == 0  # seen at threshold 0
    low = np.where(truth, 1.0, k / 10)  # parted from 1 at the first threshold that is not below the value
    scores = MembraneScores()
    scores.add(low, truth)
    assert scores.result()["pixel_error_threshold"] == at_or_below[0]


def test_a_map_of_exactly_one_is_above_every_threshold() -> None:
    one = np.array([[1.0, np.nextafter(np.float32(1), np.float32(0))]])
    scores = MembraneScores(warping=False)
    scores.add(one, np.array([[True, False]]))
    assert scores.result()["pixel_error"] == 0
    assert scores.result()["pixel_error_threshold"] == THRESHOLDS[10]
    assert "warping_error" not in scores.result()


def test_counts_are_added_but_v_scores_averaged_over_slices() -> None:
    truth = np.stack([TWO, TWO])
    cut = picture("##.## ##### ##.##")
    stack = np.stack([TWO, cut]).astype(float)
    assert pixel_error(stack, truth) == pytest.approx(1 - 2 * 24 / (24 + 25))
    assert rand_error(stack, truth) == pytest.approx(1 - 2 * (72 + 72) / (72 + 72 + 72 + 144))
    assert warping_error(stack, truth) == pytest.approx(1 / 30)
    assert v_rand(stack, truth) == pytest.approx((1 + 2 * 72 / (72 + 144)) / 2)
    assert v_info(stack, truth) == pytest.approx((1 + 0) / 2)


def test_one_threshold_serves_all_slices() -> None:
    truth = np.stack([TWO, TWO])
    stack = np.stack([np.where(TWO, 0.25, 0.15), np.where(TWO, 0.95, 0.85)])
    assert pixel_error(stack[0], TWO) == pixel_error(stack[1], TWO) == 0
    assert pixel_error(stack, truth) == pytest.approx(1 - 2 * 24 / (24 + 27))  # at 0.2 all of the second slice


def test_slices_without_cells_do_not_dilute_the_average() -> None:
    truth = np.stack([TWO, np.zeros_like(TWO)])
    stack = np.stack([picture("##.## ##### ##.##"), TWO]).astype(float)
    assert v_rand(stack, truth) == v_rand(stack[0], TWO)
    assert v_info(stack, truth) == v_info(stack[0], TWO)


def test_ignored_pixels() -> None:
    """The hole in the membrane is not judged: it can neither merge nor count."""
    truth = TWO.astype(int)
    truth[1, 2] = -100
    proposed = picture("##.## ##### ##.##").astype(float)
    assert all_scores(proposed, truth) == pytest.approx(PERFECT, abs=1e-12)
    ignored = np.full((3, 5), -100)
    assert all_scores(proposed, ignored) == PERFECT


def test_added_one_by_one_is_all_at_once() -> None:
    probability, truth = drawn(3)
    scores = MembraneScores()
    for plane, label in zip(probability, truth, strict=True):
        scores.add(plane, label)
    found = scores.result()
    assert [found[score.__name__] for score in SCORES] == [score(probability, truth) for score in SCORES]


def test_truth_may_be_any_integers_above_0() -> None:
    probability, truth = drawn(5)
    assert all_scores(probability, truth) == all_scores(probability, truth.astype(np.uint8) * 255)


@pytest.mark.parametrize(
    ("probability", "truth", "error", "words"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), bool), ValueError, r"has shape \(2, 3\), truth \(3, 2\)"),
        (np.zeros(3), np.zeros(3, bool), ValueError, "legal are equal shapes"),
        (np.full((2, 2), 1.5), np.zeros((2, 2), bool), ValueError, "holds 1.5..1.5, legal are values from 0 to 1"),
        (np.full((2, 2), np.nan), np.zeros((2, 2), bool), ValueError, "legal are values from 0 to 1"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool), TypeError, "probability has dtype uint8"),
        (np.zeros((2, 2)), np.zeros((2, 2)), TypeError, "truth has dtype float64"),
    ],
)
@pytest.mark.parametrize("score", SCORES)
def test_refusals(score, probability, truth, error, words) -> None:
    with pytest.raises(error, match=f"{score.__name__}: .*{words}"):
        score(probability, truth)


def test_no_slices() -> None:
    with pytest.raises(ValueError, match="no slice was added"):
        MembraneScores().result()


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_against_the_definitions_threshold_by_threshold(seed: int) -> None:
    probability, truth = drawn(seed)
    held = probability.astype(np.float32).astype(float)
    pixel, rand, thin, info, bent = [], [], [], [], []
    for t in THRESHOLDS:
        above = held > t
        tp, fp, fn = (above & truth).sum(), (above & ~truth).sum(), (~above & truth).sum()
        pixel.append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0)
        pairs, f_scores = np.zeros(3), []
        for a, b in zip(above, truth, strict=True):
            label, ids = ndimage.label(b)[0], ndimage.label(a)[0]
            if not b.any():
                continue
            # Each foreground pixel that is called background becomes an object of its own.
            own = np.where(ids == 0, np.arange(1, ids.size + 1).reshape(ids.shape) + ids.max(), ids)[b]
            same, together = label[b][:, None] == label[b], own[:, None] == own
            pairs += same.sum(), together.sum(), (same & together).sum()
            thinned = thin_borders(a)
            f_scores.append((rand_scores(thinned, label).f_score, information_scores(thinned, label).f_score))
        rand.append(2 * pairs[2] / (pairs[0] + pairs[1]) if pairs[0] else 1.0)
        thin.append(np.mean([f for f, _ in f_scores]) if f_scores else 1.0)
        info.append(np.mean([f for _, f in f_scores]) if f_scores else 1.0)
    for t in WARPING_THRESHOLDS:
        left = [warp(a, b, t) for a, b in zip(held, truth, strict=True)]
        bent.append(sum(w.splits + w.merges for w in left) / truth.size)
    expected = (1 - max(pixel), 1 - max(rand), min(bent), max(thin), max(info))
    assert all_scores(probability, truth) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_bounds_and_turned_pictures(seed: int, turn: int) -> None:
    """Pixel and Rand error do not depend on the order of pixels (warping and thinning do, where values are equal)."""
    probability, truth = drawn(seed)
    values = all_scores(probability, truth)
    assert all(0 <= v <= 1 for v in values)

    def turned(a: np.ndarray) -> np.ndarray:
        a = np.rot90(a, turn % 4, (1, 2))
        return a[:, ::-1] if turn > 3 else a

    assert all_scores(turned(probability), turned(truth))[:2] == pytest.approx(values[:2], abs=1e-12)


@pytest.mark.parametrize("number", [0, 17])
def test_real_labels_are_their_own_perfect_map(shared_data, number: int) -> None:
    truth = read_image(shared_data / "isbi2012" / "label" / f"{number}.png") > 0
    scores = MembraneScores()
    scores.add(truth.astype(np.float32), truth)
    found = scores.result()
    assert [found[score.__name__] for score in SCORES] == pytest.approx(PERFECT, abs=1e-12)
