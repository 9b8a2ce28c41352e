"""The command line: `minitorch-unet COMMAND`, also `python -m minitorch_unet COMMAND`.

What a user can get wrong ends with one line on the standard error output and exit code 2; a run that a signal stopped
is saved, says how to go on, and ends with 128 + the signal's number.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from minitorch_unet import __version__

from .backend import check_device, describe_device, set_num_threads, use_device
from .cli_data import add_data_commands
from .cli_doctor import add_doctor
from .cli_options import SOURCE, opening, source_of, splitting
from .cli_options import HelpFormatter as _Help
from .cli_options import data_options as _data_options
from .cli_options import path_option as _path_option
from .cli_options import setting_option as _setting_option
from .cli_options import split_options as _split_options
from .cli_options import whole as _whole
from .cli_predict import doubt, tile_options, tiling_of
from .config import TrainConfig, config_from, read_toml

Event = dict[str, Any]

EPILOG = """\
examples:
  minitorch-unet demo
  minitorch-unet train --data images/ --base 16 --validation 20% --output runs/mine
  minitorch-unet train --resume --output runs/mine
  minitorch-unet predict runs/mine new_images/ --output segmented/
  minitorch-unet predict runs/mine new_images/ --instances masks/ --split distance
  minitorch-unet predict runs/mine slide.npy --memory 1GiB --average flips
  minitorch-unet evaluate runs/mine --data held_out/ --json scores.json
  minitorch-unet doctor runs/mine
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(argv)
    try:
        if getattr(options, "threads", None):
            set_num_threads(options.threads)
        if getattr(options, "device", None) and options.command != "plan":  # which only reckons
            options.device = check_device(options.device)
            use_device(options.device)
        return options.run(options)
    except BrokenPipeError:  # the reader (head, say) has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"minitorch-unet {options.command}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError) as error:
        if os.environ.get("MINITORCH_UNET_TRACEBACK"):
            raise
        print(f"minitorch-unet {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="minitorch-unet",
        description="Train, apply and examine the original valid-convolution U-Net, on plain NumPy or on a CUDA GPU.",
        epilog=EPILOG,
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"minitorch-unet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, usage: str | None = None
    ) -> argparse.ArgumentParser:
        description = text[0].upper() + text[1:] + "."
        sub = commands.add_parser(name, help=text, description=description, usage=usage, formatter_class=_Help)
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", run_demo_command, "train on drawn touching cells and show the result, in about two minutes")
    _path_option(demo, "--output", "FOLDER", "for everything (default: runs/demo)", default=Path("runs/demo"))
    demo.add_argument("--quick", action="store_true", help="a shortened run, to see that everything works")
    demo.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="start of all random numbers (default: 0)")
    _machine_options(demo)

    train = command(
        "train", run_train, "train a U-Net on pairs of image and label",
        "minitorch-unet train --data FOLDER [--output RUN] [options]\n"
        "       minitorch-unet train --resume --output RUN [options]",
    )  # fmt: skip
    _data_options(train, required=False)
    _split_options(train)
    _path_option(train, "--output", "RUN", "the run's folder (default: runs/NAME OF DATA)")
    train.add_argument("--resume", action="store_true", help="continue the run in --output from its last checkpoint")
    _path_option(train, "--config", "FILE", "settings as TOML (base = 16 ...); options given here override it")
    train.add_argument("--max-hours", type=float, default=math.inf, metavar="X", help="save and stop after this time")
    train.add_argument("--graph", action="store_true", help="on a GPU: replay steps as one CUDA graph")
    _machine_options(train)
    settings = train.add_argument_group("settings", "Kept in the checkpoint; names in a TOML file have _ for -.")
    for field in dataclasses.fields(TrainConfig):
        _setting_option(settings, field)

    predict = command(
        "predict", run_predict, "segment images of any size, tile by tile",
        "minitorch-unet predict CHECKPOINT IMAGES... [--output FOLDER] [--instances FOLDER] [options]",
    )  # fmt: skip
    predict.add_argument("checkpoint", type=Path, help="checkpoint file or run folder (then its best)")
    predict.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    _path_option(
        predict, "--output", "FOLDER", "for NAME_label and NAME_probability (default: predictions)",
        default=Path("predictions"),
    )  # fmt: skip
    predict.add_argument(
        "--format", choices=("png", "tif", "npy"), help="of the pictures (default: png, and tif for those in strips)"
    )
    _path_option(predict, "--instances", "FOLDER", "also write each object's number: mask000.tif ..., 16 bits")
    tile_options(predict)
    _object_options(predict)
    _machine_options(predict)

    evaluate = command(
        "evaluate", run_evaluate, "compare predictions with labels by the scores that fit the data",
        "minitorch-unet evaluate CHECKPOINT --data FOLDER [--only PART] [--scores NAMES] [--json FILE] [options]",
    )  # fmt: skip
    evaluate.add_argument("checkpoint", type=Path, help="checkpoint file or run folder (then its best)")
    _data_options(evaluate, required=True)
    evaluate.add_argument("--only", metavar="PART", help="judge only these pairs, e.g. '20-23' (default: all)")
    evaluate.add_argument(
        "--scores", default="auto", metavar="NAMES",
        help="besides Dice and IoU: membranes, instances, vessels, surface (with commas), overlap for none (default: "
        "auto, which looks at the labels)",
    )  # fmt: skip
    _path_option(evaluate, "--field-of-view", "FOLDER", "where vessels are judged: masks NAME, NAME_mask or NAME_fov")
    _object_options(evaluate)
    _path_option(evaluate, "--json", "FILE", "also write the scores to this file")
    _path_option(evaluate, "--panel", "FILE", "also draw image, label, prediction and errors to this PNG")
    _machine_options(evaluate)

    add_data_commands(command)
    add_doctor(command)

    gradcheck = command("gradcheck", run_gradcheck, "check every gradient against finite differences, as a table")
    _machine_options(gradcheck)
    gradcheck.add_argument("filter", nargs="?", help="only cases whose name contains this")

    plan = command("plan", run_plan, "predict the memory of a training step, without building the network")
    for name, default, text in (
        ("--size", 572, "pixels a side of the input"), ("--base", 64, "channels of the first block"),
        ("--depth", 4, "poolings"), ("--batch", 1, "images a step"), ("--channels", 1, "channels of an image"),
        ("--classes", 2, "classes of the scores"),
    ):  # fmt: skip
        plan.add_argument(name, type=_whole(1), default=default, metavar="N", help=f"{text} (default: {default})")
    plan.add_argument("--recompute", action="store_true", help="with more convolutions done twice, to save memory")
    plan.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd", help="sgd: with momentum (default: sgd)")
    plan.add_argument("--budget", default="4GiB", metavar="X", help="say the largest size that fits (default: 4GiB)")
    plan.add_argument("--threads", type=_whole(1), metavar="N", help="processor threads (default: all cores at hand)")
    plan.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="whose memory; for cuda no GPU is needed (default: cpu)",
    )  # fmt: skip
    _path_option(plan, "--picture", "FILE", "draw the memory over a step to this PNG")

    compile_ = command("compile", run_compile, "compile CUDA kernels without a GPU and show what each became")
    compile_.add_argument("files", type=Path, nargs="*", metavar="FILE.cu", help="sources (default: the package's own)")
    compile_.add_argument(
        "--arch", action="append", default=[], metavar="sm_NN", help="may be repeated (default: as the sources state)"
    )

    simulate = command(
        "simulate", run_simulate, "run a script of CUDA kernels without a GPU, and find the kernels' mistakes",
        "minitorch-unet simulate SCRIPT.py [--check | --count] [--seed N] [--] [script arguments]",
    )  # fmt: skip
    mode = simulate.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="watch every access to memory: races, bounds and so on")
    mode.add_argument("--count", action="store_true", help="count the accesses to memory, line by line")
    simulate.add_argument(
        "--seed", type=_whole(0), default=0, metavar="N", help="run threads and blocks in random order N (0: in order)"
    )
    simulate.add_argument("script", type=Path, metavar="SCRIPT.py", help="a script that imports cupy")
    simulate.add_argument("arguments", nargs=argparse.REMAINDER, help="for the script; after -- if they begin with -")

    info = command("info", run_info, "print versions, threads, devices, kernels; or what a checkpoint holds")
    info.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint file or run folder")
    return parser


