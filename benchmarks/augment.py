"""What augmentation costs: training steps with the paper's elastic deformation beside plain ones, in the same run.

    python benchmarks/augment.py --base 16 --size 572

All kinds of steps train the same network by the training loop's own means (`Ahead`, `train_step`), in turns of a few
steps each, so that a drift of the machine's speed meets all of them. "plain" has no augmentation at all; "usual" is the
default (flips, quarter turns, grey values); "elastic" adds the paper's field; "all" turns everything on. A ratio is
taken within a turn against the plain steps of that turn; the median over the turns is printed, as one JSON line.
`processor_ratio` compares the time of all threads together, which other processes on the machine disturb less.
`batch_s` is the time to make one batch, which the thread of `Ahead` spends beside the step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

import minitorch_unet as mt
from minitorch_unet.backend.compiled import status
from minitorch_unet.batches import Ahead, TileMaker
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import SyntheticCells
from minitorch_unet.train import start, train_step
from minitorch_unet.unet import UNetSizes

OFF: dict[str, Any] = {"flips": False, "rotations": False, "grey": 0.0}
ELASTIC: dict[str, Any] = {"elastic": 10.0}
KINDS: dict[str, dict[str, Any]] = {
    "plain": OFF,
    "usual": {},
    "elastic": ELASTIC,
    "all": ELASTIC | {"shift": 20.0, "angle": 180.0, "zoom": 0.2, "blur": 1.0, "noise": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=572, help="input pixels a side")
    parser.add_argument("--base", type=int, default=16, help="channels of the first block")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=12, help="how often every kind has its turn")
    parser.add_argument("--steps", type=int, default=6, help="timed steps in a turn, after one that is not counted")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"commas between them, of {', '.join(KINDS)}")
    parser.add_argument("--images", type=int, default=4, help="drawn pictures to train on")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores at hand")
    options = parser.parse_args()
    if options.threads:
        mt.set_num_threads(options.threads)
    kinds = ["plain", *(kind for kind in options.kinds.split(",") if kind != "plain")]
    out = UNetSizes().output_size(options.size)
    dataset = SyntheticCells(options.images, max(out + 60, 96))
    common: dict[str, Any] = {"base": options.base, "tile": out, "batch": options.batch, "lr": 1e-4}
    # Many tiles an epoch: an epoch's first batch is not made ahead, and the images here are few.
    makers = {}
    for kind in kinds:
        config = TrainConfig(**common, **KINDS[kind])
        run = start(config, dataset, {})
        makers[kind] = TileMaker(config, run.network, dataset)
        makers[kind].steps_per_epoch = 10**6
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    processor: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(options.turns + 1):
        for kind in kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]:
            with Ahead(makers[kind]) as ahead:
                for step in range(options.steps + 1):
                    if step == 1:
                        began, used = time.perf_counter(), time.process_time()
                    train_step(run, *ahead.batch(turn * 1000 + step), 1e-4)
            if turn:  # the first turn fills caches
                seconds[kind].append((time.perf_counter() - began) / options.steps)
                processor[kind].append((time.process_time() - used) / options.steps)
    row = {
        "engine": f"minitorch_unet {mt.__version__}", "kernels": status(), "threads": mt.get_num_threads(),
        "size": options.size, "base": options.base, "batch": options.batch, "turns": options.turns,
        "steps": options.steps, "load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2),
        "step_s": {kind: round(statistics.median(seconds[kind]), 5) for kind in kinds},
        "ratio": {kind: round(ratio(seconds[kind], seconds["plain"]), 4) for kind in kinds[1:]},
        "processor_ratio": {kind: round(ratio(processor[kind], processor["plain"]), 4) for kind in kinds[1:]},
        "batch_s": {kind: round(batch_seconds(makers[kind]), 5) for kind in kinds},
    }  # fmt: skip
    print(json.dumps(row))


def ratio(times: list[float], plain: list[float]) -> float:
    """Median over the turns of time / plain time."""
    return statistics.median(a / b for a, b in zip(times, plain, strict=True))


def batch_seconds(maker: TileMaker, runs: int = 9) -> float:
    """Median time of making a batch, nothing beside it."""
    times = []
    for step in range(runs + 1):
        began = time.perf_counter()
        maker.batch(step)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


if __name__ == "__main__":
    main()
