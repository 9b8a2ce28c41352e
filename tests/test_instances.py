"""Objects from probabilities: hand-made maps for every step, and drawn cells that touch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from minitorch_unet.data import separate_touching, touching_cells
from minitorch_unet.instances import check_mask_ids, label_objects, renumber
from minitorch_unet.metrics import seg


def field(text: str) -> np.ndarray:
    """Digits are tenths, '.' is 0."""
    return np.array([[0.0 if c == "." else int(c) / 10 for c in row] for row in text.split()])


def discs(*centres: tuple[float, float, float], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """1 inside discs (row, column, radius), 0 elsewhere."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.max([np.hypot(rows - r, columns - c) <= radius for r, c, radius in centres], axis=0).astype(float)


def drawn(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 20, 2))
    return np.clip(ndimage.gaussian_filter(rng.random(shape), 1) * 4 - 1.5, 0, 1)


def test_components_above_the_threshold() -> None:
    probability = field("99.6 9..6 ..5.")
    assert label_objects(probability).tolist() == [[1, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0]]  # 0.5 is not above 0.5
    assert label_objects(probability, threshold=0.65).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert label_objects(probability, threshold=0.4).max() == 3
    assert label_objects(field("9. .9")).max() == 2  # corners do not connect
    assert label_objects(probability).dtype == np.int32


def test_nothing_and_everything() -> None:
    for split in ("components", "distance", "probability"):
        assert not label_objects(np.zeros((3, 4)), split=split, seam=1, grow=1).any()
        assert (label_objects(np.ones((3, 4)), split=split, seam=1, grow=1) == 1).all()
        assert not label_objects(np.ones((3, 4)), split=split, clear_border=True).any()


def test_holes_of_one_object_are_filled() -> None:
    ring = field("..... .999. .9.9. .999. .....")
    assert label_objects(ring).sum() == 9
    assert label_objects(ring, fill_holes=False).sum() == 8
    open_to_border = field("999 9.9 9.9")
    assert label_objects(open_to_border).sum() == 7
    corner = field("999 9.9 99.")  # background is 8-connected: the hole leads out at the corner
    assert label_objects(corner).sum() == 7


def test_a_hole_that_holds_or_touches_another_object_stays() -> None:
    nested = np.ones((7, 7))
    nested[1:-1, 1:-1] = 0
    nested[3, 3] = 1
    found = label_objects(nested)
    assert found[3, 3] == 2 and found[1, 1] == 0
    between = field("9999999 9..9..9 9999999 .......")
    assert label_objects(between)[1].tolist() == [1] * 7


def test_small_objects_are_dropped_and_numbers_closed_up() -> None:
    probability = field("9.99.999")
    assert label_objects(probability, min_area=2).tolist() == [[0, 0, 1, 1, 0, 2, 2, 2]]
    assert label_objects(probability, min_area=3).max() == 1
    assert label_objects(probability, min_area=4).max() == 0


def test_objects_at_the_border_may_be_dropped() -> None:
    probability = field("9.... ..9.. ....9 .....")
    assert label_objects(probability, clear_border=True).tolist()[1] == [0, 0, 1, 0, 0]
    assert label_objects(probability, clear_border=True).sum() == 1


@pytest.mark.parametrize("split", ["components", "distance", "probability"])
def test_two_discs_that_overlap(split: str) -> None:
    probability = discs((20, 20, 11), (20, 38, 11))
    if split == "probability":  # less certain where they meet
        columns = np.arange(60)
        probability = probability * (0.95 - 0.3 * np.exp(-((columns - 29) ** 2) / 4))
    found = label_objects(probability, split=split)
    if split == "components":
        assert found.max() == 1
        return
    assert found.max() == 2 and ((found > 0) == (probability > 0.5)).all()
    assert (found[:, :28][found[:, :28] > 0] == found[20, 20]).all()
    assert (found[:, 31:][found[:, 31:] > 0] == found[20, 38]).all()
    assert label_objects(probability, split=split, depth=20.0).max() == 1


def test_depth_decides_what_is_a_waist() -> None:
    """Summits 0.9 and 0.8 with a pass of 0.6: the lower one stands 0.2 above it."""
    probability = field("796.68.")[:, :3]
    ridge = field("6966686")
    assert label_objects(ridge, split="probability", depth=0.19).tolist() == [[1, 1, 1, 1, 2, 2, 2]]
    assert label_objects(ridge, split="probability", depth=0.21).tolist() == [[1] * 7]
    assert label_objects(probability, split="probability").max() == 1


