"""Tiles equal the whole, for every network that can be cut; averages over symmetries; blended tiles; memory."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import one_thread

from minitorch_unet import Tensor, UNet, UNetSizes, manual_seed, no_grad
from minitorch_unet import functional as F
from minitorch_unet.data.tiles import averaged, blended_spans, extract, gaussian, padded_spans, predict_strips
from minitorch_unet.predict import resident_bytes, within
from minitorch_unet.tiled import (
    ALIKE,
    Tiling,
    is_exact,
    margin,
    predict_probabilities,
    prediction_tile,
    spans_for,
    strips_of,
)

__all__ = ["one_thread"]

VARIANTS = {
    "paper": {},
    "batch norm": {"norm": "batch"},
    "released": {"up_relu": True, "up_first": True, "wide_last_up": True},
    "padded": {"padding": "same"},
    "padded, nearest": {"padding": "same", "up": "nearest"},
    "padded, batch norm": {"padding": "same", "norm": "batch", "up_first": True},
}
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


@functools.cache
def network(depth: int, dtype: type, variant: str = "paper", **options) -> UNet:
    manual_seed(depth)
    made = UNet(base=2, depth=depth, dtype=dtype, **VARIANTS[variant], **options)
    rng = np.random.default_rng(depth)
    for name, value in made.state_dict().items():  # biases and running statistics that are not 0 and 1
        if name.endswith(("bias", "mean", "running_var", "variance")):
            value[...] = rng.uniform(0.1, 0.4, value.shape)
    made.eval()
    return made


def picture(height: int, width: int, dtype: type, seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (channels, height, width)).astype(dtype)


def whole(model: UNet, image: np.ndarray) -> np.ndarray:
    """One pass over the whole image, mirrored by NumPy's own padding as far as the network needs."""
    sizes = model.sizes
    halo = sizes.halo if sizes.padding == "valid" else 0
    height, width = image.shape[1:]
    after = [sizes.input_size(n) - halo - n for n in (height, width)]
    padded = np.pad(image, [(0, 0), (halo, after[0]), (halo, after[1])], mode="reflect")
    with no_grad():
        return F.softmax(model(Tensor(padded[None])), 1).data[0, :, :height, :width]


@st.composite
def cuts(draw, variants=tuple(VARIANTS)):
    """A network, image and legal tile. In float32 tiles are large enough to move by ALIKE steps of the grid."""
    variant = draw(st.sampled_from(variants))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    depth = draw(st.integers(1, 3))
    model = network(depth, dtype, variant)
    sizes, grid = model.sizes, model.sizes.grid
    least = ALIKE * grid if dtype is np.float32 else grid
    if sizes.padding == "valid":
        tiles = [sizes.input_size(least) + k * grid for k in range(6)]
    else:
        tiles = [2 * margin(model) + least + k * grid for k in range(6)]
    tile = draw(st.sampled_from(tiles)), draw(st.sampled_from(tiles))
    size = st.integers(1, 40 if depth == 3 else 80 if sizes.padding == "valid" else 110)
    return model, picture(draw(size), draw(size), dtype, draw(st.integers(0, 99))), Tiling(tile)


def check(model: UNet, image: np.ndarray, how: Tiling) -> None:
    found = predict_probabilities(model, image, None, how)
    assert found.dtype == image.dtype
    np.testing.assert_allclose(found, whole(model, image), rtol=0, atol=TOLERANCE[image.dtype.type])


@settings(max_examples=200)
@given(cuts(("paper",)))
def test_tiles_of_the_papers_kind_of_network_equal_the_whole(cut) -> None:
    check(*cut)


@settings(max_examples=70)
@given(cuts())
def test_tiles_of_every_variant_equal_the_whole(cut) -> None:
    check(*cut)


@pytest.mark.parametrize("variant", ["padded", "padded, nearest"])
@pytest.mark.parametrize("depth", [2, 3])
def test_several_tiles_of_a_padded_network_equal_the_whole(variant, depth) -> None:
    model = network(depth, np.float64, variant)
    tile = 2 * margin(model) + model.sizes.grid
    image = picture(2 * tile + 3, tile + 1, np.float64, 0)
    assert len(spans_for(model, image.shape[1], tile, tile)) > 3
    check(model, image, Tiling(tile))


