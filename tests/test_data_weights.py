"""Weight maps, separation borders, augmentation and synthetic cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitorch_unet.data import (
    SyntheticCells,
    augment,
    border_distances,
    check_dataset,
    connected_components,
    later_weight_map,
    separate_touching,
    split_dataset,
    touching_cells,
    weight_map,
)


def blocks(seed, shape=(17, 21), count=4):
    """A few overlapping rectangles with arbitrary ids."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(shape, np.int32)
    highest = 1000 if seed % 2 else count  # far apart, or 1, 2, 3, ...
    for number in rng.choice(np.arange(1, highest + 1), count, replace=False):
        top, left = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        ids[top : top + rng.integers(1, 8), left : left + rng.integers(1, 8)] = number
    return ids


def separated_slowly(ids):
    label = np.zeros(ids.shape, np.int64)
    for r, c in np.ndindex(ids.shape):
        around = set(ids[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].ravel().tolist()) - {0}
        label[r, c] = ids[r, c] > 0 and len(around) == 1
    return label


def weighted_slowly(ids, w0, sigma):
    result = np.ones(ids.shape)
    objects = [np.argwhere(ids == number) for number in np.unique(ids) if number]
    for pixel in np.ndindex(ids.shape):
        distances = sorted(np.sqrt(((points - pixel) ** 2).sum(axis=1)).min() for points in objects)
        if len(distances) > 1:
            result[pixel] += w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return result


@given(st.integers(0, 10_000))
def test_separate_touching(seed):
    ids = blocks(seed)
    label = separate_touching(ids)
    assert label.dtype == np.int64
    assert np.array_equal(label, separated_slowly(ids))
    assert np.array_equal(separate_touching(ids.astype(np.uint16)), label)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.sampled_from([0.7, 2.0, 5.0]))
def test_weight_map_against_brute_force(seed, count, sigma):
    ids = blocks(seed, count=count)
    found = weight_map(ids, w0=10.0, sigma=sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, weighted_slowly(ids, 10.0, sigma), rtol=2e-6, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.booleans())
def test_later_weight_map_against_brute_force(seed, count, own_label):
    """The plugin's formula pixel by pixel: 1 in objects, 0 where ignored, three terms in the background."""
    ids = blocks(seed, count=count)
    label = separated_slowly(ids) if own_label else (ids > 0).astype(np.int64)
    label[:3] = -100
    found = later_weight_map(ids, label)
    nearest, second = border_distances(ids)
    objects = [np.argwhere(ids == number) for number in np.unique(ids) if number]
    for pixel in np.ndindex(ids.shape):
        distances = sorted(np.sqrt(((points - pixel) ** 2).sum(axis=1)).min() for points in objects)
        d1, d2 = [*distances, np.inf, np.inf][:2]
        assert (nearest[pixel], second[pixel]) == (pytest.approx(d1), pytest.approx(d2))
        expected = 0.1 + 50 * np.exp(-((d1 + d2) ** 2) / (2 * 6**2)) + 0.9 * np.exp(-(d1**2) / (2 * 10**2))
        expected = 0.0 if label[pixel] == -100 else 1.0 if label[pixel] else expected
        assert found[pixel] == pytest.approx(expected, rel=2e-6, abs=2e-6)
    assert found.dtype == np.float32


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4))
def test_equation_2_with_balance_and_ignored_regions_against_brute_force(seed, count):
    ids = blocks(seed, count=count)
    label = separated_slowly(ids)
    label[:, -4:] = -100
    found = weight_map(ids, 10.0, 5.0, [0.7, 1.9], label)
    second_term = weighted_slowly(ids, 10.0, 5.0) - 1
    expected = np.where(label == -100, 0, np.where(label == 1, 1.9, 0.7) + second_term)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_distances_reach_as_far_as_asked_for():
    ids = np.zeros((9, 60), int)
    ids[4, 5], ids[4, 50] = 1, 2
    nearest, second = border_distances(ids)
    assert nearest[4, 10] == 5 and second[4, 10] == 40
    nearest, second = border_distances(ids, reach=12.0)
    assert nearest[4, 10] == 5 and second[4, 10] == np.inf and nearest[4, 30] == np.inf
    none = border_distances(np.zeros((3, 4), int))
    assert all((distance == np.inf).all() for distance in none)


