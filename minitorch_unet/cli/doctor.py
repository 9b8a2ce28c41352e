"""The command doctor: what is wrong with data, a run or predictions, and what to do about it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .options import Command, data_options, opening, parts_of, source_of, split_options, splitting, whole


def add_doctor(command: Command) -> None:
    """Add the parser; `command` is what build_parser adds commands with."""
    doctor = command(
        "doctor", run_doctor, "explain what is wrong with data, a run or predictions, and what to do",
        "minitorch-unet doctor [RUN] [--data FOLDER ...] [--predictions PATH ...] [options]",
    )  # fmt: skip
    doctor.add_argument("run_folder", type=Path, nargs="?", metavar="RUN", help="a run's folder, or a checkpoint file")
    doctor.add_argument(
        "--data", type=Path, action="append", default=[], metavar="FOLDER",
        help="images and labels; may be repeated, for parts, or a folder of parts (default: what RUN was trained on)",
    )  # fmt: skip
    doctor.add_argument(
        "--predictions", type=Path, action="append", default=[], metavar="PATH",
        help="pictures or NPY files that a network made, or a folder of them; may be repeated",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--depth", type=whole(1), default=4, metavar="N", help="poolings, without RUN (default: 4)")
    doctor.add_argument(
        "--padding", choices=("valid", "same"), default="valid", help="of convolutions, without RUN (default: valid)"
    )
    doctor.add_argument(
        "--whole-images", action="store_true", help="images are fed whole to the network: are all sizes legal?"
    )
    data_options(doctor, required=None)
    split_options(doctor)


def run_doctor(options: argparse.Namespace) -> int:
    """`minitorch-unet doctor`: 0 if nothing is wrong, 1 if something is."""
    from ..doctor import examine
    from ..unet import UNetSizes

    source = source_of(options)
    report = examine(
        parts_of(options.data), options.run_folder, options.predictions, opening(source), splitting(source),
        UNetSizes(options.depth, options.padding), options.whole_images,
    )  # fmt: skip
    print(json.dumps(report.as_json(), indent=1) if options.json else "\n".join(report.lines()))
    return 1 if report.diagnoses else 0
