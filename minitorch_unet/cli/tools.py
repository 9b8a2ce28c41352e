"""The commands that look inside: `gradcheck`, `plan`, `compile`, `simulate` and `info`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..backend import describe_device
from .options import Command, machine_options, path_option, whole
from .presets import check_shape_options, print_shapes, shape_options
from .progress import Progress


def add_tools(command: Command) -> None:
    """Add these commands to the parser."""
    gradcheck = command("gradcheck", run_gradcheck, "check every gradient against finite differences, as a table")
    machine_options(gradcheck)
    gradcheck.add_argument("filter", nargs="?", help="only cases whose name contains this")

    plan = command("plan", run_plan, "predict the memory of a training step, without building the network")
    for name, default, text in (
        ("--size", 572, "pixels a side of the input"), ("--base", 64, "channels of the first block"),
        ("--depth", 4, "poolings"), ("--batch", 1, "images a step"), ("--channels", 1, "channels of an image"),
        ("--classes", 2, "classes of the scores"),
    ):  # fmt: skip
        plan.add_argument(name, type=whole(1), default=default, metavar="N", help=f"{text} (default: {default})")
    plan.add_argument("--recompute", action="store_true", help="with more convolutions done twice, to save memory")
    plan.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd", help="sgd: with momentum (default: sgd)")
    plan.add_argument("--budget", default="4GiB", metavar="X", help="say the largest size that fits (default: 4GiB)")
    plan.add_argument("--threads", type=whole(1), metavar="N", help="processor threads (default: all cores at hand)")
    plan.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="whose memory; for cuda no GPU is needed (default: cpu)",
    )  # fmt: skip
    path_option(plan, "--picture", "FILE", "draw the memory over a step to this PNG")

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
        "--seed", type=whole(0), default=0, metavar="N", help="run threads and blocks in random order N (0: in order)"
    )
    simulate.add_argument("script", type=Path, metavar="SCRIPT.py", help="a script that imports cupy")
    simulate.add_argument("arguments", nargs=argparse.REMAINDER, help="for the script; after -- if they begin with -")

    info = command("info", run_info, "print versions, threads, devices, kernels; or what a checkpoint holds")
    info.add_argument("checkpoint", type=Path, nargs="?", help="checkpoint file or run folder")
    shape_options(info)


def run_gradcheck(options: argparse.Namespace) -> int:
    """`minitorch-unet gradcheck`."""
    from ..gradcheck_table import format_table, run_table

    with Progress(options.quiet) as progress:
        rows = run_table(options.filter, lambda row: progress.step(row.name), options.device)
    print(f"device: {describe_device(options.device)}", format_table(rows), sep="\n")
    return 0 if all(row.passed for row in rows) else 1


def run_plan(options: argparse.Namespace) -> int:
    """`minitorch-unet plan`."""
    from ..planner import bytes_of, format_plan, largest_size, plan
    from ..plots import matplotlib_missing, memory_over_a_step

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


def _plan_for_gpu(options: argparse.Namespace, budget: int, how: dict[str, Any]) -> int:
    from ..planner import largest_size
    from ..planner_gpu import format_gpu_plan, plan_gpu

    if options.picture:
        raise ValueError("plan: --picture shows the memory of the processor; it needs --device cpu")
    print(format_gpu_plan(plan_gpu(options.size, **how)))
    largest = largest_size(budget, lambda size: plan_gpu(size, **how).total, options.depth)
    print(f"{'largest size for a step within ' + options.budget:50}{largest or 'none':>9}")
    return 0


def run_compile(options: argparse.Namespace) -> int:
    """`minitorch-unet compile`."""
    from ..backend.cuda import inspection, nvrtc

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


def run_simulate(options: argparse.Namespace) -> int:
    """`minitorch-unet simulate`."""
    from ..simulator.command import run_script

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
    from ..info import environment

    check_shape_options(options)
    if options.checkpoint is None:
        if options.trace_shapes:
            raise ValueError("--trace-shapes needs a checkpoint; minitorch-unet presets NAME --trace-shapes does not")
        print("\n".join(f"{what + ':':18}{value}" for what, value in environment()))
        return 0
    from ..predict import load_network

    network, metadata = load_network(options.checkpoint)
    if options.trace_shapes:
        from ..batches import DEFAULT_TILE

        print_shapes(network, options.size or network.sizes.input_size(DEFAULT_TILE), options.every_map)
        return 0
    print(repr(network))
    shown = {name: value for name, value in metadata.items() if name != "network"}
    print("\n".join(f"{name}: {value}" for name, value in shown.items()))
    return 0
