"""Which families of scores fit a data set, and what they take for granted, in lines for people."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .data import Dataset
from .data.weights import IGNORE
from .scoring import Family, InstanceFamily, MembraneFamily, SurfaceFamily, VesselFamily

FAMILIES = ("membranes", "instances", "vessels", "surface")


def choose_families(
    names: str,
    dataset: Dataset,
    objects: dict[str, Any] | None = None,
    field_of_view: str | os.PathLike[str] | None = None,
) -> tuple[list[Family], list[str]]:
    """The families that `names` asks for and a line about each: "auto", "overlap" (none), or names with commas.

    "auto" looks at the labels. Instance ids: instances. A field of view, from the data or given: vessels. Two
    classes of which the larger one lies in many pieces, none of them the larger part of it: membranes between cells.
    All else: surface. `objects` are the options of `label_objects`. Raises ValueError for an unknown name and where
    a family does not fit the data.
    """
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in asked if name not in (*FAMILIES, "auto", "overlap")]
    if unknown or not asked:
        raise ValueError(f"--scores: {names!r} is unknown, legal are auto, overlap, {', '.join(FAMILIES)} with commas")
    if "auto" in asked:
        asked += [_fitting(dataset, field_of_view is not None)]
    for name in ("membranes", "vessels"):
        if name in asked and dataset.classes != 2:
            raise ValueError(f"--scores: {name} needs labels of two classes, these have {dataset.classes}")
    families: list[Family] = []
    lines = []
    if "membranes" in asked:
        interior = _larger_class(dataset)
        families.append(MembraneFamily(interior))
        lines.append(f"membranes: class {interior}, the larger one, is the interior of cells")
    if "instances" in asked:
        families.append(InstanceFamily(objects or {}))
        known = dataset.rule.kind == "instances"
        source = "the ids of the labels" if known else "the 4-connected pieces of the labels' classes above 0"
        lines.append(f"instances: predicted objects against {source}")
    if "vessels" in asked:
        families.append(VesselFamily(field_of_view))
        where = field_of_view or ("that of the data" if _has_field_of_view(dataset) else "the whole image")
        lines.append(f"vessels: class 1; field of view: {where}")
    if "surface" in asked:
        families.append(SurfaceFamily())
        lines.append("surface: distances in pixels between true and predicted outlines of a class, image by image")
    return families, lines


def _has_field_of_view(dataset: Dataset) -> bool:
    return bool(dataset.entries) and dataset.entries[0].valid is not None


def _fitting(dataset: Dataset, field_of_view_given: bool) -> str:
    """The name of the family that fits the data best."""
    if dataset.rule.kind == "instances":
        return "instances"
    if dataset.classes == 2 and (field_of_view_given or _has_field_of_view(dataset)):
        return "vessels"
    return "membranes" if dataset.classes == 2 and _in_pieces(dataset) else "surface"


def _larger_class(dataset: Dataset) -> int:
    counts = np.zeros(2, np.int64)
    for sample in dataset:
        counts += np.bincount(sample.label[sample.label != IGNORE], minlength=2)
    return int(counts.argmax())


def _in_pieces(dataset: Dataset) -> bool:
    """Whether on average the largest piece of the larger of two classes is less than half of that class."""
    from scipy import ndimage

    larger = _larger_class(dataset)
    shares = []
    for sample in dataset:
        areas = np.bincount(ndimage.label(sample.label == larger)[0].ravel())[1:]
        if areas.size:
            shares.append(areas.max() / areas.sum())
    return bool(shares) and float(np.mean(shares)) < 0.5
