"""Whether Winograd's arithmetic changes how training goes: loss by step, for several forms of convolution and seeds.

    python benchmarks/curve.py --data path/to/images -o benchmarks/results/NAME.json

Every pair of form and seed is a process of its own (MINITORCH_UNET_CONV chooses the form); with the same seed, the
initial weights, the tiles, their order and their augmentation are the same in every form. The curves are stored under
"curve" in the result file, which may be one of run.py's (not while that is running); called again, it keeps the runs
that are there. report.py draws them; the table is printed at the end.

The yardstick is what another seed would change. A form is "within the spread of seeds" if its final loss differs from
the first form's, at every seed, by less than the standard deviation of the first form's final losses over the seeds; of
the means over the seeds it is said, too. At one seed, two runs part however small their first difference was:
`--forms direct,im2col,winograd4` shows what another order of the very same sums does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import tables
from processes import Failed, run_json
from run import machine, save

from minitorch_unet.backend.compiled import available, status
from minitorch_unet.backend.cpu import ALGORITHMS
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import open_dataset
from minitorch_unet.errors import DataError
from minitorch_unet.train import TileMaker, start, train_step
from minitorch_unet.unet import UNetSizes

SETTINGS = ("steps", "base", "size", "optimizer", "lr", "momentum", "weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="images and labels, as for minitorch-unet train")
    parser.add_argument("--forms", default="direct,winograd4", help=f"commas between them, of {', '.join(ALGORITHMS)}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--base", type=int, default=16, help="channels of the first block")
    parser.add_argument("--size", type=int, default=380, help="pixels a side of the network's input")
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="adam", help="sgd is the paper's")
    parser.add_argument("--lr", type=float, default=0.0, help="0: 0.001 for adam, 0.002 for sgd")
    parser.add_argument("--momentum", type=float, default=0.99)
    parser.add_argument("--weights", choices=("border", "balanced", "none"), default="border", help="of the loss")
    parser.add_argument("-o", "--output", type=Path, help="result file; extended if it exists")
    parser.add_argument("--one-seed", type=int, help="train once, here, and print a JSON line: what the processes do")
    options = parser.parse_args()
    forms, seeds = options.forms.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := set(forms) - set(ALGORITHMS):
        parser.error(f"unknown forms {', '.join(sorted(unknown))}; legal are {', '.join(ALGORITHMS)}")
    if not UNetSizes().is_legal(options.size):
        parser.error(f"--size {options.size} is not legal: nearest {UNetSizes().nearest_legal(options.size)}")
    try:
        if options.one_seed is not None:
            print(json.dumps(train_once(options)))
        elif options.output is None:
            parser.error("-o is missing")
        else:
            compare(options, forms, seeds)
    except (DataError, Failed) as error:
        raise SystemExit(str(error)) from error


def train_once(options: argparse.Namespace) -> dict[str, Any]:
    """The loss of every step with the form that this process was started with."""
    if not available():
        raise SystemExit(f"there is no choice of forms without the compiled kernels ({status()})")
    config = TrainConfig(
        base=options.base, tile=UNetSizes().output_size(options.size), optimizer=options.optimizer, lr=options.lr,
        momentum=options.momentum, weights=options.weights, seed=options.one_seed,
    )  # fmt: skip
    dataset = open_dataset(options.data)
    run = start(config, dataset, source={})
    tiles = TileMaker(config, run.network, dataset)
    losses, began = [], time.perf_counter()
    for step in range(options.steps):
        losses.append(train_step(run, *tiles.batch(step), config.start_lr))
        run.step += 1
    seconds = round(time.perf_counter() - began, 1)
    return {"loss": losses, "seconds": seconds, "kernels": status(), "images": len(dataset)}


def compare(options: argparse.Namespace, forms: list[str], seeds: list[int]) -> None:
    """Make the runs that the result lacks, seed by seed, and print the table."""
    results = json.loads(options.output.read_text()) if options.output.exists() else {"groups": {}}
    settings = {name: getattr(options, name) for name in SETTINGS} | {"data": options.data.resolve().name}
    found = results.setdefault("curve", {"settings": settings, "runs": []})
    if different := {name: value for name, value in found["settings"].items() if settings[name] != value}:
        raise SystemExit(f"{options.output} has curves with {different}; name another file, or ask for the same")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    results.setdefault("machine", machine(None))
    given = [f"--{name}={settings[name]}" for name in SETTINGS]
    for seed in seeds:
        for form in forms:
            if any((run["form"], run["seed"]) == (form, seed) for run in found["runs"]):
                continue
            command = [sys.executable, str(Path(__file__)), "--data", str(options.data), *given, f"--one-seed={seed}"]
            row = run_json(command, {"MINITORCH_UNET_CONV": form})
            found["runs"].append({"form": form, "seed": seed, **row})
            save(results, options.output)
            print(f"{form}, seed {seed}: {options.steps} steps in {row['seconds']} s, last loss {row['loss'][-1]:.4f}")
    print("\n" + tables.curve(results))


if __name__ == "__main__":
    main()
