"""SEG, average precision and counts of objects: hand-made cases, brute force over masks, properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitorch_unet.metrics import ObjectCounts, count_objects, mean_average_precision, seg, seg_scores
from minitorch_unet.metrics.objects import IOU_THRESHOLDS


def row(*ids: int) -> np.ndarray:
    return np.array([ids])


NOTHING = np.zeros((1, 6), int)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two images of ids that agree in part."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, 2))
    reference = np.kron(rng.integers(0, 4, (3, 3)), np.ones((3, 3), int))[: shape[0], : shape[1]]
    changed = rng.random(shape) < rng.uniform(0, 0.5)
    return np.where(changed, rng.integers(0, 5, shape), reference + 4 * (reference > 0)), reference


def brute(prediction: np.ndarray, reference: np.ndarray) -> dict[tuple[int, int], tuple[int, int, int]]:
    """For each pair (S, R): shared pixels, pixels of either, pixels of R."""
    found = {}
    for s in set(prediction.ravel().tolist()) - {0}:
        for r in set(reference.ravel().tolist()) - {0}:
            one, other = prediction == s, reference == r
            found[s, r] = int((one & other).sum()), int((one | other).sum()), int(other.sum())
    return found


# ---------------------------------------------------------------------------------------------------- SEG


def test_seg_of_equal_pictures_under_other_names() -> None:
    assert seg_scores(row(9, 9, 0, 4, 4, 4), row(1, 1, 0, 7, 7, 7)).tolist() == [1, 1]


def test_seg_wants_more_than_half() -> None:
    reference = row(1, 1, 1, 1, 0, 0)
    assert seg_scores(row(5, 5, 0, 0, 0, 0), reference).tolist() == [0]  # exactly half is no match
    assert seg_scores(row(5, 5, 5, 0, 0, 0), reference).tolist() == [3 / 4]
    assert seg_scores(row(5, 5, 5, 5, 5, 5), reference).tolist() == [4 / 6]
    assert seg_scores(row(5, 5, 5, 6, 0, 0), reference).tolist() == [3 / 4]  # a chip off it
    assert seg_scores(row(5, 5, 6, 6, 0, 0), reference).tolist() == [0]  # in two halves


def test_seg_of_merged_objects_scores_both_by_the_whole() -> None:
    assert seg_scores(row(5, 5, 5, 5, 5, 5), row(1, 1, 1, 2, 2, 2)).tolist() == [0.5, 0.5]
    assert seg_scores(row(5, 5, 5, 5, 5, 5), row(1, 1, 2, 2, 2, 2)).tolist() == [2 / 6, 4 / 6]


def test_seg_is_a_mean_over_objects_not_frames() -> None:
    frames = [(row(1, 0, 0), row(1, 2, 3)), (row(4), row(9))]
    assert seg(frames) == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert seg(reversed(frames)) == pytest.approx(2 / 4)


def test_seg_of_nothing_and_of_extra_objects() -> None:
    assert seg([(NOTHING, NOTHING)]) == seg([]) == 1
    assert seg([(row(1, 2, 3, 0, 0, 0), NOTHING)]) == 1  # SEG does not see false objects
    assert seg([(NOTHING, row(1, 2, 3, 0, 0, 0))]) == 0


def test_seg_of_objects_on_the_border_and_in_pieces() -> None:
    """An id counts as one object even where it does not hang together, and the border is nothing special."""
    assert seg_scores(row(3, 0, 0, 0, 0, 3), row(1, 0, 0, 0, 0, 1)).tolist() == [1]


# ---------------------------------------------------------------------------------------------------- counts


def test_counts_of_touching_objects() -> None:
    reference = row(1, 1, 1, 2, 2, 2)
    assert count_objects(row(8, 8, 8, 9, 9, 9), reference)[0] == (2, 0, 0)
    assert count_objects(row(8, 8, 8, 8, 8, 8), reference)[0] == (0, 1, 2)  # merged: IoU is 1/2 with both
    assert count_objects(row(8, 8, 8, 8, 9, 9), reference)[0] == (2, 0, 0)  # 3/4 and 2/3


def test_an_iou_equal_to_the_threshold_is_no_hit() -> None:
    for k, t in zip(range(10, 20), IOU_THRESHOLDS, strict=True):
        reference, prediction = np.ones((1, 20), int), np.zeros((1, 20), int)
        prediction[0, :k] = 1
        assert count_objects(prediction, reference, [t])[0] == (0, 1, 1)
        prediction[0, k] = 1
        assert count_objects(prediction, reference, [t])[0] == (1, 0, 0)


def test_derived_scores() -> None:
    counts = ObjectCounts(hits=6, extra=2, missed=4)
    assert (counts.precision, counts.recall) == (6 / 8, 6 / 10)
    assert (counts.f1, counts.average_precision) == (12 / 18, 6 / 12)
    assert counts.plus(ObjectCounts(1, 2, 3)) == (7, 4, 7)
    nothing = ObjectCounts(0, 0, 0)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.average_precision) == (1, 1, 1, 1)


def test_mean_average_precision_by_hand() -> None:
    # IoU 0.72: above 0.5 .. 0.7, five of ten thresholds.
    reference, prediction = np.ones((1, 25), int), np.zeros((1, 25), int)
    prediction[0, :18] = 3
    assert mean_average_precision([(prediction, reference)]) == pytest.approx(0.5)
    # One hit, one extra, one missed at every threshold: 1/3. Averaged over images, not over objects.
    other = row(1, 0, 2, 2, 0, 0), row(1, 0, 0, 0, 3, 3)
    assert mean_average_precision([other]) == pytest.approx(1 / 3)
    assert mean_average_precision([(prediction, reference), other, (NOTHING, NOTHING)]) == pytest.approx(11 / 18)
    assert mean_average_precision([(row(1, 0), row(0, 0))]) == mean_average_precision([(row(0, 0), row(1, 0))]) == 0


def test_ignored_pixels() -> None:
    reference = row(1, 1, 0, 0, 0, 0)
    ignored = np.array([[False, False, False, False, True, True]])
    # Of object 5 two of three pixels are ignored: not held against anyone. Of object 6 one of two: extra.
    assert count_objects(row(1, 1, 0, 5, 5, 5), reference, [0.5], ignored)[0] == (1, 0, 0)
    assert count_objects(row(1, 1, 0, 6, 6, 6), reference, [0.5])[0] == (1, 1, 0)
    assert count_objects(row(1, 1, 0, 6, 6, 0), reference, [0.5], ignored)[0] == (1, 1, 0)
    # Wholly ignored objects vanish; ignored pixels of a hit do not lower its IoU.
    assert count_objects(row(1, 1, 0, 0, 7, 7), reference, [0.5], ignored)[0] == (1, 0, 0)
    assert count_objects(row(1, 1, 0, 0, 1, 1), reference, [0.95], ignored)[0] == (1, 0, 0)
    assert count_objects(row(0, 1, 0, 1, 1, 1), reference, [0.5], ignored)[0] == (0, 1, 1)  # half is not more than half


@pytest.mark.parametrize(
    ("prediction", "reference", "options", "error", "words"),
    [
        (row(1), row(1, 2), {}, ValueError, "prediction has shape"),
        (row(1) * 1.0, row(1), {}, TypeError, "prediction has dtype float64"),
        (row(1), row(-1), {}, ValueError, "reference holds the id -1"),
        (row(1), row(1), {"thresholds": [0.4]}, ValueError, r"thresholds are \(0.4,\), legal are values from 0.5"),
        (row(1), row(1), {"thresholds": [1.0]}, ValueError, "below 1"),
        (row(1), row(1), {"ignored": np.zeros((2, 2), bool)}, ValueError, r"ignored has shape \(2, 2\)"),
    ],
)
def test_refusals(prediction, reference, options, error, words) -> None:
    with pytest.raises(error, match=f"count_objects: .*{words}"):
        count_objects(prediction, reference, **options)


def test_no_images() -> None:
    with pytest.raises(ValueError, match="there are no images"):
        mean_average_precision([])


@given(st.integers(0, 10_000))
def test_against_masks(seed: int) -> None:
    prediction, reference = drawn(seed)
    pairs = brute(prediction, reference)
    references = sorted(set(reference.ravel().tolist()) - {0})
    expected = [
        sum(shared / either for (_, other), (shared, either, of_r) in pairs.items() if other == r and 2 * shared > of_r)
        for r in references
    ]
    assert seg_scores(prediction, reference).tolist() == pytest.approx(expected)
    predictions = len(set(prediction.ravel().tolist()) - {0})
    for t, counts in zip(IOU_THRESHOLDS, count_objects(prediction, reference), strict=True):
        hits = sum(shared / either > t for shared, either, _ in pairs.values())
        assert counts == (hits, predictions - hits, len(references) - hits)


@given(st.integers(0, 10_000))
def test_renaming_changes_nothing_and_roles_exchange(seed: int) -> None:
    prediction, reference = drawn(seed)
    names = np.append(0, np.random.default_rng(seed).permutation(np.arange(100, 110)))
    there = count_objects(prediction, reference)
    assert count_objects(names[prediction], names[reference]) == there
    back = count_objects(reference, prediction)
    assert [(c.hits, c.missed, c.extra) for c in back] == there
    assert mean_average_precision([(prediction, reference)]) == mean_average_precision([(reference, prediction)])
    assert seg([(names[prediction], names[reference])]) == pytest.approx(seg([(prediction, reference)]))


@given(st.integers(0, 10_000))
def test_bounds(seed: int) -> None:
    prediction, reference = drawn(seed)
    scores = seg_scores(prediction, reference)
    assert ((scores >= 0) & (scores <= 1)).all()
    falling = [c.average_precision for c in count_objects(prediction, reference)]
    assert falling == sorted(falling, reverse=True) and falling[-1] >= 0 and falling[0] <= 1
    assert seg([(reference, reference)]) == mean_average_precision([(reference, reference)]) == 1
