"""Tiles equal the whole, for every network that can be cut; how large they are for an amount of memory."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import one_thread
from tile_cases import TOLERANCE, VARIANTS, network, picture, whole

from minitorch_unet import Tensor, UNet, UNetSizes, manual_seed
from minitorch_unet.data.tiles import blended_spans, extract, padded_spans
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