def _machine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", type=_whole(1), metavar="N", help="processor threads (default: all cores at hand)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--device", default="cpu", metavar="DEVICE",
        help="cpu; cuda or cuda:N, a GPU; auto, a GPU if there is one; simulate, a GPU's kernels on the processor, "
        "slowly (default: cpu)",
    )  # fmt: skip


def _object_options(parser: argparse.ArgumentParser) -> None:
    from .instances import SPLITS

    group = parser.add_argument_group("objects", "How the map of probabilities becomes objects.")
    group.add_argument("--threshold", type=float, default=0.5, metavar="P", help="inside is above it (default: 0.5)")
    group.add_argument(
        "--split", choices=SPLITS, default="components", help="what parts objects that touch (default: components)"
    )
    group.add_argument("--depth", type=float, metavar="X", help="least depth of a part (default: 1 pixel, or 0.1)")
    group.add_argument("--min-area", type=_whole(0), default=0, metavar="N", help="of an object (default: 0 pixels)")
    group.add_argument(
        "--seam", type=_whole(0), default=2, metavar="N",
        help="join objects across this many pixels of border; training parts them by 2 (default: 2)",
    )  # fmt: skip
    group.add_argument("--grow", type=_whole(0), default=0, metavar="N", help="widen objects (default: 0 pixels)")
    group.add_argument("--keep-holes", action="store_true", help="leave holes open")
    group.add_argument("--clear-border", action="store_true", help="drop objects that the image's border cuts")


