"""Options that several commands share, and how they are told to the rest of the package."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..config import TrainConfig

LAYOUTS = ("pairs", "flat", "stack", "chase", "ctc", "ctc-gt", "ctc-st", "drive", "dsb")
LABELS = ("binary", "indices", "instances", "colours")
WAYS = ("auto", "order", "group", "random")

# The options that say how --data is to be opened and how it is split, with their defaults; a checkpoint keeps them.
OPENING = {
    "layout": "auto", "labels": "auto", "foreground": None, "channels": None, "colours": None, "ignore_border": None,
    "surroundings": "ignored",
}  # fmt: skip
SPLITTING = {"validation": "20%", "split": "auto", "split_seed": 0, "gap": 0}
SOURCE: dict[str, Any] = OPENING | SPLITTING

AUGMENTATION = (
    "flips", "rotations", "elastic", "elastic_grid", "shift", "angle", "zoom", "grey", "blur", "noise",
)  # fmt: skip

Command = Callable[..., argparse.ArgumentParser]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wide enough that an option and its text share a line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def path_option(parser: Any, name: str, metavar: str, text: str, **how: Any) -> None:
    """An option or argument that is a path."""
    parser.add_argument(name, type=Path, metavar=metavar, help=text, **how)


def whole(least: int) -> Callable[[str], int]:
    """A type of whole numbers of at least `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, found {value}")
        return value

    number.__name__ = "whole number"
    return number


def data_options(parser: argparse.ArgumentParser, required: bool | None) -> None:
    """How a data set is opened; with `required` None without --data itself."""
    group = parser.add_argument_group("data")
    if required is not None:
        path_option(group, "--data", "FOLDER", "images and labels, e.g. in image/ and label/", required=required)
    group.add_argument(
        "--layout", default=OPENING["layout"], choices=("auto", *LAYOUTS), metavar="NAME",
        help=f"how the folder is arranged: {', '.join(LAYOUTS)} (default: auto)",
    )  # fmt: skip
    group.add_argument(
        "--labels", default=OPENING["labels"], choices=("auto", *LABELS), metavar="KIND",
        help=f"what label values mean: {', '.join(LABELS)} (default: auto, which is said before anything is computed)",
    )  # fmt: skip
    group.add_argument(
        "--foreground", type=int, metavar="N", help="the label value that is class 1, all others being class 0"
    )
    group.add_argument(
        "--colours", metavar="TABLE",
        help="what colours of labels mean: 'NAME=#RRGGBB,...' or a file with a class on each line; 'ignore' is none",
    )  # fmt: skip
    group.add_argument("--channels", type=int, choices=(1, 3), help="make images grey or colour (default: as they are)")
    group.add_argument(
        "--ignore-border", type=whole(0), metavar="N",
        help="instances: ignore unlabelled pixels this close to the border (default: 50 for ctc, else 0)",
    )  # fmt: skip
    group.add_argument(
        "--surroundings", choices=("ignored", "background"), default=OPENING["surroundings"],
        help="what lies outside a camera's field of view; background teaches a network not to take its rim for a "
        "vessel (default: ignored)",
    )  # fmt: skip


def split_options(parser: argparse.ArgumentParser) -> None:
    """Which part of the data is kept for judging."""
    group = parser.add_argument_group("split")
    group.add_argument(
        "--validation", default=SPLITTING["validation"], metavar="PART",
        help="kept for judging: '20%%' (the last), '2/5' (the second of five folds), '20-23' (pair numbers from 0) or "
        "names with commas (default: 20%%)",
    )  # fmt: skip
    group.add_argument(
        "--split", default=SPLITTING["split"], choices=WAYS,
        help="take it in order (by depth, by time), by whole groups (a child's eyes; a film) or at random; auto keeps "
        "groups whole and else goes in order (default: auto)",
    )  # fmt: skip
    group.add_argument("--split-seed", type=whole(0), default=0, metavar="N", help="start of its random numbers")
    group.add_argument(
        "--gap", type=whole(0), default=0, metavar="N",
        help="leave out this many neighbours of each validation image in its stack or film (default: 0)",
    )  # fmt: skip


def source_of(options: argparse.Namespace) -> dict[str, Any]:
    """The values of SOURCE among the options; a table of colours as text, so that its file is not needed again."""
    if options.colours is not None:
        from ..data.colours import as_text, read_colours

        options.colours = as_text(read_colours(options.colours))
    return {name: getattr(options, name) for name in SOURCE if hasattr(options, name)}


def opening(source: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `open_dataset` besides the path; what a source does not know is the default."""
    return {name: source.get(name, default) for name, default in OPENING.items()}


def splitting(source: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `split_dataset` besides the data set."""
    known = {name: source.get(name, default) for name, default in SPLITTING.items()}
    return {"validation": known["validation"], "by": known["split"], "seed": known["split_seed"], "gap": known["gap"]}


def parts_of(paths: list[Path]) -> list[Path]:
    """The data sets meant: the paths, or what a single path holds if it is a folder of data sets."""
    from ..data.layouts import datasets_inside, holds_entries

    if len(paths) != 1 or not paths[0].is_dir() or holds_entries(paths[0]):
        return paths
    return datasets_inside(paths[0]) or paths


def setting_option(group: Any, field: dataclasses.Field[Any], default: Any = None) -> None:
    """The option of a field of TrainConfig; `default` is shown in the place of the field's own."""
    name, kind = "--" + field.name.replace("_", "-"), type(field.default)
    shown = field.default if default is None else default
    text = f"{field.metadata['help']} (default: {str(shown).lower() if kind is bool else shown})"
    how: dict[str, Any] = {"dest": field.name, "default": None, "help": text.replace("%", "%%")}
    if kind is bool:
        group.add_argument(name, action=argparse.BooleanOptionalAction, **how)
    else:
        metavar = {int: "N", float: "X"}.get(kind)
        if field.metadata["bare"] is not None:
            how |= {"nargs": "?", "const": field.metadata["bare"]}
        group.add_argument(name, type=kind, choices=field.metadata["choices"] or None, metavar=metavar, **how)


def setting_fields(*names: str) -> list[dataclasses.Field[Any]]:
    """The fields of TrainConfig of these names."""
    return [field for field in dataclasses.fields(TrainConfig) if field.name in names]


def machine_options(parser: argparse.ArgumentParser) -> None:
    """Threads, progress and device."""
    parser.add_argument("--threads", type=whole(1), metavar="N", help="processor threads (default: all cores at hand)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--device", default="cpu", metavar="DEVICE",
        help="cpu; cuda or cuda:N, a GPU; auto, a GPU if there is one; simulate, a GPU's kernels on the processor, "
        "slowly (default: cpu)",
    )  # fmt: skip
