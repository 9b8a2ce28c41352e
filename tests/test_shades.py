"""Colours: classes are told apart, signed values are white at 0 and mirror-like around it."""

import numpy as np
import pytest

from minitorch_unet.shades import SIGNED, class_colours, signed8


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 30])
def test_no_class_has_the_colour_of_the_background(count) -> None:
    colours = class_colours(count)
    assert colours.shape == (count, 3) and colours.dtype == np.uint8 and not colours[0].any()
    assert colours[1:].any(axis=1).all()
    first = colours[: min(count, 8)]
    assert len(np.unique(first, axis=0)) == len(first)


def test_two_classes_are_black_and_white() -> None:
    assert class_colours(2).tolist() == [[0, 0, 0], [255, 255, 255]]


def test_signed_values_are_white_at_0_blue_below_and_orange_above() -> None:
    numbers = signed8(np.array([-9.0, -2.0, 0.0, 2.0, 9.0]), 2.0)
    assert numbers.tolist() == [0, 0, 127, 254, 254]
    low, middle, high = SIGNED[[0, 127, 254]].astype(int)
    assert np.ptp(middle) == 0 and low[2] > low[0] and high[0] > high[2]
    assert signed8(np.zeros(3), 0.0).tolist() == [127] * 3  # nothing but zeros
