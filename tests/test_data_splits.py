"""Splits and folds by depth, time and child: nothing that belongs together, or lies too near, on both sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitorch_unet.cli.options import WAYS as OPTIONS
from minitorch_unet.data import Dataset, folds, split_dataset
from minitorch_unet.data.entries import Entry
from minitorch_unet.data.labels import LabelRule
from minitorch_unet.data.splits import WAYS


def made(groups=None, series=None, count=None) -> Dataset:
    """A data set of which nothing is ever read."""
    count = count or len(groups or series)
    entries = [
        Entry(str(i), "", "", lambda: np.zeros((2, 2)), lambda: np.zeros((2, 2), int),
              groups[i] if groups else None, series[i] if series else None)
        for i in range(count)
    ]  # fmt: skip
    return Dataset(entries, LabelRule("binary", 1, 2, (0, 1)), 1, "made")


def indices(part: Dataset) -> list[int]:
    return [int(name) for name in part.names]


grouped = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", None]), min_size=8, max_size=40)
runs = st.lists(st.integers(1, 12), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) >= 8)


def units(dataset: Dataset, by: str) -> int:
    names = dataset.groups
    if by == "group" and all(name is None for name in names):
        return len(set(dataset.series))
    return len(set(names) - {None}) + names.count(None)


@given(grouped, st.integers(2, 6), st.sampled_from(["auto", "order", "group", "random"]), st.integers(0, 99))
def test_folds_part_the_samples_and_keep_groups_whole(groups, count, by, seed) -> None:
    dataset = made(groups)
    if by == "group" and set(groups) == {None}:
        with pytest.raises(ValueError, match="neither groups nor several stacks"):
            folds(dataset, count, by, seed)
        return
    if units(dataset, by) < count:
        with pytest.raises(ValueError, match=f"{count} folds need at least as many"):
            folds(dataset, count, by, seed)
        return
    made_folds = folds(dataset, count, by, seed)
    judged = [index for _, part in made_folds for index in indices(part)]
    assert len(made_folds) == count and sorted(judged) == list(range(len(groups))), "each is judged once"
    for training, validation in made_folds:
        assert sorted(indices(training) + indices(validation)) == list(range(len(groups)))
        assert not (set(training.groups) & set(validation.groups)) - {None}
        assert len(validation) and len(training)
    again = folds(dataset, count, by, seed)
    assert [indices(part) for _, part in again] == [indices(part) for _, part in made_folds]


@given(st.integers(4, 60), st.integers(2, 4), st.sampled_from(["order", "random"]))
def test_folds_of_single_samples_are_equally_large(size, count, by) -> None:
    lengths = [len(validation) for _, validation in folds(made(count=size), count, by)]
    assert max(lengths) - min(lengths) <= 1


@given(runs, st.integers(2, 5), st.integers(0, 3))
def test_folds_in_order_are_contiguous_and_keep_their_distance(sizes, count, gap) -> None:
    series = [f"film {i}" for i, size in enumerate(sizes) for _ in range(size)]
    dataset = made(series=series)
    try:
        made_folds = folds(dataset, count, "order", gap=gap)
    except ValueError as error:
        assert "leaves 0 samples to train on" in str(error)
        return
    for training, validation in made_folds:
        judged = indices(validation)
        assert judged == list(range(judged[0], judged[-1] + 1))
        for i in indices(training):
            for j in judged:
                assert series[i] != series[j] or abs(i - j) > gap
        # And no more is left out than that.
        left_out = set(range(len(series))) - set(judged) - set(indices(training))
        assert all(any(series[i] == series[j] and abs(i - j) <= gap for j in judged) for i in left_out)


@given(runs, st.integers(0, 99))
def test_whole_films_are_groups_where_there_are_no_others(sizes, seed) -> None:
    series = [f"film {i}" for i, size in enumerate(sizes) for _ in range(size)]
    dataset = made(series=series)
    if len(sizes) < 2:
        with pytest.raises(ValueError, match="neither groups nor several stacks"):
            split_dataset(dataset, "1/2", "group", seed)
        return
    for training, validation in folds(dataset, 2, "group", seed):
        assert not set(training.series) & set(validation.series)


@settings(max_examples=50)
@given(grouped, st.floats(0.05, 0.6), st.sampled_from(WAYS), st.integers(0, 99))
def test_a_fraction_leaves_nothing_on_both_sides(groups, fraction, by, seed) -> None:
    dataset = made(groups)
    try:
        training, validation = split_dataset(dataset, fraction, by, seed)
    except ValueError as error:
        assert "neither groups" in str(error) or "leaves 0 samples" in str(error)
        return
    assert sorted(indices(training) + indices(validation)) == list(range(len(groups)))
    assert not (set(training.groups) & set(validation.groups)) - {None}
    assert len(validation) >= max(1, int(fraction * len(groups)))
    assert indices(split_dataset(dataset, fraction, by, seed)[1]) == indices(validation)


def test_seeds_matter_where_something_is_drawn_and_only_there() -> None:
    dataset = made(count=30)
    drawn = {tuple(indices(split_dataset(dataset, "20%", "random", seed)[1])) for seed in range(8)}
    assert len(drawn) == 8 and {len(part) for part in drawn} == {6}
    assert indices(split_dataset(dataset, "20%", "order", 5)[1]) == list(range(24, 30))
    children = made([f"child {i // 2}" for i in range(20)])
    drawn = {tuple(indices(split_dataset(children, "1/5", seed=seed)[1])) for seed in range(8)}
    assert len(drawn) > 5 and {len(part) for part in drawn} == {4}
    # With another seed it is another fold, but still a partition: 2/5 never holds what 1/5 does.
    for seed in range(5):
        one, two = (indices(split_dataset(children, f"{i}/5", seed=seed)[1]) for i in (1, 2))
        assert not set(one) & set(two)


def test_folds_on_the_command_line_are_those_of_folds() -> None:
    dataset = made(count=10)
    for number, (training, validation) in enumerate(folds(dataset, 3), start=1):
        found = split_dataset(dataset, f" {number}/3 ")
        assert [indices(part) for part in found] == [indices(training), indices(validation)]
    assert indices(split_dataset(dataset, "2/3")[1]) == [3, 4, 5, 6]


def test_a_gap_at_a_listed_part() -> None:
    training, validation = split_dataset(made(count=10), "4-5", gap=2)
    assert indices(validation) == [4, 5] and indices(training) == [0, 1, 8, 9]
    two = made(series=["a"] * 5 + ["b"] * 5)
    training, _ = split_dataset(two, "5-6", gap=2)
    assert indices(training) == [0, 1, 2, 3, 4, 9], "another film has no neighbours here"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"validation": "0/5"}, "folds are numbered from 1 to 5"),
        ({"validation": "6/5"}, "folds are numbered from 1 to 5"),
        ({"validation": "1/1"}, "count is 1, it must be at least 2"),
        ({"validation": "1/11"}, "made has 10 samples, 11 folds need at least as many"),
        ({"validation": "20%", "by": "chance"}, "by is 'chance', legal are auto, order, group, random"),
        ({"validation": "20%", "gap": -1}, "gap is -1"),
        ({"validation": "20%", "gap": 10}, "leaves 0 samples to train on and 2 to validate on, of 10"),
    ],
)
def test_refusals(how, words) -> None:
    with pytest.raises(ValueError, match=words):
        split_dataset(made(count=10), **how)


def test_a_subset_knows_its_groups_and_series() -> None:
    part = made(["a", "b", None], ["x", "x", "y"]).subset([2, 0])
    assert part.groups == [None, "a"] and part.series == ["y", "x"]


def test_the_command_line_offers_all_ways() -> None:
    assert OPTIONS == WAYS
