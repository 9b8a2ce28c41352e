"""The command inspect: a trained network on one image, opened up in a page."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import Command, path_option, whole


def add_microscope(command: Command) -> None:
    """Add the parser; `command` is what build_parser adds commands with."""
    inspect = command(
        "inspect", run_inspect, "look inside a trained network: a page with every map, gradient, weight and step",
        "minitorch-unet inspect CHECKPOINT [IMAGE] [--label LABEL] [--pixel ROW,COLUMN] [-o PAGE.html]",
    )  # fmt: skip
    inspect.add_argument("checkpoint", type=Path, help="checkpoint file or run folder (then its best)")
    inspect.add_argument("image", type=Path, nargs="?", help="an image of one page (default: cells are drawn)")
    path_option(inspect, "--label", "LABEL", "its label, for the loss (default: the network's own prediction)")
    inspect.add_argument("--pixel", type=_pixel, metavar="ROW,COLUMN", help="a pixel of the image, worked out in full")
    inspect.add_argument(
        "--size", type=whole(1), metavar="N",
        help="pixels a side of the part that is shown, at most (default: 572, or what is legal below it)",
    )  # fmt: skip
    inspect.add_argument(
        "-o", "--output", type=Path, default=Path("inspect.html"), metavar="PAGE.html",
        help="where to write it (default: inspect.html)",
    )  # fmt: skip
    inspect.add_argument("--threads", type=whole(1), metavar="N", help="processor threads (default: all cores at hand)")


def _pixel(text: str) -> tuple[int, int]:
    row, _, column = text.partition(",")
    if not (row.isdecimal() and column.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be ROW,COLUMN, two whole numbers from 0 on, found {text!r}")
    return int(row), int(column)


def run_inspect(options: argparse.Namespace) -> int:
    """`minitorch-unet inspect`."""
    from ..files import atomic_write
    from ..microscope import LARGEST, examine

    if options.output.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--output is {str(options.output)!r}; a page ends in .html")
    page = examine(options.checkpoint, options.image, options.label, options.pixel, options.size or LARGEST)
    atomic_write(options.output, page.encode())
    print(f"open {options.output} in a browser")
    return 0