def test_later_weight_map_refusals():
    ids = np.ones((4, 4), int)
    for how, words in (
        ({"gap_sigma": 0}, "gap_sigma is 0"), ({"near_sigma": -1.0}, "near_sigma is -1.0"),
        ({"label": np.ones((3, 4), int)}, "label has shape"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            later_weight_map(ids, **how)


def test_weight_map_parts():
    ids = np.zeros((9, 12), np.uint16)
    ids[2:7, 1:5], ids[2:7, 7:11] = 60_000, 3
    label = separate_touching(ids)
    label[0] = -100
    base = weight_map(ids)
    assert base[4, 5] == pytest.approx(1 + 10 * np.exp(-((1 + 2) ** 2) / 50))
    weighted = weight_map(ids, class_weights=[0.5, 3.0], label=label)
    assert (weighted[0] == 0).all()
    np.testing.assert_allclose(weighted[1:], (base - 1 + np.where(label == 1, 3.0, 0.5))[1:], rtol=1e-6)
    only = weight_map(ids, background_only=True)
    assert (only[ids > 0] == 1).all()
    np.testing.assert_array_equal(only[ids == 0], base[ids == 0])


@pytest.mark.parametrize("ids", [np.zeros((5, 6), int), np.ones((5, 6), int)])
def test_weight_map_without_neighbours(ids):
    assert (weight_map(ids) == 1).all()


def test_weight_map_refusals():
    ids = np.ones((4, 4), int)
    with pytest.raises(ValueError, match="sigma is 0"):
        weight_map(ids, sigma=0)
    with pytest.raises(ValueError, match="legal are integers"):
        weight_map(ids.astype(float))
    with pytest.raises(ValueError, match="ids -1"):
        weight_map(-ids)
    with pytest.raises(ValueError, match="label has shape"):
        weight_map(ids, label=np.ones((3, 4), int))
    with pytest.raises(ValueError, match="class_weights has 1 entries"):
        weight_map(ids, class_weights=[1.0])


def test_connected_components_use_four_neighbours():
    label = np.array([[1, 0, 1], [0, 1, 1], [2, 0, 0]])
    assert connected_components(label).tolist() == [[1, 0, 2], [0, 2, 2], [0, 0, 0]]


@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_augment_moves_everything_alike(seed, flips, rotations):
    label = np.arange(5 * 7).reshape(5, 7)
    image = np.stack([label, 100 + label]).astype(np.float32)
    moved, moved_label, nothing = augment(
        np.random.default_rng(seed), image, label, None, flips=flips, rotations=rotations, grey=0
    )
    assert nothing is None and moved.dtype == np.float32 and moved_label.dtype == label.dtype
    assert np.array_equal(moved[0], moved_label) and np.array_equal(moved[1], moved_label + 100)
    assert moved.flags.c_contiguous and moved_label.flags.c_contiguous
    if not rotations:
        assert moved_label.shape == (5, 7)
    if not flips and not rotations:
        assert np.array_equal(moved_label, label)


def test_augment_reaches_all_eight_positions():
    label = np.arange(9).reshape(3, 3)
    rng = np.random.default_rng(0)
    seen = {augment(rng, label[None].astype(np.float32), label)[1].tobytes() for _ in range(200)}
    turns = {augment(rng, label[None], label, flips=False, grey=0)[1].tobytes() for _ in range(50)}
    assert turns == {np.ascontiguousarray(np.rot90(label, k)).tobytes() for k in range(4)}
    flips = {augment(rng, label[None], label, rotations=False, grey=0)[1].tobytes() for _ in range(50)}
    assert flips == {np.ascontiguousarray(label[::r, ::c]).tobytes() for r in (1, -1) for c in (1, -1)}
    turned = [np.rot90(side, k) for side in (label, label.T) for k in range(4)]
    assert seen == {np.ascontiguousarray(array).tobytes() for array in turned}


def test_augment_grey_values():
    image = np.linspace(-0.2, 1.2, 30, dtype=np.float32).reshape(1, 5, 6)
    kept = image.copy()
    label = np.ones((5, 6), int)
    changed, same = augment(np.random.default_rng(3), image, label, flips=False, rotations=False, grey=0.1)
    assert np.array_equal(image, kept) and np.array_equal(same, label)
    assert changed.dtype == np.float32 and not np.array_equal(changed, image)
    assert (np.diff(changed.ravel()) > 0).all(), "the order of greys stays"
    assert np.abs(changed - image).max() < 0.4
    again, _ = augment(np.random.default_rng(3), image, label, flips=False, rotations=False, grey=0.1)
    assert np.array_equal(changed, again)
    identity, _ = augment(np.random.default_rng(3), image, label, flips=False, rotations=False, grey=0)
    assert np.array_equal(identity, image)


def test_augment_refusals():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="map 1 has shape"):
        augment(rng, np.zeros((1, 4, 4)), np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"legal is \(C, H, W\)"):
        augment(rng, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="grey"):
        augment(rng, np.zeros((1, 4, 4)), grey=-1)


def test_touching_cells():
    image, ids = touching_cells(7, (160, 200))
    assert image.dtype == np.uint8 and ids.dtype == np.int32 and image.shape == ids.shape == (160, 200)
    again = touching_cells(7, (160, 200))
    assert np.array_equal(image, again[0]) and np.array_equal(ids, again[1])
    assert not np.array_equal(image, touching_cells(8, (160, 200))[0])
    assert np.unique(ids).tolist() == list(range(ids.max() + 1))
    for number in range(1, ids.max() + 1):
        assert connected_components(ids == number).max() == 1, "a cell is one piece"
    sides = ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1]))
    pairs = {pair for a, b in sides for pair in zip(a.flat, b.flat, strict=True)}
    touching = len({a for pair in pairs if 0 not in pair and pair[0] != pair[1] for a in pair})
    assert touching > 0.5 * ids.max()
    assert 0.35 < (ids > 0).mean() < 0.75