def _objects(options: argparse.Namespace) -> dict[str, Any]:
    names = ("threshold", "split", "depth", "min_area", "clear_border", "seam", "grow")
    return {name: getattr(options, name) for name in names} | {"fill_holes": not options.keep_holes}


# ---------------------------------------------------------------------------------------------------- commands


def run_demo_command(options: argparse.Namespace) -> int:
    """`minitorch-unet demo`."""
    from .demo import run_demo
    from .evaluate import format_scores
    from .plots import matplotlib_missing
    from .train import Interrupted

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
    return 0


def run_train(options: argparse.Namespace) -> int:
    """`minitorch-unet train`."""
    from .data import open_dataset
    from .plots import loss_curve, matplotlib_missing, panel
    from .predict import load_network, predict_probabilities
    from .train import BEST, LAST, LOG, Interrupted, prepare, resume, start, train

    given = {f.name: getattr(options, f.name) for f in dataclasses.fields(TrainConfig)}
    changed = (read_toml(options.config) if options.config else {}) | {k: v for k, v in given.items() if v is not None}
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
            train(run, dataset, validation, options.output, progress.report, options.max_hours, options.graph)
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


def run_predict(options: argparse.Namespace) -> int:
    """`minitorch-unet predict`."""
    from .predict import find_images, load_network, predict_files

    how, memory = tiling_of(options)
    network, _ = load_network(options.checkpoint, options.device)
    if options.device != "cpu":  # on the error output: the standard output lists the pictures
        print(f"device: {describe_device(options.device)}", file=sys.stderr)
    if remark := doubt(network, how):
        print(remark, file=sys.stderr)
    with Progress(options.quiet) as progress:
        for path in predict_files(
            network, find_images(options.images), options.output, options.format and f".{options.format}",
            progress.count, options.instances, _objects(options), how, memory,
        ):  # fmt: skip
            progress.write(str(path))
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    """`minitorch-unet evaluate`."""
    from .data import open_dataset, select
    from .evaluate import evaluate, format_scores
    from .files import atomic_write
    from .plots import matplotlib_missing, panel
    from .predict import load_network, predict_probabilities
    from .score_choice import choose_families

    if options.panel and (missing := matplotlib_missing()):
        raise ValueError(missing)
    network, metadata = load_network(options.checkpoint, options.device)
    how = opening(source_of(options))
    if how["labels"] == "auto" and how["foreground"] is None and how["colours"] is None:
        # Then they mean what they meant in training.
        trained_on = opening(metadata.get("source", {}))
        how |= {name: trained_on[name] for name in ("labels", "foreground", "colours")}
    how["channels"] = how["channels"] or network.config["in_channels"]
    dataset = open_dataset(options.data, **how)
    if options.only:
        dataset = select(dataset, options.only)
    families, remarks = choose_families(options.scores, dataset, _objects(options), options.field_of_view)
    with Progress(options.quiet) as progress:
        scores = evaluate(network, dataset, progress.count, families)
    print("\n".join([f"device: {describe_device(options.device)}", *dataset.describe(), *remarks]))
    print(f"judged: {dataset.names[0]} to {dataset.names[-1]}")
    print(format_scores(scores))
    for family in families:
        print("\n".join(["", *family.lines()]))
    if options.json:
        atomic_write(options.json, (json.dumps(scores, indent=1) + "\n").encode())
    if options.panel:
        samples = [dataset[i] for i in range(min(4, len(dataset)))]
        panel(samples, [predict_probabilities(network, s.image) for s in samples], options.panel)
    return 0


def run_gradcheck(options: argparse.Namespace) -> int:
    """`minitorch-unet gradcheck`."""
    from .gradcheck_table import format_table, run_table

    with Progress(options.quiet) as progress:
        rows = run_table(options.filter, lambda row: progress.step(row.name), options.device)
    print(f"device: {describe_device(options.device)}", format_table(rows), sep="\n")
    return 0 if all(row.passed for row in rows) else 1


