"""Mirrored tiles, and tiled prediction that equals one pass over the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d

from minitorch_unet.data import extract, predict_tiled, reflect_index, tile_origins


def walk(position, n):
    """Oracle: walk to a coordinate step by step, turning round at the ends."""
    place, step = 0, 1 if position > 0 else -1
    if n == 1:
        return 0
    direction = 1
    for _ in range(abs(position)):
        if not 0 <= place + direction < n:
            direction = -direction
        place += direction
    return place if step else 0


@given(st.integers(-40, 40), st.integers(0, 30), st.integers(1, 9))
def test_reflect_index(start, length, n):
    found = reflect_index(start, start + length, n)
    # Mirroring at 0 makes the walk to -k end where the walk to k ends.
    assert found.tolist() == [walk(position, n) for position in range(start, start + length)]


def test_reflect_index_equals_numpys_padding():
    line = np.arange(5)
    assert reflect_index(-3, 8, 5).tolist() == np.pad(line, 3, mode="reflect").tolist()
    with pytest.raises(ValueError, match="reflect_index: n is 0"):
        reflect_index(0, 3, 0)


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 12), st.integers(1, 12))
def test_extract(top, left, height, width):
    array = np.arange(2 * 5 * 4).reshape(2, 5, 4)
    padded = np.pad(array, ((0, 0), (40, 40), (40, 40)), mode="reflect")
    window = extract(array, top, left, height, width)
    assert np.array_equal(window, padded[:, 40 + top : 40 + top + height, 40 + left : 40 + left + width])
    assert not np.shares_memory(window, array)


@given(st.integers(1, 300), st.integers(1, 16), st.integers(0, 50))
def test_tile_origins(length, grid, more):
    tile = grid + more
    origins = tile_origins(length, tile, grid)
    assert origins[0] == 0 and all(origin % grid == 0 for origin in origins)
    covered = np.zeros(length, bool)
    for origin in origins:
        covered[origin : origin + tile] = True
    assert covered.all()
    assert len(origins) == 1 or origins[-2] + tile < length, "one tile too many"
    assert set(np.diff(origins)) <= {tile // grid * grid}


def test_tile_origins_of_the_paper():
    assert tile_origins(388, 388, 16) == [0]
    assert tile_origins(512, 388, 16) == [0, 384]
    with pytest.raises(ValueError, match="tile is 8, it must be at least the grid of 16"):
        tile_origins(100, 8, 16)


KERNELS = np.random.default_rng(0).normal(size=(3, 3, 3))


def small_net(batch):
    """Valid 3x3, 2x2 max pooling twice, valid 3x3, upsampling by 4, valid 3x3: n -> n - 12 for n = 4k + 2."""
    planes = []
    for channel in batch[0]:
        x = np.maximum(correlate2d(channel, KERNELS[0], mode="valid"), 0)
        for _ in range(2):
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).max(axis=(1, 3))
        x = correlate2d(x, KERNELS[1], mode="valid")
        x = x.repeat(4, axis=0).repeat(4, axis=1)
        planes.append(correlate2d(x, KERNELS[2], mode="valid"))
    total = np.sum(planes, axis=0)
    return np.stack([total, -total, planes[0]])[None]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 47),
    st.integers(1, 47),
    st.integers(1, 2),
    st.integers(4, 8),
    st.integers(4, 8),
    st.integers(0, 99),
)
def test_tiled_equals_whole(height, width, channels, rows, columns, seed):
    image = np.random.default_rng(seed).normal(size=(channels, height, width))
    whole_size = [-(-(n + 12 - 2) // 4) * 4 + 2 for n in (height, width)]
    whole = small_net(extract(image, -6, -6, *whole_size)[None])[0][:, :height, :width]
    calls = []
    tiled = predict_tiled(
        small_net,
        image,
        tile_in=(4 * rows + 2, 4 * columns + 2),
        tile_out=(4 * rows - 10, 4 * columns - 10),
        grid=4,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert tiled.dtype == np.float64 and tiled.shape == (3, height, width)
    assert np.array_equal(tiled, whole)
    assert [done for done, _ in calls] == list(range(1, calls[0][1] + 1))


def test_a_tile_off_the_grid_would_differ():
    """The stand-in network does feel the pooling phase, so the test above can fail."""
    image = np.random.default_rng(1).normal(size=(1, 40, 40))
    shifted = predict_tiled(small_net, image, (30, 30), (18, 18), grid=1)
    on_grid = predict_tiled(small_net, image, (30, 30), (18, 18), grid=4)
    assert not np.allclose(shifted, on_grid)


def test_predict_tiled_refusals():
    image = np.zeros((1, 20, 20))
    with pytest.raises(ValueError, match="even amounts"):
        predict_tiled(small_net, image, (19, 18), (6, 6), grid=4)
    with pytest.raises(ValueError, match=r"image has shape \(20, 20\)"):
        predict_tiled(small_net, image[0], (18, 18), (6, 6), grid=4)
    with pytest.raises(ValueError, match=r"forward returned shape \(1, 3, 6, 6\), expected \(1, K, 8, 8\)"):
        predict_tiled(small_net, image, (18, 18), (8, 8), grid=4)
