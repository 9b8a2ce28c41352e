"""The options of `predict` and `evaluate` that say how images are cut into tiles."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .options import whole

if TYPE_CHECKING:
    from ..tiled import Tiling
    from ..unet import UNet


def tile_options(parser: argparse.ArgumentParser, memory: bool = True) -> None:
    """Tiles, memory (not where images are whole in memory anyway), averaging, overlap."""
    group = parser.add_argument_group("tiles", "Without --overlap, tiles equal one pass over the whole image.")
    group.add_argument("--tile", type=whole(1), metavar="N", help="largest input of the network, N x N (default: 572)")
    if memory:
        group.add_argument(
            "--memory", metavar="X",
            help="what the process may take, e.g. 500MB: sets the tile, and images that are too large for it are read "
            "and written in strips (default: those that need over 2GiB)",
        )  # fmt: skip
    group.add_argument(
        "--average", choices=("none", "flips", "symmetries"), default="none",
        help="predict each tile in 4 or 8 orientations and average (default: none)",
    )  # fmt: skip
    group.add_argument(
        "--overlap", type=float, metavar="F",
        help="blend tiles that share this part of their side, with Gaussian weights: not exact; for networks with "
        "padding, or with group or instance normalisation",
    )  # fmt: skip


def tiling_of(options: argparse.Namespace) -> tuple[Tiling, int | None]:
    """The `Tiling` and the bytes of memory (None: not given) that the options ask for."""
    from ..planner import bytes_of
    from ..tiled import Tiling

    given = getattr(options, "memory", None)
    if given is not None and options.tile is None and options.device != "cpu":
        raise ValueError("--memory plans tiles for the processor's memory; with --device give --tile, too")
    memory = None if given is None else bytes_of(given)
    return Tiling(options.tile, options.average, options.overlap), memory


def doubt(network: UNet, how: Tiling) -> str:
    """What to say of a network whose tiles are not exact although no overlap was asked for; else nothing."""
    from ..tiled import is_exact

    if how.overlap is not None or is_exact(network, how):
        return ""
    norm = network.config["norm"]
    return f"note: {norm} normalisation depends on the tile; images larger than a tile are predicted nearly as a whole"