def test_touching_cells_are_not_found_by_a_threshold():
    image, ids = touching_cells(1, 256)
    truth = separate_touching(ids) == 1
    scores = [((image > t) & truth).sum() / ((image > t) | truth).sum() for t in range(256)]
    assert max(scores) < 0.8


def test_touching_cells_few_and_small():
    for seed in range(20):
        image, ids = touching_cells(seed, 32, cells=1)
        assert image.shape == (32, 32) and ids.max() <= 1
    with pytest.raises(ValueError, match="size is 16x16"):
        touching_cells(0, 16)
    with pytest.raises(ValueError, match="cells is 0"):
        touching_cells(0, 64, cells=0)


def test_synthetic_cells_are_a_dataset():
    cells = SyntheticCells(4, size=64, seed=5)
    assert len(cells) == 4 and cells.classes == 2 and cells.channels == 1
    sample = cells[1]
    image, ids = touching_cells((5, 1), 64)
    assert sample.image.shape == (1, 64, 64) and sample.image.dtype == np.float32
    assert np.array_equal(sample.instances, ids)
    assert np.array_equal(sample.label, separate_touching(ids))
    assert np.corrcoef(sample.image.ravel(), image.ravel())[0, 1] > 0.99
    training, validation = split_dataset(cells, 0.25)
    assert validation.names == ["cells 3"] and len(training) == 3
    assert any("64x64" in line for line in check_dataset(cells, minimum_size=64))
