"""The commands that train: `demo` and `train`."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

from ..backend import describe_device
from ..config import TrainConfig, config_from, read_toml
from .options import (
    SOURCE,
    Command,
    data_options,
    machine_options,
    opening,
    path_option,
    setting_option,
    source_of,
    split_options,
    splitting,
    whole,
)
from .presets import check_shape_options, print_shapes, shape_options
from .progress import Progress


def add_training(command: Command) -> None:
    """Add both commands to the parser."""
    demo = command("demo", run_demo_command, "train on drawn touching cells and show the result, in about two minutes")
    path_option(demo, "--output", "FOLDER", "for everything (default: runs/demo)", default=Path("runs/demo"))
    demo.add_argument("--quick", action="store_true", help="a shortened run, to see that everything works")
    demo.add_argument("--seed", type=whole(0), default=0, metavar="N", help="start of all random numbers (default: 0)")
    machine_options(demo)

    train = command(
        "train", run_train, "train a U-Net on pairs of image and label",
        "minitorch-unet train --data FOLDER [--output RUN] [options]\n"
        "       minitorch-unet train --resume --output RUN [options]",
    )  # fmt: skip
    data_options(train, required=False)
    split_options(train)
    path_option(train, "--output", "RUN", "the run's folder (default: runs/NAME OF DATA)")
    train.add_argument("--resume", action="store_true", help="continue the run in --output from its last checkpoint")
    train.add_argument(
        "--preset", metavar="NAME",
        help="settings of a known network, see minitorch-unet presets; --config and options given here override them",
    )  # fmt: skip
    shape_options(train)
    path_option(train, "--config", "FILE", "settings as TOML (base = 16 ...); options given here override it")
    train.add_argument("--max-hours", type=float, default=math.inf, metavar="X", help="save and stop after this time")
    train.add_argument("--graph", action="store_true", help="on a GPU: replay steps as one CUDA graph")
    train.add_argument("--tensorboard", action="store_true", help="also write event files, into RUN/tensorboard/")
    machine_options(train)
    settings = train.add_argument_group("settings", "Kept in the checkpoint; names in a TOML file have _ for -.")
    for field in dataclasses.fields(TrainConfig):
        setting_option(settings, field)


def run_demo_command(options: argparse.Namespace) -> int:
    """`minitorch-unet demo`."""
    from ..demo import run_demo
    from ..evaluate import format_scores
    from ..plots import matplotlib_missing
    from ..train import Interrupted

    began = time.monotonic()
    print(f"device: {describe_device(options.device)}", flush=True)
    try:
        with Progress(options.quiet) as progress:
            scores = run_demo(options.output, options.quick, options.seed, progress.report, options.device)
    except Interrupted as stop:
        print(f"{stop}; run it again to see the whole demonstration", file=sys.stderr)
        return 128 + stop.number
    print(f"judged on cells that were not trained on ({time.monotonic() - began:.0f} s in all):")
    print(format_scores(scores))
    print(matplotlib_missing() or f"look at {options.output}/panel.png and {options.output}/loss.png")
    print(f"the whole story, from the first step on: {options.output}/report.html")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """`minitorch-unet train`."""
    from ..data import open_dataset
    from ..plots import loss_curve, matplotlib_missing, panel
    from ..predict import load_network, predict_probabilities
    from ..report import tensorboard_missing, train_with_report
    from ..train import BEST, LAST, LOG, Interrupted, prepare, resume, start

    changed = _settings(options)
    check_shape_options(options)
    if options.trace_shapes:
        if options.resume:
            raise ValueError("--trace-shapes is of a new run; minitorch-unet info RUN --trace-shapes is of this one")
        return _trace_shapes(options, config_from(changed))
    if options.tensorboard and (missing := tensorboard_missing()):
        raise ValueError(missing)
    if options.resume:
        if options.output is None:
            raise ValueError("--resume needs --output, the folder of the run to continue")
        run, remarks = resume(options.output, options.device, **_resumable(changed))
        for name, value in source_of(options).items():
            if value not in (SOURCE[name], run.source.get(name, SOURCE[name])):
                raise ValueError(f"--resume reads the data as before; --{name.replace('_', '-')} may not change")
        source = run.source if options.data is None else run.source | {"data": str(options.data)}
    else:
        if options.data is None:
            raise ValueError("--data is missing: the folder of images and labels (or --resume with --output)")
        options.output = options.output or Path("runs") / options.data.resolve().name
        if (options.output / LAST).exists():
            raise ValueError(
                f"{options.output} holds a run already; add --resume to continue it, or choose another --output"
            )
        source = {"data": str(options.data), **source_of(options)}
        config, remarks = config_from(changed), []
    dataset, validation, lines = prepare(open_dataset(source["data"], **opening(source)), **splitting(source))
    count = source.setdefault("images", len(dataset))
    if count != len(dataset):
        raise ValueError(f"{source['data']}: the run was begun with {count} images, now it has {len(dataset)}")
    if not options.resume:
        run = start(config, dataset, source, options.device)
        lines.append(f"{run.network.parameter_count():,} parameters, {run.network.describe()}")
    print("\n".join([*lines, *remarks, f"device: {describe_device(options.device)}"]), flush=True)
    began = time.monotonic()
    try:
        with Progress(options.quiet) as progress:
            train_with_report(
                run, dataset, validation, options.output, progress.report, options.max_hours, options.graph,
                options.tensorboard,
            )  # fmt: skip
    except Interrupted as stop:
        print(f"{stop}; continue with: minitorch-unet train --resume --output {options.output}", file=sys.stderr)
        return 128 + stop.number
    took = f"{run.step} steps, {time.monotonic() - began:.0f} s"
    if run.best == -math.inf:
        print(f"{took}; stopped before the first epoch's end, nothing judged yet: {options.output / LAST}")
    else:
        print(f"{took}; best mean foreground IoU {run.best:.4f}: {options.output / BEST}")
    missing = matplotlib_missing()
    if not missing:
        loss_curve(options.output / LOG, options.output / "loss.png")
        network, _ = load_network(options.output, options.device)
        samples = [validation[i] for i in range(min(3, len(validation)))]
        panel(samples, [predict_probabilities(network, s.image) for s in samples], options.output / "panel.png")
    print(missing or f"look at {options.output}/panel.png and {options.output}/loss.png")
    print(f"the whole story, from the first step on: {options.output}/report.html")
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings asked for: those of --preset, overridden by --config, overridden by options.

    A preset for colour pictures makes grey ones colour; none makes colour pictures grey.
    """
    from ..presets import find

    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(TrainConfig)}
    changed = (read_toml(options.config) if options.config else {}) | {k: v for k, v in given.items() if v is not None}
    if options.preset is None:
        return changed
    if options.resume:
        raise ValueError("--resume takes the saved settings; --preset may not be given")
    preset = find(options.preset)
    options.channels = options.channels or (3 if preset.channels == 3 else None)
    return {**preset.settings, **changed}


def _trace_shapes(options: argparse.Namespace, config: TrainConfig) -> int:
    """What `train --trace-shapes` does instead of training: two classes, a preset's size or a tile's."""
    from ..backend import dry_run
    from ..batches import DEFAULT_TILE
    from ..presets import PRESETS
    from ..unet import UNet

    preset = PRESETS.get(options.preset)
    with dry_run():
        network = UNet(**config.network(options.channels or (preset.channels if preset else 1), 2))
    known = preset.size if preset else network.sizes.input_size(config.tile or DEFAULT_TILE)
    print_shapes(network, options.size or known, options.every_map)
    return 0


def _resumable(changed: dict[str, Any]) -> dict[str, Any]:
    """The settings that a resumed run may change; raises ValueError for others, which would make it another run."""
    free = {"epochs", "patience", "save_every"}
    fixed = sorted(set(changed) - free)
    if fixed:
        raise ValueError(
            f"--resume takes the saved settings; only {', '.join(sorted(free))} may change, not {fixed[0]}"
        )
    return changed
