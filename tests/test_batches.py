"""Augmented tiles, whose maps lie on their image, and batches made ahead, which come as if they were not."""

import dataclasses
import threading

import numpy as np
import pytest
from small_runs import TRAINING, patterns, tiny

from minitorch_unet import UNet
from minitorch_unet.batches import Ahead, TileMaker
from minitorch_unet.data.weights import IGNORE
from minitorch_unet.errors import DataError


def maker(shapes, **changed) -> TileMaker:
    config, dataset = tiny(**changed), patterns(shapes)
    return TileMaker(config, UNet(**config.network(1, 2)), dataset)


FIELD = {"elastic": 2.0, "shift": 3.0, "angle": 30.0, "zoom": 0.2}


@pytest.mark.parametrize("shape", [(60, 70), (16, 70)])
def test_one_field_moves_image_label_and_weights_of_a_tile(shape) -> None:
    """The image is made the label's picture, blurred by bilinear sampling at the borders of patches alone."""
    tiles = maker([shape], grey=0.0, tile=32, depth=1, **FIELD)
    still_tiles = maker([shape], grey=0.0, tile=32, depth=1)
    halo = (tiles.in_size - tiles.out_size) // 2
    agreeing, counted_pixels, changed = 0, 0, 0
    for step in range(12):
        images, labels, weights = tiles.batch(step)
        shown = images[:, 0, halo:-halo, halo:-halo]
        counted = labels != IGNORE
        agreeing += (((shown > 0.5) == labels) & counted).sum()
        counted_pixels += counted.sum()
        np.testing.assert_allclose(weights[counted], tiles.class_weights[labels[counted]], rtol=1e-6)
        changed += not np.array_equal(labels, still_tiles.batch(step)[1])
    assert agreeing > 0.99 * counted_pixels > 2000 and changed == 12


def test_a_field_takes_what_lies_beyond_the_tile_from_the_image() -> None:
    """A tile far from the image's border sees the image itself, never a mirrored piece of it."""
    tiles = maker([(90, 90)], grey=0.0, tile=16, flips=False, rotations=False, **(FIELD | {"angle": 0.0, "zoom": 0.0}))
    rows = np.arange(90, dtype=np.float32)[:, None] * np.ones(90, np.float32)
    tiles.dataset._cache[0] = dataclasses.replace(tiles.dataset[0], image=rows[None])
    inside = 0
    for step in range(tiles.steps_per_epoch):
        image = tiles.batch(step)[0][0, 0]
        if image.min() > 2 and image.max() < 87:  # a mirrored row passes 0 or 89
            inside += 1
            assert (np.diff(image, axis=0) > 0).all()
    assert inside > 3


def test_pixels_that_a_field_takes_from_outside_the_image_are_ignored() -> None:
    tiles = maker([(20, 20)], tile=20, grey=0.0, flips=False, rotations=False, shift=8.0)
    for step in range(8):
        ignored = tiles.batch(step)[1][0] == IGNORE
        rows, columns = ignored.all(axis=1).sum(), ignored.all(axis=0).sum()
        assert ignored.sum() == 20 * 20 - (20 - rows) * (20 - columns) and rows <= 8 and columns <= 8
    assert ignored.any()


@pytest.mark.parametrize("changed", [{"elastic": 3.0}, {"noise": 0.2}, {"blur": 2.0}, {"zoom": 0.5}])
def test_augmented_batches_depend_on_the_step_alone(changed) -> None:
    one, two, plain = (maker(TRAINING, batch=2, **how) for how in (changed, changed, {}))
    first = [one.batch(step) for step in range(6)]
    for step in reversed(range(6)):
        assert all(np.array_equal(a, b) for a, b in zip(first[step], two.batch(step), strict=True))
        assert not np.array_equal(plain.batch(step)[0], first[step][0])


def test_the_later_formula_weighs_the_foreground_1() -> None:
    tiles = maker(TRAINING, weights="later")
    _, labels, weights = tiles.batch(0)
    assert (weights[labels == 1] == 1).all() and weights[labels == 0].max() > 10 and (weights[labels == 0] > 1).any()
    assert tiles.class_weights is None


def test_gaps_are_equation_2_without_class_shares() -> None:
    how = {"flips": False, "rotations": False, "grey": 0.0, "border_weight": 4.0, "border_sigma": 3.0}
    gaps, border = (maker(TRAINING, weights=kind, **how) for kind in ("gaps", "border"))
    _, labels, weights = gaps.batch(0)
    shares = np.where(labels > 0, *border.class_weights[::-1])
    assert gaps.class_weights is None and (weights[labels > 0] == 1).all() and weights.max() > 2
    np.testing.assert_allclose(weights - 1, border.batch(0)[2] - shares, atol=1e-6)


def test_a_tile_without_a_pixel_that_counts_is_drawn_again() -> None:
    tiles = maker([(64, 64)], tile=8)
    label = np.full((64, 64), IGNORE)
    label[:12] = 1
    tiles.dataset._cache[0] = dataclasses.replace(tiles.dataset[0], label=label)
    tiles.class_weights[:] = 1
    counts = [(tiles.batch(step)[1] != IGNORE).sum() for step in range(30)]
    assert min(counts) > 0 and len(set(counts)) > 2
    label[:] = IGNORE
    with pytest.raises(DataError, match="50 tiles of pattern 0 hold ignored pixels only"):
        tiles.batch(0)


class Counted:
    """Stands for a TileMaker: notes which batch is made where."""

    steps_per_epoch = 3

    def __init__(self) -> None:
        self.made: list[tuple[int, str]] = []

    def batch(self, step: int):
        self.made.append((step, threading.current_thread().name))
        if step == 7:
            raise DataError("seven")
        return step


def test_batches_come_in_order_and_the_next_is_made_on_a_thread_within_an_epoch() -> None:
    tiles, before = Counted(), threading.active_count()
    with Ahead(tiles) as ahead:
        assert [ahead.batch(step) for step in range(7)] == list(range(7))
        with pytest.raises(DataError, match="seven"):
            ahead.batch(7)
    assert [step for step, _ in tiles.made] == list(range(8))
    here = {step for step, thread in tiles.made if thread == threading.current_thread().name}
    assert here == {0, 3, 6}
    assert threading.active_count() == before


def test_a_batch_that_was_not_expected_is_made_all_the_same() -> None:
    tiles = Counted()
    with Ahead(tiles) as ahead:
        assert [ahead.batch(step) for step in (0, 4, 5, 0)] == [0, 4, 5, 0]
