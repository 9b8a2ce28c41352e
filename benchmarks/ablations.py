"""What each part of the recipe is worth: the same network trained with one part changed, on drawn touching cells.

    python benchmarks/ablations.py -o benchmarks/results/ablations.json
    python benchmarks/ablations.py -o quick.json --quick                 (to see that everything runs)

Every variant is trained with every seed. A seed decides the first weights, the training pictures, the tiles, their
order and their augmentation; the pictures that are judged are the same for all. So variants are compared seed by seed.
The table is printed and written into docs/results.md between `<!-- ablations: table -->` and its end (not with
--quick). The file is saved after each run; called again, it keeps what is there and makes what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report import NOTHING, ROOT, fill
from run import machine, save

from minitorch_unet import nn
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import SyntheticCells
from minitorch_unet.evaluate import evaluate
from minitorch_unet.scoring import InstanceFamily
from minitorch_unet.tensor import Tensor
from minitorch_unet.train import start, train
from minitorch_unet.unet import UNet

DOCUMENT = "docs/results.md"
SCORES = ("dice", "iou", "seg")
PICTURE = 256  # pixels a side
HELD_OUT_SEED = 2_000_000
OBJECTS = {"seam": 2}  # training parts touching cells by two pixels


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is changed: settings of the training, and the network after it was made."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    change: Callable[[UNet], None] = lambda network: None


class Skipless(nn.Module):
    """A block after a concatenation that finds zeros where the skip's maps would be; its parameters are the same."""

    def __init__(self, block: nn.Module) -> None:
        self.block = block

    def forward(self, x: tuple[Tensor, Tensor], recompute: bool = False) -> Tensor:
        """x: the skip's maps and the upsampled ones."""
        skip, upsampled = x
        return self.block((skip * 0.0, upsampled), recompute)


def without_skips(network: UNet) -> None:
    """Cut all skip connections."""
    network.merge = [Skipless(block) for block in network.merge]


