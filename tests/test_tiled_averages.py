"""Averages over symmetries of tiles, and tiles that are blended."""

import numpy as np
import pytest
from small_runs import one_thread
from tile_cases import network, picture, whole

from minitorch_unet import Tensor, UNet, manual_seed, no_grad
from minitorch_unet import functional as F
from minitorch_unet.data.tiles import averaged, blended_spans, extract, gaussian, predict_strips
from minitorch_unet.tiled import Tiling, margin, predict_probabilities, spans_for

__all__ = ["one_thread"]

# -------------------------------------------------------------------------------------------------- averaging


def symmetries(count: int):
    """Functions that turn the last two axes, and their inverses, by numpy's own turns."""
    for number in range(count):
        flips = [axis for axis, bit in ((-2, 1), (-1, 2)) if number & bit]
        if number & 4:
            yield (
                lambda x, f=flips: np.swapaxes(np.flip(x, f), -1, -2),
                lambda y, f=flips: np.flip(np.swapaxes(y, -1, -2), f),
            )
        else:
            yield (lambda x, f=flips: np.flip(x, f),) * 2


@pytest.mark.parametrize(("over", "count"), [("flips", 4), ("symmetries", 8)])
@pytest.mark.parametrize("variant", ["paper", "padded, nearest"])
def test_averages_of_tiles_equal_the_average_of_the_whole(over, count, variant) -> None:
    model = network(2, np.float64, variant)
    sizes = model.sizes
    image = picture(83, 61, np.float64, 1)
    halo = sizes.halo if sizes.padding == "valid" else 0
    all_of_it = [sizes.input_size(n) for n in image.shape[1:]]
    window = extract(image, -halo, -halo, *all_of_it)[None]
    expected = np.zeros((1, 2, *(sizes.output_size(n) for n in all_of_it)))
    with no_grad():
        for turn, back in symmetries(count):
            scores = F.softmax(model(Tensor(np.ascontiguousarray(turn(window)))), 1).data
            expected += back(scores) / count
    tile = 64 if halo else 2 * margin(model) + 4
    found = predict_probabilities(model, image, None, Tiling((tile, tile + 4), over))
    np.testing.assert_allclose(found, expected[0, :, :83, :61], rtol=0, atol=1e-12)
    assert np.abs(found - predict_probabilities(model, image)).max() > 1e-3


@pytest.mark.parametrize("count", [4, 8])
def test_the_turns_are_the_symmetries_of_a_square(count) -> None:
    """Each is met once: images seen by the network differ, and what it gives back is turned back."""
    seen = []

    def forward(x):
        seen.append(x.copy())
        return 2 * x

    x = np.arange(9.0).reshape(1, 1, 3, 3)
    result = averaged(forward, {4: "flips", 8: "symmetries"}[count])(x)
    assert np.array_equal(result, 2 * x)
    assert len({s.tobytes() for s in seen}) == count
    group = {np.rot90(f, k).tobytes() for f in (x[0, 0], x[0, 0, ::-1]) for k in range(4)}
    assert {s.tobytes() for s in seen} <= group
    with pytest.raises(ValueError, match="over is 'turns'; legal are 'none'"):
        averaged(forward, "turns")


def test_a_symmetric_picture_gives_a_symmetric_average_and_a_symmetric_network_the_same() -> None:
    model = network(1, np.float64)
    quarter = picture(16, 16, np.float64, 3)[0]
    quarter = quarter + quarter.T
    image = np.block([[quarter, quarter[:, ::-1]], [quarter[::-1], quarter[::-1, ::-1]]])[None]
    found = predict_probabilities(model, image, None, Tiling(average="symmetries"))
    for turn, _ in symmetries(8):
        np.testing.assert_allclose(turn(found), found, rtol=0, atol=1e-12)
    assert np.abs(predict_probabilities(model, image) - found).max() > 1e-4
    manual_seed(5)
    even = UNet(base=2, depth=1, dtype=np.float64)
    for value in even.parameters():
        if value.ndim == 4:  # every filter the same from all sides
            value.data[...] = sum(turn(value.data) for turn, _ in symmetries(8)) / 8
    image = picture(21, 34, np.float64, 4)
    one, eight = (predict_probabilities(even, image, None, Tiling(20, how)) for how in ("none", "symmetries"))
    np.testing.assert_allclose(one, eight, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------------- blending


def test_blended_tiles_of_a_constant_are_seamless() -> None:
    """Where a window gives the same everywhere, weights must add up to one everywhere."""
    rows, columns = (blended_spans(n, 24, 24, 4, 0.4) for n in (95, 50))
    strips = predict_strips(
        lambda x: np.repeat(0.25 + 0.5 * x, 2, 1), lambda *w: np.ones((1, *w[2:]), np.float32),
        rows, columns, (24, 24), (24, 24), True,
    )  # fmt: skip
    found = list(strips)
    assert [top for top, _ in found] == [row.begin for row in rows]
    joined = np.concatenate([strip for _, strip in found], 1)
    assert joined.shape == (2, 95, 50)
    np.testing.assert_allclose(joined, 0.75, rtol=0, atol=1e-6)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.7])
def test_blended_lies_between_the_windows(overlap) -> None:
    """The bound of docs/prediction.md: at every pixel between the least and the most of the windows that cover it."""
    model = network(2, np.float64, "padded")
    image = picture(70, 45, np.float64, 2)
    tile, how = 24, Tiling(24, "none", overlap)
    found = predict_probabilities(model, image, None, how)
    least, most = np.full(found.shape, np.inf), np.full(found.shape, -np.inf)
    for row in spans_for(model, 70, tile, tile, how):
        for column in spans_for(model, 45, tile, tile, how):
            window = extract(image, row.window, column.window, tile, tile)
            scores = whole(model, window)
            place = (slice(None), slice(row.begin, row.end), slice(column.begin, column.end))
            here = scores[:, : row.end - row.begin, : column.end - column.begin]
            least[place], most[place] = np.minimum(least[place], here), np.maximum(most[place], here)
    assert (found >= least - 1e-7).all() and (found <= most + 1e-7).all()
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    exact = whole(model, image)
    assert 0 < np.abs(found - exact).max() <= np.maximum(np.abs(least - exact), np.abs(most - exact)).max() + 1e-7


def test_blending_is_closer_to_the_whole_than_tiles_side_by_side() -> None:
    model = network(2, np.float64, "padded")
    image = picture(140, 24, np.float64, 2)
    exact = whole(model, image)
    errors = [np.abs(predict_probabilities(model, image, None, Tiling(48, "none", o)) - exact).mean() for o in (0, 0.5)]
    assert errors[1] < 0.6 * errors[0]


def test_gaussian_weights_by_hand() -> None:
    weights = gaussian(8)
    assert np.allclose(weights, np.exp(-0.5 * np.array([3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5]) ** 2))
