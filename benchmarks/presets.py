"""Each preset at a small width on the built-in touching cells: what it reaches, and in what time.

    python benchmarks/presets.py -o benchmarks/results/presets.json
    python benchmarks/presets.py -o quick.json --quick                   (to see that everything runs)

A preset keeps its network, loss, dropout and augmentation; width, tile, batch, number of steps, learning rate and
schedule are chosen for two minutes on two cores, see ALL and SHORT. So is the optimiser of the two that have SGD with
momentum 0.99, which needs more steps than that: they get Adam. Every preset has a process of its own, so that
processor time is its own. The table is printed and written into docs/presets.md between `<!-- presets: table -->` and
its end (not with --quick). The file is saved after each run; called again, it keeps what is there and makes what is
missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from report import NOTHING, ROOT, fill
from run import machine, save

from minitorch_unet import get_num_threads, presets
from minitorch_unet.data import Dataset, SyntheticCells
from minitorch_unet.evaluate import evaluate
from minitorch_unet.train import start, train

DOCUMENT = "docs/presets.md"
HELD_OUT_SEED = 2_000_000
GOAL = 0.85  # IoU of the cells
ALL = {"base": 8, "epochs": 8, "schedule": "cosine", "tile": 128, "batch": 1}
# What the short run changes of a preset, beside ALL.
SHORT: dict[str, dict[str, Any]] = {
    "paper": {"lr": 0.002, "optimizer": "adam", "tile": 100, "epochs": 6},
    "phseg_v5": {"lr": 0.002, "optimizer": "adam", "tile": 100, "epochs": 6},
    "padded_512": {"lr": 0.001},
    "padded_rgb_sigmoid": {"lr": 0.002},
    "batchnorm_adamw": {"lr": 0.002, "tile": 192},
    "nearest_upsampling": {"lr": 0.001, "epochs": 10},
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large it all is; `changed` comes on top of a preset's short settings."""

    pictures: int = 24
    judged: int = 6
    picture: int = 256
    changed: dict[str, Any] = dataclasses.field(default_factory=dict)


QUICK = Scale(1, 1, 64, {"base": 1, "depth": 1, "tile": 32, "epochs": 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="result file; extended if it exists")
    parser.add_argument("--only", action="append", choices=presets.PRESETS, help="this preset; may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny networks; their figures mean nothing")
    parser.add_argument("--root", type=Path, help="folder with the document (default: this project; none if quick)")
    options = parser.parse_args()
    scale = QUICK if options.quick else Scale()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    if results.setdefault("scale", dataclasses.asdict(scale)) != dataclasses.asdict(scale):
        raise SystemExit(f"{options.output} has runs of another scale; name another file")
    results.setdefault("machine", machine(None))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    runs = results.setdefault("runs", {})
    for name in options.only or presets.PRESETS:
        if name in runs:
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            row = runs[name] = pool.submit(train_once, name, scale).result()
        save(results, options.output)
        print(
            f"{name}: IoU {row['iou']:.4f}, Dice {row['dice']:.4f}; {row['steps']} steps, {row['seconds']:.0f} s, "
            f"{row['processor_seconds']:.0f} s of processor time", flush=True,
        )  # fmt: skip
    print("\n" + table(results))
    root = options.root or (None if options.quick else ROOT)
    if root:
        document = root / DOCUMENT
        text = document.read_text(encoding="utf-8")
        filled = fill(text, lambda name, half: table(results), "presets", {"table": (table, None)})
        document.write_text(filled, encoding="utf-8")
        print(f"filled {document}")


def cells(name: str, count: int, size: int, seed: int) -> Dataset:
    """Drawn cells with as many channels as the preset's pictures have."""
    drawn = SyntheticCells(count, size, seed=seed)
    return Dataset(drawn.entries, drawn.rule, presets.find(name).channels, drawn.source)


def train_once(name: str, scale: Scale) -> dict[str, Any]:
    """Train and judge on cells that it has not seen: IoU and Dice of the cells' pixels, steps, seconds, settings."""
    config = presets.config(name, **(ALL | SHORT[name] | scale.changed))
    began, spent = time.perf_counter(), time.process_time()
    training = cells(name, scale.pictures, scale.picture, 0)
    run = start(config, training, source={})
    # The last weights are judged, not the best on other pictures; a glance at one small picture an epoch costs little.
    with tempfile.TemporaryDirectory() as folder:
        train(run, training, cells(name, 1, 64, HELD_OUT_SEED + 1), Path(folder))
    seconds, processor = time.perf_counter() - began, time.process_time() - spent
    scores = evaluate(run.network, cells(name, scale.judged, scale.picture, HELD_OUT_SEED))
    return {
        "iou": scores["mean_iou"], "dice": scores["mean_dice"], "steps": run.step, "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1), "parameters": run.network.parameter_count(),
        "threads": get_num_threads(), "settings": dataclasses.asdict(config),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """A row for each preset."""
    runs = results.get("runs", {})
    if not runs:
        return NOTHING
    lines = [
        "| preset | parameters | optimiser, learning rate | steps | IoU | Dice | seconds | of processor time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [name for name in presets.PRESETS if name in runs]:
        run = runs[name]
        lines.append(
            f"| `{name}` | {run['parameters']:,} | {run['settings']['optimizer']}, {run['settings']['lr']:g} | "
            f"{run['steps']} | {run['iou']:.3f} | {run['dice']:.3f} | {run['seconds']:.0f} | "
            f"{run['processor_seconds']:.0f} |"
        )
    s, any_run = results["scale"], next(iter(runs.values()))
    lines += [
        "",
        f"Base {any_run['settings']['base']}; trained on {s['pictures']} pictures of {s['picture']}×{s['picture']} "
        f"pixels, judged on {s['judged']} others, seed 0. Machine: {results['machine']['cores']} cores of "
        f"{results['machine']['processor']}, {any_run['threads']} threads.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