@pytest.mark.parametrize("variant", ["padded", "padded, nearest"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_margin_is_no_larger_than_needed(variant, depth) -> None:
    """The gradient of scores that fill whole cells reaches into the last step of the grid of the margin, not beyond.

    On a ramp up, pooling takes the last pixel of each cell, on a ramp down the first.
    """
    manual_seed(0)
    model = UNet(base=1, depth=depth, dtype=np.float64, **VARIANTS[variant])
    for value in model.parameters():
        value.data[...] = np.abs(value.data) + 0.1  # no ReLU is dead
    edge, grid = margin(model), model.sizes.grid
    n = 2 * edge + grid + 2 * grid
    cell = slice(edge + grid, edge + 2 * grid)
    reach = 0
    for ramp in (np.arange(n), np.arange(n, 0, -1)):
        x = Tensor(np.broadcast_to(ramp[:, None], (1, 1, n, grid)).astype(float), requires_grad=True)
        model(x)[:, :1, cell].sum().backward()
        rows = np.flatnonzero(x.grad.data.any((0, 1, 3)))
        reach = max(reach, cell.start - int(rows[0]), int(rows[-1]) + 1 - cell.stop)
    # The 2x2 convolution reaches to one side only, the margin is for both.
    assert edge - grid * (1 + ("nearest" in variant)) < reach <= edge


def test_a_smaller_margin_would_not_be_exact(monkeypatch) -> None:
    model = network(2, np.float64, "padded")
    image = picture(90, 20, np.float64, 0)
    tile = 2 * margin(model) + model.sizes.grid
    edge = margin(model) - 2 * model.sizes.grid
    monkeypatch.setattr("minitorch_unet.tiled.margin", lambda _: edge)
    difference = np.abs(predict_probabilities(model, image, None, Tiling(tile)) - whole(model, image)).max()
    assert difference > 1e-9


def test_images_below_a_step_of_the_grid() -> None:
    model = network(4, np.float64)
    check(model, picture(3, 2, np.float64, 0), Tiling())
    check(model, picture(4, 30, np.float64, 0), Tiling((188, 204)))


# --------------------------------------------------------------------------------------------- plans of tiles


@given(st.integers(1, 400), st.integers(1, 4), st.integers(0, 3), st.integers(1, 9), st.integers(1, 3))
def test_padded_spans(length, grid, edges, more, step) -> None:
    edge, step = edges * grid, step * grid
    tile = 2 * edge + step + (more - 1) * grid
    spans = padded_spans(length, tile, edge, grid, step)
    n = -(-length // grid) * grid
    size = min(tile, n)
    owner = np.zeros(length, int)
    for span in spans:
        owner[span.begin : span.end] += 1
        assert span.window % grid == 0 and span.skip == span.begin - span.window and span.end > span.begin
        assert span.window >= 0 and span.window + size <= n
        assert span.window == 0 or span.skip >= edge
        assert span.window + size == n or span.window + size - span.end >= edge
    assert (owner == 1).all()
    assert all(span.window % step == 0 for span in spans[:-1])


@given(st.integers(1, 300), st.integers(1, 4), st.integers(1, 20), st.integers(0, 9), st.floats(0, 0.9))
def test_blended_spans(length, grid, tiles, halo, overlap) -> None:
    tile = tiles * grid
    n = -(-length // grid) * grid
    tile_out = tile if halo else min(tile, n)
    spans = blended_spans(length, tile_out + 2 * halo, tile_out, grid, overlap)
    covered = np.zeros(length, bool)
    for span in spans:
        covered[span.begin : span.end] = True
        assert (span.window + halo) % grid == 0 and span.window + halo == span.begin
        assert halo or span.window + tile_out <= n
    assert covered.all() and len({span.begin for span in spans}) == len(spans)
    shared = [a.begin + tile_out - b.begin for a, b in itertools.pairwise(spans)]
    assert all(s >= min(overlap * tile_out, tile_out - grid) - 1e-9 for s in shared)


def test_tiles_that_leave_nothing_are_refused() -> None:
    padded, valid = network(2, np.float64, "padded"), network(3, np.float64)
    with pytest.raises(ValueError, match="tile is 48 pixels; with padding at least 52 are needed for an image of 60"):
        predict_probabilities(padded, picture(60, 9, np.float64, 0), None, Tiling(48))
    with pytest.raises(ValueError, match="tile is 92 pixels; this network needs at least 100 for an image of 9"):
        predict_probabilities(valid, picture(9, 3, np.float64, 0), None, Tiling(92))
    with pytest.raises(ValueError, match=r"tile is 99 pixels, .* nearest legal sizes: 92 and 100"):
        predict_probabilities(valid, picture(9, 9, np.float64, 0), None, Tiling(99))
    with pytest.raises(ValueError, match="average is 'all'; legal are 'none', 'flips', 'symmetries'"):
        Tiling(average="all")
    with pytest.raises(ValueError, match="overlap is 1; it must be at least 0 and below 1"):
        Tiling(overlap=1)
    with pytest.raises(ValueError, match=r"shape \(9, 9\), legal is a non-empty"):
        predict_probabilities(valid, np.zeros((9, 9)))


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


def test_which_networks_are_exact() -> None:
    assert is_exact(network(1, np.float32)) and is_exact(network(1, np.float32, "batch norm"))
    assert not is_exact(network(1, np.float32), Tiling(overlap=0.5))
    for norm in ("group", "instance"):
        assert not is_exact(UNet(base=2, depth=1, norm=norm))


# ----------------------------------------------------------------------------------------------------- memory


def test_strips_come_from_top_to_bottom_and_the_mode_is_restored() -> None:
    model = network(1, np.float32).train()
    image = picture(41, 30, np.float32, 0)
    strips = strips_of(model, functools.partial(extract, image), 41, 30, Tiling(24))
    top = 0
    for begin, strip in strips:
        assert begin == top and strip.shape[1:] == (8 if begin < 40 else 1, 30)
        top += strip.shape[1]
    assert top == 41 and model.training
    model.eval()


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_tile_grows_with_the_memory(padding) -> None:
    model = UNet(base=4, depth=2, padding=padding)
    here = resident_bytes() >> 20
    assert 20 < here < 4000
    sizes = []
    for more in (40, 80, 160):
        how = within(model, 5000, 6000, Tiling(average="flips"), (here + more) << 20, 0)
        assert isinstance(how.tile, int) and model.sizes.is_legal(how.tile) and how.average == "flips"
        sizes.append(how.tile)
    assert sizes[0] < sizes[1] < sizes[2]
    small = within(model, 70, 90, Tiling(), 8 << 30, 0)
    assert prediction_tile(model, 70, 90, small)[0] == tuple(map(UNetSizes(2, padding).input_size, (70, 90)))
    assert within(model, 500, 600, Tiling(44), 1, 0) == Tiling(44)
    with pytest.raises(ValueError, match=r"1 MiB of memory are too little: with the smallest tile, of \d+ pixels, \d+"):
        within(model, 500, 600, Tiling(), 1 << 20, 0)