def run_plan(options: argparse.Namespace) -> int:
    """`minitorch-unet plan`."""
    from .planner import bytes_of, format_plan, largest_size, plan
    from .plots import matplotlib_missing, memory_over_a_step

    if options.picture and (missing := matplotlib_missing()):
        raise ValueError(missing)
    budget = bytes_of(options.budget)
    how = {
        "base": options.base, "batch": options.batch, "depth": options.depth, "recompute": options.recompute,
        "optimizer": options.optimizer, "in_channels": options.channels, "num_classes": options.classes,
    }  # fmt: skip
    if options.device == "cuda":
        return _plan_for_gpu(options, budget, how)
    found = plan(options.size, **how)
    print(format_plan(found))
    largest = largest_size(budget, lambda size: plan(size, **how).total, options.depth)
    print(f"{'largest size for a step within ' + options.budget:50}{largest or 'none':>9}")
    if options.picture:
        memory_over_a_step(
            found.moments, options.picture, found.parameters + found.state,
            f"Memory over a training step: {options.size} x {options.size} pixels, base {options.base}",
        )  # fmt: skip
        print(f"look at {options.picture}")
    return 0


def run_compile(options: argparse.Namespace) -> int:
    """`minitorch-unet compile`."""
    from .backend.cuda import inspection, nvrtc

    if reason := nvrtc.unavailable_reason():
        raise ValueError(reason)
    files = options.files or inspection.sources()
    try:
        text, found = inspection.table(files, options.arch)
    except nvrtc.CompileError as error:  # several lines, each with its place
        print(f"minitorch-unet compile: {error}", file=sys.stderr)
        return 2
    print(text)
    print("\n".join(found), end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


def _plan_for_gpu(options: argparse.Namespace, budget: int, how: dict[str, Any]) -> int:
    from .planner import largest_size
    from .planner_gpu import format_gpu_plan, plan_gpu

    if options.picture:
        raise ValueError("plan: --picture shows the memory of the processor; it needs --device cpu")
    print(format_gpu_plan(plan_gpu(options.size, **how)))
    largest = largest_size(budget, lambda size: plan_gpu(size, **how).total, options.depth)
    print(f"{'largest size for a step within ' + options.budget:50}{largest or 'none':>9}")
    return 0


def run_simulate(options: argparse.Namespace) -> int:
    """`minitorch-unet simulate`."""
    from .simulator.command import run_script

    # Right behind the script's name stand options of this command, up to "--" or to anything else.
    while options.arguments and options.arguments[0] in ("--check", "--count", "--seed", "--"):
        option = options.arguments.pop(0)
        if option == "--":
            break
        if option == "--seed":
            options.seed = int(options.arguments.pop(0)) if options.arguments else -1
        else:
            setattr(options, option.strip("-"), True)
    if options.seed < 0 or (options.check and options.count):
        raise ValueError("--seed needs a whole number from 0 on; --check and --count exclude each other")
    mode = "check" if options.check else "count" if options.count else "fast"
    return run_script(options.script, options.arguments, mode, options.seed)


def run_info(options: argparse.Namespace) -> int:
    """`minitorch-unet info`."""
    from .info import environment

    if options.checkpoint is None:
        print("\n".join(f"{what + ':':18}{value}" for what, value in environment()))
        return 0
    from .predict import load_network

    network, metadata = load_network(options.checkpoint)
    print(repr(network))
    shown = {name: value for name, value in metadata.items() if name != "network"}
    print("\n".join(f"{name}: {value}" for name, value in shown.items()))
    return 0


class Progress:
    """A progress bar on the standard error output (none when quiet or not a terminal), fed with events or counts."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> Progress:
        from tqdm import tqdm

        self.bar = tqdm(disable=True if self.quiet else None, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.close()

    def report(self, event: Event) -> None:
        """A training event: a step moves the bar, an epoch prints its scores."""
        if event["event"] == "step":
            self.bar.total = event["steps_in_all"]
            self.bar.n = event["step"]
            self.bar.set_postfix_str(f"loss {event['loss']:.3f}")
        elif event["event"] == "epoch":
            mark = " *" if event["best"] else ""
            text = f"epoch {event['epoch']}: validation loss {event['loss']:.4f}, IoU {event['mean_iou']:.4f}, "
            self.write(f"{text}Dice {event['mean_dice']:.4f}, {event['seconds']:.0f} s{mark}")
        else:
            self.write(f"{'stopped' if event['event'] == 'stop' else 'failed'}: {event['reason']}")

    def count(self, done: int, total: int) -> None:
        """So many of so many done."""
        self.bar.total, self.bar.n = total, done
        self.bar.refresh()

    def step(self, name: str) -> None:
        """One more of unknown many done."""
        self.bar.set_postfix_str(name)
        self.bar.update()

    def write(self, text: str) -> None:
        """A line above the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()
