"""The commands that look at data before anything is trained: data, weights, augment."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import config_from
from .options import (
    AUGMENTATION,
    Command,
    data_options,
    opening,
    parts_of,
    path_option,
    setting_fields,
    setting_option,
    source_of,
    split_options,
    splitting,
    whole,
)

if TYPE_CHECKING:
    from ..data import Dataset
    from ..data.suspicion import Finding

# What `augment` shows unless it is told otherwise: the paper's deformation, and nothing that hides it.
SHOWN: dict[str, Any] = {"elastic": 10.0, "flips": False, "rotations": False, "grey": 0.0}
BAR = 40  # characters of a full bar of the histogram


def add_data_commands(command: Command) -> None:
    """Add the parsers of these commands; `command` is what build_parser adds commands with."""
    data = command("data", run_data, "look through images and labels: what they are, what is suspicious")
    data.add_argument("paths", type=Path, nargs="+", metavar="FOLDER", help="data sets, or a folder of them (parts)")
    data_options(data, required=None)
    split_options(data)
    data.add_argument("--depth", type=whole(1), default=4, metavar="N", help="poolings, for legal sizes (default: 4)")
    data.add_argument(
        "--padding", choices=("valid", "same"), default="valid", help="of the network, for legal sizes (default: valid)"
    )

    weights = command("weights", run_weights, "draw the loss weights of labels: w, d1, d2 and the gradient they make")
    _labels_argument(weights)
    _picture_option(weights, "weights.png")
    weights.add_argument(
        "--formula", choices=("paper", "gaps", "later"), default="paper",
        help="equation 2, its gaps without class shares, or that of the authors' later plugin (default: paper)",
    )  # fmt: skip
    for field in setting_fields("border_weight", "border_sigma"):
        setting_option(weights, field)
    weights.add_argument(
        "--blur", type=float, default=3.0, metavar="X",
        help="the gradient is taken at the scores of a prediction blurred by this many pixels (default: 3)",
    )  # fmt: skip

    augment = command("augment", run_augment, "draw what augmentation makes of an image and its labels")
    _labels_argument(augment)
    path_option(augment, "--image", "FILE", "the image of these labels (default: the label itself)")
    _picture_option(augment, "augmentation.png")
    augment.add_argument("--count", type=whole(1), default=4, metavar="N", help="how many draws (default: 4)")
    augment.add_argument("--seed", type=whole(0), default=0, metavar="N", help="start of the numbers (default: 0)")
    for field in setting_fields(*AUGMENTATION):
        setting_option(augment, field, SHOWN.get(field.name))


def _labels_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "labels", type=Path, nargs="?", metavar="LABELS",
        help="an image of object numbers, or of two values (default: built-in touching cells)",
    )  # fmt: skip


def _picture_option(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("-o", "--output", type=Path, default=Path(name), metavar="PNG", help=f"(default: {name})")


def run_data(options: argparse.Namespace) -> int:
    """`minitorch-unet data`."""
    from ..data.check import describe, examine_all, warn_of_duplicates

    source, paths = source_of(options), parts_of(options.paths)
    parts: dict[str, list[Finding]] = {}
    errors: list[str] = []
    warnings = []
    for path in paths:
        dataset = _open(path, source)
        findings = examine_all(dataset, errors=errors)
        parts[str(path)] = findings
        lines = describe(dataset, findings)
        found = [line for line in lines if line.startswith("warning:")]
        said = [line for line in lines if line not in found]
        print("\n".join([*said, *_histogram(dataset, findings), *_sizes(findings, options), *found]))
        warnings += found
        if len(paths) == 1 and not errors:
            parts = _split(dataset, findings, source)
        print()
    duplicates = warn_of_duplicates(parts)
    told = [*duplicates, *(f"error: {error}" for error in errors)]
    print("\n".join([*told, f"{len(errors)} errors, {len(warnings) + len(duplicates)} warnings"]))
    return 1 if errors else 0


def _open(path: Path, source: dict[str, Any]) -> Dataset:
    from ..data import open_dataset

    return open_dataset(path, **opening(source))


def _split(dataset: Dataset, findings: list[Finding], source: dict[str, Any]) -> dict[str, list[Finding]]:
    """Say how the data set would be split; return the findings of both parts, none where it cannot be split."""
    from ..data import split_dataset

    try:
        training, validation = split_dataset(dataset, **splitting(source))
    except ValueError as error:
        print(f"split: {error}")
        return {}
    names = validation.names
    listed = ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, ..., {names[-1]}"
    print(f"split: {len(training)} to train on, {len(validation)} to judge: {listed}")
    by_name = {finding.name: finding for finding in findings}
    return {
        name: [by_name[each] for each in part.names]
        for name, part in (("training", training), ("validation", validation))
    }


def _histogram(dataset: Dataset, findings: list[Finding]) -> list[str]:
    """A bar for each class: its share of all pixels that count, and its least and greatest share in an image."""
    if not findings:
        return []
    counts = np.array([finding.counts for finding in findings], float)
    shares = 100 * counts.sum(0) / max(1, counts.sum())
    each = 100 * counts / np.maximum(1, counts.sum(1, keepdims=True))
    names = dataset.rule.class_names()
    width = max(map(len, names))
    return [
        f"  {name:{width}} {share:6.2f} % {'#' * round(BAR * share / 100):{BAR}} {low:.2f} to {high:.2f} % of an image"
        for name, share, low, high in zip(names, shares, each.min(0), each.max(0), strict=True)
    ]


def _sizes(findings: list[Finding], options: argparse.Namespace) -> list[str]:
    """Legal sizes near that of the smallest image."""
    from ..batches import DEFAULT_TILE
    from ..unet import UNetSizes

    if not findings:
        return []
    sizes = UNetSizes(options.depth, options.padding)
    side = min(min(finding.size) for finding in findings)

    def told(inputs: list[int]) -> str:
        return ", ".join(f"{n} predicts {sizes.output_size(n)}" for n in dict.fromkeys(inputs))

    above = sizes.input_size(side)
    fitting = sizes.nearest_legal(above - 1)[0]
    tile = sizes.input_size(min(DEFAULT_TILE, side))
    if sizes.output_size(tile) > min(DEFAULT_TILE, side):
        tile = sizes.nearest_legal(tile - 1)[0]
    return [
        f"legal inputs of about {side} pixels, the smallest side: {told(sizes.nearest_legal(side))}; to predict about "
        f"{side}: {told([fitting, above])}",
        f"tiles of a training: {told([tile])} (--tile {sizes.output_size(tile)})",
    ]


def _cells() -> tuple[np.ndarray, np.ndarray]:
    """A built-in picture (1, H, W) float32 of touching cells and their numbers (H, W)."""
    from ..data import SyntheticCells

    sample = SyntheticCells(1, 256)[0]
    assert sample.instances is not None
    return sample.image, sample.instances


def _read_instances(path: Path) -> np.ndarray:
    """Object numbers of a file; where it holds two values only, the connected parts of the larger one."""
    from ..data import connected_components
    from ..data.entries import read_label

    label = read_label(path)
    values = np.unique(label)
    return connected_components(label, int(values[-1])) if len(values) <= 2 and values[-1] else label


def run_weights(options: argparse.Namespace) -> int:
    """`minitorch-unet weights`."""
    from ..data import border_distances, later_weight_map, separate_touching, weight_map
    from ..plots import matplotlib_missing, weight_panel

    if missing := matplotlib_missing():
        raise ValueError(missing)
    instances = _cells()[1] if options.labels is None else _read_instances(options.labels)
    given = {name: getattr(options, name) for name in ("border_weight", "border_sigma")}
    config = config_from({name: value for name, value in given.items() if value is not None})
    label = separate_touching(instances)
    if options.formula == "later":
        weights = later_weight_map(instances, label)
    else:
        counts = np.bincount(label.ravel(), minlength=2)
        balance = np.minimum(10, label.size / (2 * np.maximum(1, counts)))
        shares = balance.tolist() if options.formula == "paper" else None
        weights = weight_map(instances, config.border_weight, config.border_sigma, shares, label, background_only=True)
    nearest, second = border_distances(instances)
    weight_panel(label, weights, nearest, second, _gradient(label, weights, options.blur), options.output)
    background, gaps = weights[label == 0], weights[(label == 0) & (nearest + second < 6)]
    highest = f", up to {gaps.max():.2f} between objects" if gaps.size else ""
    if background.size:
        print(f"weights of the background {background.min():.2f} to {np.median(background):.2f} (median){highest}")
    print(f"look at {options.output}")
    return 0


def _gradient(label: np.ndarray, weights: np.ndarray, blur: float) -> np.ndarray:
    """dE/dscore (H, W) of the foreground, by the engine, at scores that a blurred view of the label would give."""
    from scipy import ndimage

    from .. import functional as F
    from ..tensor import Tensor

    seen = np.clip(ndimage.gaussian_filter((label == 1).astype(np.float64), blur), 0.01, 0.99)
    log_odds = np.log(seen / (1 - seen))
    scores = Tensor(np.stack([np.zeros_like(log_odds), log_odds])[None], requires_grad=True)
    F.cross_entropy(scores, label[None], pixel_weight=weights[None].astype(np.float64), reduction="sum").backward()
    assert scores.grad is not None
    gradient: np.ndarray = scores.grad.numpy()[0, 1]
    return gradient


def run_augment(options: argparse.Namespace) -> int:
    """`minitorch-unet augment`."""
    from ..data import augment, normalise, read_image
    from ..data.dataset import to_channels
    from ..plots import augmentation_panel, matplotlib_missing

    if missing := matplotlib_missing():
        raise ValueError(missing)
    if options.labels is None:
        if options.image is not None:
            raise ValueError("--image needs the LABELS that belong to it")
        image, instances = _cells()
    else:
        instances = _read_instances(options.labels)
        raw = (instances > 0).astype(np.uint8) if options.image is None else read_image(options.image)
        image = normalise(to_channels(raw, 1 if raw.ndim == 2 else raw.shape[2], str(options.image)))
    given = {name: getattr(options, name) for name in AUGMENTATION}
    config = config_from(SHOWN | {name: value for name, value in given.items() if value is not None})
    how = {name: getattr(config, name) for name in AUGMENTATION if name != "elastic_grid"}
    # A picture of lines goes along as a map: it shows the field itself.
    lines = np.zeros(instances.shape, np.uint8)
    for offset in (0, 1):  # two pixels wide, so that none tears
        lines[offset::16], lines[:, offset::16] = 1, 1
    drawn = [(image, instances, lines)]
    for number in range(options.count):
        rng = np.random.default_rng([options.seed, number])
        drawn.append(augment(rng, image, instances, lines, grid=config.elastic_grid, **how))
    augmentation_panel(drawn, options.output)
    print(f"look at {options.output}")
    return 0
