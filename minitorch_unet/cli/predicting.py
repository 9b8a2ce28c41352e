"""The commands that apply a network: `predict` and `evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..backend import describe_device
from .options import Command, data_options, machine_options, opening, path_option, source_of, whole
from .progress import Progress
from .tiles import doubt, tile_options, tiling_of


def add_predicting(command: Command) -> None:
    """Add both commands to the parser."""
    predict = command(
        "predict", run_predict, "segment images of any size, tile by tile",
        "minitorch-unet predict CHECKPOINT IMAGES... [--output FOLDER] [--instances FOLDER] [options]",
    )  # fmt: skip
    predict.add_argument("checkpoint", type=Path, help="checkpoint file or run folder (then its best)")
    predict.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    path_option(
        predict, "--output", "FOLDER", "for NAME_label and NAME_probability (default: predictions)",
        default=Path("predictions"),
    )  # fmt: skip
    predict.add_argument(
        "--format", choices=("png", "tif", "npy"), help="of the pictures (default: png, and tif for those in strips)"
    )
    path_option(predict, "--instances", "FOLDER", "also write each object's number: mask000.tif ..., 16 bits")
    tile_options(predict)
    object_options(predict)
    machine_options(predict)

    evaluate = command(
        "evaluate", run_evaluate, "compare predictions with labels by the scores that fit the data",
        "minitorch-unet evaluate CHECKPOINT --data FOLDER [--only PART] [--scores NAMES] [--json FILE] [options]",
    )  # fmt: skip
    evaluate.add_argument("checkpoint", type=Path, help="checkpoint file or run folder (then its best)")
    data_options(evaluate, required=True)
    evaluate.add_argument("--only", metavar="PART", help="judge only these pairs, e.g. '20-23' (default: all)")
    evaluate.add_argument(
        "--scores", default="auto", metavar="NAMES",
        help="besides Dice and IoU: membranes, instances, vessels, surface (with commas), overlap for none (default: "
        "auto, which looks at the labels)",
    )  # fmt: skip
    path_option(evaluate, "--field-of-view", "FOLDER", "where vessels are judged: masks NAME, NAME_mask or NAME_fov")
    tile_options(evaluate, memory=False)
    object_options(evaluate)
    path_option(evaluate, "--json", "FILE", "also write the scores to this file")
    path_option(evaluate, "--panel", "FILE", "also draw image, label, prediction and errors to this PNG")
    machine_options(evaluate)


def object_options(parser: argparse.ArgumentParser) -> None:
    """How probabilities become objects."""
    from ..instances import SPLITS

    group = parser.add_argument_group("objects", "How the map of probabilities becomes objects.")
    group.add_argument("--threshold", type=float, default=0.5, metavar="P", help="inside is above it (default: 0.5)")
    group.add_argument(
        "--split", choices=SPLITS, default="components", help="what parts objects that touch (default: components)"
    )
    group.add_argument("--depth", type=float, metavar="X", help="least depth of a part (default: 1 pixel, or 0.1)")
    group.add_argument("--min-area", type=whole(0), default=0, metavar="N", help="of an object (default: 0 pixels)")
    group.add_argument(
        "--seam", type=whole(0), default=2, metavar="N",
        help="join objects across this many pixels of border; training parts them by 2 (default: 2)",
    )  # fmt: skip
    group.add_argument("--grow", type=whole(0), default=0, metavar="N", help="widen objects (default: 0 pixels)")
    group.add_argument("--keep-holes", action="store_true", help="leave holes open")
    group.add_argument("--clear-border", action="store_true", help="drop objects that the image's border cuts")


def objects_of(options: argparse.Namespace) -> dict[str, Any]:
    """Those options as arguments of `label_objects`."""
    names = ("threshold", "split", "depth", "min_area", "clear_border", "seam", "grow")
    return {name: getattr(options, name) for name in names} | {"fill_holes": not options.keep_holes}


def run_predict(options: argparse.Namespace) -> int:
    """`minitorch-unet predict`."""
    from ..predict import find_images, load_network, predict_files

    how, memory = tiling_of(options)
    network, _ = load_network(options.checkpoint, options.device)
    if options.device != "cpu":  # on the error output: the standard output lists the pictures
        print(f"device: {describe_device(options.device)}", file=sys.stderr)
    if remark := doubt(network, how):
        print(remark, file=sys.stderr)
    try:
        with Progress(options.quiet) as progress:
            for path in predict_files(
                network, find_images(options.images), options.output, options.format and f".{options.format}",
                progress.count, options.instances, objects_of(options), how, memory,
            ):  # fmt: skip
                progress.write(str(path))
    except KeyboardInterrupt:
        if any(options.output.glob(".*.unfinished")):
            print("the same command goes on within this image; images before it are made again", file=sys.stderr)
        raise
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """`minitorch-unet evaluate`."""
    from ..data import open_dataset, select
    from ..evaluate import evaluate, format_scores
    from ..files import atomic_write
    from ..plots import matplotlib_missing, panel
    from ..predict import load_network, predict_probabilities
    from ..score_choice import choose_families

    if options.panel and (missing := matplotlib_missing()):
        raise ValueError(missing)
    tiling, _ = tiling_of(options)
    network, metadata = load_network(options.checkpoint, options.device)
    if remark := doubt(network, tiling):
        print(remark, file=sys.stderr)
    how = opening(source_of(options))
    if how["labels"] == "auto" and how["foreground"] is None and how["colours"] is None:
        # Then they mean what they meant in training.
        trained_on = opening(metadata.get("source", {}))
        how |= {name: trained_on[name] for name in ("labels", "foreground", "colours")}
    how["channels"] = how["channels"] or network.config["in_channels"]
    dataset = open_dataset(options.data, **how)
    if options.only:
        dataset = select(dataset, options.only)
    families, remarks = choose_families(options.scores, dataset, objects_of(options), options.field_of_view)
    with Progress(options.quiet) as progress:
        scores = evaluate(network, dataset, progress.count, families, tiling)
    print("\n".join([f"device: {describe_device(options.device)}", *dataset.describe(), *remarks]))
    print(f"judged: {dataset.names[0]} to {dataset.names[-1]}")
    print(format_scores(scores))
    for family in families:
        print("\n".join(["", *family.lines()]))
    if options.json:
        atomic_write(options.json, (json.dumps(scores, indent=1) + "\n").encode())
    if options.panel:
        samples = [dataset[i] for i in range(min(4, len(dataset)))]
        panel(samples, [predict_probabilities(network, s.image, how=tiling) for s in samples], options.panel)
    return 0
