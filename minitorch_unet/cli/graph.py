"""The command graph: the autograd graph of an expression or a network, its modules as a table, a profiled step."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..backend import describe_device, dry_run
from .options import Command, whole

if TYPE_CHECKING:
    from ..unet import UNet

EXAMPLES = """\
examples:
  minitorch-unet graph "relu(a @ b + c).sum()" -o graph.svg
  minitorch-unet graph "conv2d(x, w, padding=1).mean()" --tensor x=1x2x8x8 --tensor w=3x2x3x3
  minitorch-unet graph "grad((a ** 3).sum(), a).sum()"
  minitorch-unet graph --base 8 --size 188 --all -o unet.svg
  minitorch-unet graph --tree
  minitorch-unet graph runs/demo --profile
"""
STEPS = 4  # of which the first warms up; the quickest of the others is shown, being least disturbed
LINES = 12  # of each of a profile's tables


def add_graph(command: Command) -> None:
    """Add the parser; `command` is what build_parser adds commands with."""
    graph = command(
        "graph", run_graph, "draw the graph that backward walks, of an expression or a network, and list its parts",
        "minitorch-unet graph [EXPRESSION | CHECKPOINT] [-o FILE.svg] [--tree | --profile] [options]",
    )  # fmt: skip
    graph.epilog = EXAMPLES
    graph.add_argument(
        "what", nargs="?", metavar="EXPRESSION | CHECKPOINT",
        help="tensors of one letter (3x3 if --tensor does not say else), numbers, operators, functions of "
        "minitorch_unet.functional, grad(y, x); or a checkpoint or run folder; by default the U-Net of the options",
    )  # fmt: skip
    graph.add_argument(
        "--tensor", action="append", default=[], metavar="NAME=SHAPE", help="its shape, such as a=2x3; may be repeated"
    )
    graph.add_argument(
        "-o", "--output", type=Path, metavar="FILE.svg",
        help="the picture (default: graph.svg; flame.svg with --profile)",
    )  # fmt: skip
    mode = graph.add_mutually_exclusive_group()
    mode.add_argument("--tree", action="store_true", help="print only, draw nothing")
    mode.add_argument("--profile", action="store_true", help="take training steps and say where the time went")
    mode.add_argument("--all", action="store_true", help="every operation by itself, rather than a box for each module")
    network = graph.add_argument_group("network")
    network.add_argument(
        "--size", type=whole(1), metavar="N", help="pixels a side of the input (default: 572; of a checkpoint: few)"
    )
    for name, default, text in (
        ("--batch", 1, "images"), ("--base", 64, "channels of the first block"), ("--depth", 4, "poolings"),
        ("--channels", 1, "channels of an image"), ("--classes", 2, "classes of the scores"),
    ):  # fmt: skip
        network.add_argument(name, type=whole(1), default=default, metavar="N", help=f"{text} (default: {default})")
    graph.add_argument("--threads", type=whole(1), metavar="N", help="processor threads (default: all cores at hand)")
    graph.add_argument("--device", default="cpu", metavar="DEVICE", help="where --profile takes steps (default: cpu)")


def run_graph(options: argparse.Namespace) -> int:
    """`minitorch-unet graph`."""
    if options.what is not None and not os.path.exists(options.what):
        return _of_expression(options)
    if options.tensor:
        raise ValueError("--tensor is for expressions")
    network, title = _network(options)
    size = options.size or (572 if options.what is None else network.sizes.input_size(4))
    network.sizes.trace(size)
    shape = (options.batch, network.config["in_channels"], size, size)
    if options.profile:
        return _profile(options, network, shape)
    from ..autograd_graph import draw_graph
    from ..summary import summary

    print(summary(network, shape))
    if not options.tree:
        _save(draw_graph(network, shape, levels=None if options.all else 1, title=title).svg(), options, "graph.svg")
    return 0


def _of_expression(options: argparse.Namespace) -> int:
    from ..autograd_graph import draw_graph
    from ..expressions import evaluate, parse_shape

    if options.profile:
        raise ValueError("--profile is for networks")
    try:
        value, tensors = evaluate(options.what, dict(map(parse_shape, options.tensor)))
    except ValueError as error:
        path_like = re.fullmatch(r"[\w./\\-]+", options.what) and re.search(r"[/\\]|\.safetensors", options.what)
        raise ValueError(f"{error}; no file {options.what} exists, either" if path_like else str(error)) from None
    graph = draw_graph(value, names=tensors, title=options.what)
    print(graph.text())
    if not options.tree:
        _save(graph.svg(), options, "graph.svg")
    return 0


def _network(options: argparse.Namespace) -> tuple[UNet, str]:
    """The network meant, on its device, and what to call it."""
    from ..predict import load_network
    from ..unet import UNet

    if options.what is not None:
        network, _ = load_network(options.what, options.device if options.profile else "cpu")
        return network, f"U-Net of {options.what}"
    settings = (options.channels, options.classes, options.base, options.depth)
    if options.profile:
        network = UNet(*settings)
        network.to(options.device)
    else:
        with dry_run():  # weights that take no memory
            network = UNet(*settings)
    return network, f"U-Net, base {options.base}, depth {options.depth}"


def _profile(options: argparse.Namespace, network: UNet, shape: tuple[int, int, int, int]) -> int:
    """Take steps on random numbers, and print and draw what took the time of the quickest."""
    import numpy as np

    from .. import functional as F
    from .. import optim
    from ..backend import to_device
    from ..profiler import profile
    from ..tensor import Tensor

    generator = np.random.default_rng(0)
    image = Tensor(generator.standard_normal(shape, dtype=np.float32), device=options.device)
    output = network.sizes.output_size(shape[2])
    label = generator.integers(0, network.classes, (shape[0], output, output))
    optimizer = optim.SGD(network.train().parameters(), lr=0.0, momentum=0.9)

    def step() -> None:
        loss = F.cross_entropy(network.class_scores(network(image)), to_device(label, options.device))
        optimizer.backward_and_step(loss)

    profiles = []
    for _ in range(STEPS):
        with profile() as found:
            step()
        profiles.append(found)
    found = min(profiles[1:], key=lambda p: p.total_time)
    print(f"a training step on {' x '.join(map(str, shape))} values, {describe_device(options.device)}\n")
    print(found.table("op", LINES), found.table("module", LINES), sep="\n\n")
    _save(found.flame_svg(), options, "flame.svg")
    return 0


def _save(picture: str, options: argparse.Namespace, default: str) -> None:
    from ..files import atomic_write

    path = options.output or Path(default)
    atomic_write(path, picture.encode())
    print(f"look at {path}")
