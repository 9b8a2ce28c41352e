"""Time this engine and a rival alternately, and print and save the ratios.

    python benchmarks/compare.py --rival 'path/to/torch/python rival_torch.py --layout channels_last' --size 572

The rival is any command that takes --size, --base and --runs and prints a JSON line with forward_s, step_s, peak_mib.
Machines are shared and their speed drifts, so the two run in turn, each round in fresh processes, and what is reported
is the median over rounds of the ratio within a round. --rival may be given several times: the best counts.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import statistics
import sys
from pathlib import Path

from processes import Failed, cores, processor, run_json

FIGURES = ("forward_s", "step_s", "peak_mib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", action="append", required=True, help="command to compare with; may be repeated")
    parser.add_argument("--size", type=int, default=572)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3, help="timed calls a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    arguments = ["--size", str(options.size), "--base", str(options.base), "--runs", str(options.runs)]
    ours = [sys.executable, str(Path(__file__).with_name("step.py")), *arguments]

    rounds = []
    for number in range(options.rounds):
        try:
            rivals = [run_json([*shlex.split(rival), *arguments]) for rival in options.rival]
            results = {"ours": run_json(ours), "rivals": rivals}
        except Failed as error:
            raise SystemExit(str(error)) from error
        best = {name: min(rival[name] for rival in results["rivals"]) for name in FIGURES}
        results["ratio"] = {name: results["ours"][name] / best[name] for name in FIGURES}
        rounds.append(results)
        print(f"round {number + 1}: " + ", ".join(
            f"{name} {results['ours'][name]:.4g} / {best[name]:.4g} = {results['ratio'][name]:.3f}" for name in FIGURES
        ), flush=True)  # fmt: skip
    medians = {name: round(statistics.median(r["ratio"][name] for r in rounds), 4) for name in FIGURES}
    print(f"median ratios ours / best rival at size {options.size}, base {options.base}: {medians}")
    if options.json:
        machine = {"processor": processor(), "cores": cores(), "python": platform.python_version()}
        everything = {"machine": machine, "median_ratio": medians, "rounds": rounds}
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