def test_a_flat_object_and_one_that_the_border_cuts_stay_whole() -> None:
    assert label_objects(np.pad(np.ones((5, 30)), 2), split="distance").max() == 1
    assert label_objects(np.pad(np.full((5, 30), 0.9), 2), split="probability").max() == 1
    assert label_objects(discs((0, 30, 15)), split="distance").max() == 1


def test_a_seam_is_divided_between_its_objects_only() -> None:
    probability = field("99..99 99..99")
    assert label_objects(probability, seam=2).tolist() == [[1, 1, 1, 2, 2, 2]] * 2
    ended = label_objects(field("99..99 99..99 ...... ......"), seam=2)
    assert ended[2:].tolist() == [[0, 0, 1, 2, 0, 0], [0] * 6]  # it bulges by a step across the corner
    assert (label_objects(probability, seam=1) == label_objects(probability)).all()
    assert label_objects(field("9.9"), seam=1).tolist() == [[1, 1, 2]]
    assert label_objects(field("9..9"), seam=1).tolist() == [[1, 0, 0, 2]]
    assert label_objects(field("9...."), seam=2).sum() == 1  # no second object, no seam


def test_growth_stops_at_other_objects_and_the_border() -> None:
    assert label_objects(field("...9.."), grow=2).tolist() == [[0, 1, 1, 1, 1, 1]]
    assert label_objects(field("9...9"), grow=9).tolist() in ([[1, 1, 1, 2, 2]], [[1, 1, 2, 2, 2]])
    assert label_objects(field("... .9. ..."), grow=1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


def test_what_training_parts_is_put_together_again() -> None:
    """Touching cells, parted as for training, come back: SEG near 1, which without closing the seams is lower."""
    ids = touching_cells(3, 256)[1]
    parted = separate_touching(ids).astype(float)
    closed = seg([(label_objects(parted, seam=2, min_area=5), ids)])
    assert closed > 0.98
    assert seg([(label_objects(parted), ids)]) < closed - 0.04


def test_masks_of_sixteen_bits() -> None:
    assert check_mask_ids(np.array([[0, 65_535]])).dtype == np.uint16
    with pytest.raises(ValueError, match="65,536 objects: a mask of 16 bits holds at most 65,535"):
        check_mask_ids(np.array([[0, 65_536]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "magic"}, "split is 'magic', legal are components, distance, probability"),
        ({"depth": 0.0}, "depth is 0.0, it must be positive"),
        ({"threshold": 2}, "threshold is 2, legal are 0 to below 1"),
        ({"min_area": -1}, "min_area is -1"),
        ({"seam": -1}, "seam is -1"),
        ({"grow": -2}, "grow is -2"),
    ],
)
def test_refusals(options, words) -> None:
    with pytest.raises(ValueError, match=f"label_objects: {words}"):
        label_objects(np.zeros((2, 2)), **options)


@pytest.mark.parametrize("wrong", [np.zeros((1, 2, 2)), np.zeros((2, 2), int)])
def test_what_is_no_map(wrong) -> None:
    with pytest.raises(TypeError, match="legal are floats"):
        label_objects(wrong)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(["components", "distance", "probability"]))
def test_objects_are_connected_disjoint_and_numbered(seed: int, split: str) -> None:
    probability = drawn(seed)
    found = label_objects(probability, 0.4, split=split, fill_holes=False)
    assert ((found > 0) == (probability > 0.4)).all()
    assert sorted(set(found.ravel().tolist()) - {0}) == list(range(1, found.max() + 1))
    for number in range(1, found.max() + 1):
        assert ndimage.label(found == number)[1] == 1
    assert found.max() >= ndimage.label(probability > 0.4)[1]
    assert (renumber(7 * found) == found).all()


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.3]))
def test_summits_that_stand_out_stay_apart(seed: int, depth: float) -> None:
    """Two parts meet nowhere above the lower summit less `depth`: found by flooding down in steps."""
    probability = drawn(seed)
    found = label_objects(probability, 0.2, split="probability", depth=depth, fill_holes=False)
    summits = [probability[found == number].max() for number in range(1, found.max() + 1)]
    for level in np.unique(probability[probability > 0.2]):
        lake = ndimage.label(probability >= level)[0]
        for piece in range(1, lake.max() + 1):
            parts = sorted((summits[n - 1] for n in set(found[lake == piece].tolist()) - {0}), reverse=True)
            assert all(summit - level >= depth - 1e-12 for summit in parts[1:])
