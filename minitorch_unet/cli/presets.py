"""The command presets: networks by name, their parameters, sizes and the shapes of their maps."""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..config import OF_NETWORK, TrainConfig
from ..unet import UNet
from .options import Command, setting_fields, setting_option, whole


def add_presets(command: Command) -> None:
    """Add the parser; `command` is what build_parser adds commands with."""
    presets = command(
        "presets", run_presets, "list the networks of the paper and of tutorials, or show one",
        "minitorch-unet presets [NAME] [--trace-shapes [--every-map]] [--size N] [--base N] [options]",
    )  # fmt: skip
    presets.add_argument("name", nargs="?", metavar="NAME", help="show this one (default: list all)")
    shape_options(presets)
    settings = presets.add_argument_group("network", "As for train; given here they override the preset's.")
    for field in setting_fields(*OF_NETWORK):
        setting_option(settings, field, "the preset's")


def shape_options(parser: argparse.ArgumentParser) -> None:
    """What of the shapes is printed, and for which size."""
    parser.add_argument(
        "--trace-shapes", action="store_true",
        help="print channels x rows x columns after each stage, a line each, and end",
    )  # fmt: skip
    parser.add_argument(
        "--every-map", action="store_true", help="with --trace-shapes: every map with its name, not only a stage's last"
    )
    parser.add_argument("--size", type=whole(1), metavar="N", help="pixels a side of the input (default: as known)")


def check_shape_options(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that only means something beside --trace-shapes."""
    for name, given in (("--every-map", options.every_map), ("--size", options.size)):
        if given and not options.trace_shapes:
            raise ValueError(f"{name} goes with --trace-shapes")


def print_shapes(network: UNet, size: int, every: bool) -> None:
    """What --trace-shapes prints."""
    from ..shapes import all_maps, as_text, trace_shapes

    lines = [f"{name:24}{as_text(shape)}" for name, shape in all_maps(network, size)]
    print("\n".join(lines if every else trace_shapes(network, size)))


def run_presets(options: argparse.Namespace) -> int:
    """`minitorch-unet presets`."""
    from ..presets import PRESETS, find, outline

    changed = {name: value for name in OF_NETWORK if (value := getattr(options, name)) is not None}
    if options.name is None:
        if options.trace_shapes or options.every_map or options.size or changed:
            raise ValueError(f"of which network? Add a name: {', '.join(PRESETS)}")
        print(f"{'preset':22}{'parameters':>12}   input        output")
        for name, preset in PRESETS.items():
            network = outline(name)
            print(f"{name:22}{network.parameter_count():>12,}   {_sizes(network, preset.size)}")
        print("minitorch-unet presets NAME shows one, train --preset NAME trains it")
        return 0
    if options.every_map and not options.trace_shapes:
        raise ValueError("--every-map goes with --trace-shapes")
    preset = find(options.name)
    network = outline(options.name, **changed)
    size = options.size or preset.size
    if options.trace_shapes:
        print_shapes(network, size, options.every_map)
        return 0
    print(f"{options.name}: {preset.source}")
    print(f"{network.parameter_count():,} parameters; {' -> '.join(_sizes(network, size).split())}")
    print("its settings (all others are the defaults of train), as a file for train --config:")
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name, value in ({**preset.settings} | changed).items():
        print(f"{name} = {json.dumps(value)}" + ("   # the default" if value == defaults[name] else ""))
    return 0


def _sizes(network: UNet, size: int) -> str:
    output = network.sizes.output_size(size)
    return f"{network.config['in_channels']}x{size}x{size:<7} {network.config['num_classes']}x{output}x{output}"