BASELINE = "baseline"
VARIANTS = {
    BASELINE: Variant(),
    "same padding": Variant({"padding": "same"}),
    "weights: class shares only": Variant({"weights": "balanced"}),
    "weights: none": Variant({"weights": "none"}),
    "elastic deformation": Variant({"elastic": 10.0}),
    "batch normalisation": Variant({"norm": "batch"}),
    "dropout 0.5": Variant({"dropout": 0.5}),
    "SGD, momentum 0.99": Variant({"optimizer": "sgd", "lr": 0.002, "momentum": 0.99}),
    "no skip connections": Variant(change=without_skips),
}


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large it all is."""

    base: int = 8
    depth: int = 3
    tile: int = 172
    pictures: int = 24
    judged: int = 6
    epochs: int = 8
    picture: int = PICTURE


QUICK = Scale(base=2, depth=1, tile=60, pictures=1, judged=1, epochs=1, picture=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="result file; extended if it exists")
    parser.add_argument("--seeds", default="0,1,2", help="with commas (default: 0,1,2)")
    parser.add_argument("--only", action="append", choices=VARIANTS, help="this variant; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a tiny network; its figures mean nothing")
    parser.add_argument("--root", type=Path, help="folder with the document (default: this project; none if quick)")
    options = parser.parse_args()
    scale = QUICK if options.quick else Scale()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    if results.setdefault("scale", dataclasses.asdict(scale)) != dataclasses.asdict(scale):
        raise SystemExit(f"{options.output} has runs of another scale; name another file")
    results.setdefault("machine", machine(None))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    runs = results.setdefault("runs", [])
    for seed in map(int, options.seeds.split(",")):  # seed by seed: what is there is comparable at every moment
        for name in options.only or VARIANTS:
            if any((run["variant"], run["seed"]) == (name, seed) for run in runs):
                continue
            row = train_once(VARIANTS[name], scale, seed)
            runs.append({"variant": name, "seed": seed, **row})
            save(results, options.output)
            told = ", ".join(f"{score} {row[score]:.4f}" for score in SCORES)
            print(f"{name}, seed {seed}: {told}; {row['steps']} steps, {row['seconds']:.0f} s", flush=True)
    print("\n" + table(results))
    root = options.root or (None if options.quick else ROOT)
    if root:
        document = root / DOCUMENT
        write_table(document, results)
        print(f"filled {document}")


def train_once(variant: Variant, scale: Scale, seed: int) -> dict[str, Any]:
    """Train a variant and judge it on cells that it has not seen: Dice, IoU, SEG, objects, steps and seconds."""
    settings = {
        "base": scale.base, "depth": scale.depth, "tile": scale.tile, "epochs": scale.epochs, "optimizer": "adam",
        "lr": 0.002, "schedule": "cosine", "seed": seed,
    }  # fmt: skip
    config = TrainConfig(**(settings | variant.settings))
    run = start(config, SyntheticCells(scale.pictures, scale.picture, seed=seed), source={})
    variant.change(run.network)
    began = time.perf_counter()
    # The last weights are judged, not the best on other pictures; a glance at one small picture an epoch costs little.
    glance = SyntheticCells(1, 64, seed=HELD_OUT_SEED + 1)
    with tempfile.TemporaryDirectory() as folder:
        train(run, SyntheticCells(scale.pictures, scale.picture, seed=seed), glance, Path(folder))
    seconds = time.perf_counter() - began
    objects = InstanceFamily(OBJECTS)
    held_out = SyntheticCells(scale.judged, scale.picture, seed=HELD_OUT_SEED)
    scores = evaluate(run.network, held_out, families=[objects])
    at_half = scores["instances"]["at"][0]
    return {
        "dice": scores["mean_dice"], "iou": scores["mean_iou"], "seg": scores["instances"]["seg"],
        "objects": at_half["hits"] + at_half["extra"], "objects_true": at_half["hits"] + at_half["missed"],
        "steps": run.step, "seconds": round(seconds, 1), "parameters": run.network.parameter_count(),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """A row for each variant: mean and standard deviation over the seeds, and how SEG differs from the baseline's."""
    by_variant: dict[str, dict[int, dict[str, Any]]] = {}
    for run in results.get("runs", []):
        by_variant.setdefault(run["variant"], {})[run["seed"]] = run
    if not by_variant:
        return NOTHING
    lines = [
        "| variant | Dice | IoU | SEG | SEG less the baseline's, seed by seed | cells found | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    first = by_variant.get(BASELINE, {})
    for name in [name for name in VARIANTS if name in by_variant]:
        runs = by_variant[name]
        cells = [_spread([run[score] for run in runs.values()]) for score in SCORES]
        shared = [seed for seed in runs if seed in first]
        differences = [runs[seed]["seg"] - first[seed]["seg"] for seed in shared]
        compared = _spread(differences, "+.3f") if differences and name != BASELINE else ""
        found = statistics.fmean(run["objects"] for run in runs.values())
        true = next(iter(runs.values()))["objects_true"]
        steps = next(iter(runs.values()))["steps"]
        lines.append(f"| {name} | {' | '.join(cells)} | {compared} | {found:.0f} of {true} | {steps} |")
    s = results["scale"]
    seeds = sorted({run["seed"] for run in results["runs"]})
    counts = {len(runs) for runs in by_variant.values()}
    lines += [
        "",
        f"Mean ± standard deviation over the seeds {', '.join(map(str, seeds))}"
        + ("" if len(counts) == 1 else " (not all variants have all of them)")
        + f". Network: base {s['base']}, depth {s['depth']}; trained on {s['pictures']} pictures of "
        f"{s['picture']}×{s['picture']} pixels for {s['epochs']} epochs at batch 1 with Adam, learning rate 0.002 and "
        f"the weights of equation 2; judged on {s['judged']} others. Cells found: objects predicted, of how many "
        f"drawn. Machine: {results['machine']['cores']} cores of {results['machine']['processor']}.",
    ]
    return "\n".join(lines)


def _spread(values: list[float], form: str = ".3f") -> str:
    mean = format(statistics.fmean(values), form)
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def write_table(document: Path, results: dict[str, Any]) -> None:
    """Replace the text between the document's markers."""
    text = document.read_text(encoding="utf-8")
    filled = fill(text, lambda name, half: table(results), "ablations", {"table": (table, None)})
    document.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    main()
