"""Parts for training and validation, and folds: nothing that looks alike on both sides.

Neighbouring slices of a stack and frames of a film are near-duplicates, both eyes of a child look alike: a score on
images that resemble those trained on says little. So nothing is split at random unless that is asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable

import numpy as np

from minitorch_unet.data.dataset import Dataset

WAYS = ("auto", "order", "group", "random")


def split_dataset(
    dataset: Dataset, validation: str | float, by: str = "auto", seed: int = 0, gap: int = 0
) -> tuple[Dataset, Dataset]:
    """Split into (training, validation).

    validation  a fraction (0.2, "0.2" or "20%"), a fold ("2/5": the second of five, see `folds`), or a comma-separated
                list: an index or an inclusive range of indices in natural order ("20-23"), or a name ("t054")
    by          how a fraction or a fold is taken:
                "order"   contiguous pieces in natural order of names (by depth, by time); a fraction is the last piece
                "group"   whole groups (the eyes of a child; where there are none: whole stacks or films), drawn by seed
                "random"  single images drawn by seed, groups kept whole: for images that have nothing to do with
                          each other
                "auto"    a fraction: "order", groups kept whole; a fold: "group" if there are groups, else "order"
    gap         so many neighbours of a validation image in its series (or, without series, in the order of names)
                are left out of the training part

    Raises `ValueError` where a part would be empty, an item is unknown, or a group would stand on both sides.
    """
    fold = re.fullmatch(r"\s*([0-9]+)/([0-9]+)\s*", validation) if isinstance(validation, str) else None
    _check(by, gap)
    if fold:
        number, count = int(fold[1]), int(fold[2])
        if not 1 <= number <= count:
            raise ValueError(f"split_dataset: validation={validation!r}, folds are numbered from 1 to {count}")
        return folds(dataset, count, by, seed, gap)[number - 1]
    fraction = _fraction(validation)
    if fraction is None:
        chosen = _listed(dataset, str(validation))
    elif by in ("auto", "order"):
        chosen = _first_units(reversed(_units(dataset, "kept")), fraction, len(dataset))
    else:
        units = _units(dataset, by)
        order = np.random.default_rng([seed, 3]).permutation(len(units))
        chosen = _first_units((units[i] for i in order), fraction, len(dataset))
    return _parts(dataset, chosen, gap, f"validation={validation!r}")


def folds(
    dataset: Dataset, count: int, by: str = "auto", seed: int = 0, gap: int = 0
) -> list[tuple[Dataset, Dataset]]:
    """`count` pairs (training, validation); every sample is in exactly one validation part. See `split_dataset`.

    "order" cuts the natural order into pieces of equal length (to within one sample, or one group). The others draw
    by `seed` and deal the largest groups first, each to the fold that has least.
    """
    _check(by, gap)
    if count < 2:
        raise ValueError(f"folds: count is {count}, it must be at least 2")
    if by == "auto":
        by = "group" if any(group is not None for group in dataset.groups) else "order"
    units = _units(dataset, "kept" if by == "order" else by)
    if len(units) < count:
        what = "samples" if len(units) == len(dataset) else "groups"
        raise ValueError(f"folds: {dataset.source} has {len(units)} {what}, {count} folds need at least as many")
    parts: list[list[int]] = [[] for _ in range(count)]
    if by == "order":
        part = before = 0
        for position, unit in enumerate(units):
            # The next piece begins where the middle of this unit lies beyond the present piece's end, and at the latest
            # where no more units are left than pieces without any.
            beyond = before + len(unit) / 2 > (part + 1) * len(dataset) / count
            if parts[part] and part < count - 1 and (beyond or len(units) - position < count - part):
                part += 1
            parts[part] += unit
            before += len(unit)
    else:
        order = np.random.default_rng([seed, 4]).permutation(len(units))
        for i in sorted(order, key=lambda i: -len(units[i])):
            min(parts, key=len).extend(units[i])
    return [_parts(dataset, set(part), gap, f"fold {i + 1} of {count}") for i, part in enumerate(parts)]


def select(dataset: Dataset, items: str) -> Dataset:
    """The samples listed by index, range of indices ("20-23") or name, with commas, in natural order.

    Raises `ValueError` for an unknown item or an empty list.
    """
    chosen = _listed(dataset, items)
    if not chosen:
        raise ValueError(f"select: {items!r} names no sample")
    return dataset.subset(sorted(chosen))


def _check(by: str, gap: int) -> None:
    if by not in WAYS:
        raise ValueError(f"split_dataset: by is {by!r}, legal are {', '.join(WAYS)}")
    if gap < 0:
        raise ValueError(f"split_dataset: gap is {gap}, it must not be negative")


def _units(dataset: Dataset, by: str) -> list[list[int]]:
    """Indices that stay together, in order of their first; "kept" and "random": groups, single samples without one."""
    if by == "group" and all(group is None for group in dataset.groups):
        series = dataset.series
        if len(set(series)) < 2 or None in series:
            raise ValueError(
                f"split_dataset: {dataset.source} has neither groups nor several stacks or films; legal is by='order'"
                " or 'random'"
            )
        names: list[str | None] = series
    else:
        names = dataset.groups
    units: dict[Hashable, list[int]] = {}
    for index, name in enumerate(names):
        units.setdefault((index,) if name is None else name, []).append(index)
    return list(units.values())


def _first_units(units: Iterable[list[int]], fraction: float, count: int) -> set[int]:
    """Whole units, one after another, until they make up `fraction` of `count`, rounded, and at least one."""
    wanted = max(1, math.floor(fraction * count + 0.5))
    chosen: set[int] = set()
    for members in units:
        if len(chosen) >= wanted:
            break
        chosen.update(members)
    return chosen


def _parts(dataset: Dataset, chosen: set[int], gap: int, what: str) -> tuple[Dataset, Dataset]:
    """(training, validation) of the chosen indices, less the neighbours of validation images."""
    series, groups = dataset.series, dataset.groups
    rest = [index for index in range(len(dataset)) if index not in chosen]
    torn = {groups[i] for i in rest} & {groups[i] for i in chosen} - {None}
    if torn:
        raise ValueError(f"split_dataset: group {min(map(str, torn))} would stand on both sides of {what}")
    near = {
        index + offset
        for index in chosen
        for offset in range(-gap, gap + 1)
        if 0 <= index + offset < len(dataset) and series[index] == series[index + offset]
    }
    rest = [index for index in rest if index not in near]
    if not rest or not chosen:
        raise ValueError(
            f"split_dataset: {what} leaves {len(rest)} samples to train on and {len(chosen)} to validate on, of "
            f"{len(dataset)}"
        )
    return dataset.subset(rest), dataset.subset(sorted(chosen))


def _fraction(validation: str | float) -> float | None:
    """0.2, "0.2" and "20%" as 0.2; None for a list of samples."""
    text = str(validation).strip()
    if not re.fullmatch(r"[0-9.]+%|[0-9]*\.[0-9]+(e-[0-9]+)?", text) and isinstance(validation, str):
        return None
    try:
        fraction = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise ValueError(f"split_dataset: validation={validation!r} is no fraction between 0 and 1")
    return fraction


def _listed(dataset: Dataset, text: str) -> set[int]:
    names = {name: index for index, name in enumerate(dataset.names)}
    chosen: set[int] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        indices = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
        if (
            indices
            and int(indices[2] or indices[1]) < len(dataset)
            and int(indices[1]) <= int(indices[2] or indices[1])
        ):
            chosen.update(range(int(indices[1]), int(indices[2] or indices[1]) + 1))
        elif item in names:
            chosen.add(names[item])
        else:
            raise ValueError(
                f"{dataset.source}: {item!r} is neither a name nor a range of indices 0-{len(dataset) - 1}"
            )
    return chosen
