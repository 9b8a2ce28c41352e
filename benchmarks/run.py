"""The one command that measures everything: this engine against PyTorch, layer by layer and as a whole network.

    python benchmarks/run.py --torch-python path/to/python -o benchmarks/results/NAME.json
    python benchmarks/run.py --torch-python path/to/python --quick -o quick.json     (to see that everything runs)
    python benchmarks/run.py --torch-python path/to/python --only steps --rounds 5 -o steps.json

Contenders take turns, round after round, each in a fresh process, and every round begins with another one. The file is
written after every measurement; called again with the same file, it keeps what is there and measures what is missing.
`python benchmarks/report.py NAME.json` makes tables and pictures of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from network import unet_layers
from plan import ROUNDS, SECTIONS, Clock, Group, guessed_seconds, missing, plan
from processes import Failed, cores, processor, run_json

HERE = Path(__file__).resolve().parent
LONGEST = 3600  # seconds that one process may take
TORCH = {
    "torch contiguous": ("--layout", "contiguous"),
    "torch channels_last": ("--layout", "channels_last"),
    "torch compiled": ("--layout", "channels_last", "--compile"),
    "torch bfloat16": ("--layout", "channels_last", "--precision", "bfloat16"),
}
FIGURES = ("forward_s", "step_s", "both_s", "peak_mib")  # printed while it runs
VERSIONS = """
import json, sys, importlib, importlib.metadata as metadata
names = {names}
for name in names:
    importlib.import_module(name)
try:
    from threadpoolctl import threadpool_info
    pools = [{{key: pool[key] for key in pool if key != "filepath"}} for pool in threadpool_info()]
except ImportError:
    pools = "threadpoolctl is not installed"
versions = {{name: sys.modules[name].__version__ for name in names}}
print(json.dumps({{"python": sys.version.split()[0], **versions, "pools": pools}}))
"""


class Runner:
    """Knows how to start each contender."""

    def __init__(self, torch_python: str | None, engine_pythons: list[str]) -> None:
        self.torch_python, self.engine_pythons = torch_python, engine_pythons

    def measure(self, group: Group, contender: str) -> dict[str, Any]:
        """The contender's JSON row, with the machine's load before and after; raises Failed."""
        before, began = os.getloadavg(), time.time()
        if group.kind == "engine" and contender != "ours":
            row = self._small_engine(group, contender)
        else:
            row = self._ours_or_torch(group, contender)
        return {**row, "began": round(began), "load_before": before[0], "load_after": os.getloadavg()[0]}

    def _ours_or_torch(self, group: Group, contender: str) -> dict[str, Any]:
        work = ["--size", str(group.size), "--base", str(group.base), "--batch", str(group.batch)]
        runs = ["--runs", str(group.runs)]
        extra = {"MINITORCH_UNET_KERNELS": "numpy"} if contender == "ours numpy" else None
        given = ""
        if contender.startswith("torch"):
            if not self.torch_python:
                raise Failed("no --torch-python given")
            command = [self.torch_python, str(HERE / "rival_torch.py"), *runs]
            if group.kind == "layers":
                given = json.dumps([layer.record() for layer in unet_layers(group.size, group.base, group.batch)])
                command += ["--mode", "layers"]
            else:
                command += ["--mode", "step", *work, *TORCH[contender]]
        elif group.kind == "engine":
            command = [sys.executable, str(HERE / "small_engines.py"), "minitorch_unet", *runs]
        elif group.kind == "step":
            command = [sys.executable, str(HERE / "step.py"), *work, *runs]
            command += ["--recompute"] if contender == "ours recompute" else []
        else:
            ladder = "auto,naive,im2col,direct,winograd2,winograd4"
            algorithms = ["--algorithms", "auto" if group.kind == "layers" else ladder]
            command = [sys.executable, str(HERE / "layers.py"), *work, *runs, *algorithms]
        return run_json(command, extra, given, LONGEST)

    def _small_engine(self, group: Group, engine: str) -> dict[str, Any]:
        reasons = [] if self.engine_pythons else ["no --engines-python given"]
        for python in self.engine_pythons:  # they do not all work with the same NumPy
            try:
                command = [python, str(HERE / "small_engines.py"), engine, "--runs", str(group.runs)]
                return run_json(command, seconds=LONGEST)
            except Failed as error:
                reasons.append(error.reason)
        raise Failed("; ".join(dict.fromkeys(reasons)))


def machine(torch_python: str | None) -> dict[str, Any]:
    """What the figures depend on; asked of fresh processes, whose environment is that of the measurements."""
    found = {
        "processor": processor(), "cores": cores(), "system": f"{platform.system()} {platform.machine()}",
        "ours": run_json([sys.executable, "-c", VERSIONS.format(names=["numpy", "minitorch_unet"])]),
    }  # fmt: skip
    if torch_python:
        found["torch"] = run_json([torch_python, "-c", VERSIONS.format(names=["torch"])])
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MINITORCH_UNET_NUM_THREADS")
    settings = (*threads, "MINITORCH_UNET_KERNELS", "MINITORCH_UNET_CONV")
    found["environment"] = {name: os.environ[name] for name in settings if name in os.environ}
    return found


def save(results: dict[str, Any], file: Path) -> None:
    """Replace the file in one step, so that it is whole at every moment."""
    beside = file.with_name(file.name + ".part")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(beside, file)


def measure_all(groups: list[Group], results: dict[str, Any], runner: Runner, file: Path) -> None:
    """Measure what the groups lack, group by group and round by round; the file is saved after every measurement."""
    jobs, clock = unmeasured(groups, results), Clock()
    for done, (group, number, contender) in enumerate(jobs):
        entry = results["groups"].setdefault(group.key, {})
        entry |= group.record()
        rounds = entry.setdefault("rounds", [])
        rounds.extend({} for _ in range(number + 1 - len(rounds)))
        began = time.monotonic()
        try:
            row = runner.measure(group, contender)
            told = ", ".join(f"{name} {row[name]}" for name in FIGURES if name in row)
            clock.add(guessed_seconds(group, contender, number == 0), time.monotonic() - began)
        except Failed as error:
            row = {"failed": error.reason}
            told = f"failed: {error.reason}"
        rounds[number][contender] = row
        save(results, file)
        left = f"about {clock.minutes(jobs[done + 1 :]):.0f} min left"
        print(f"{group.key}, round {number + 1}, {contender}: {told or 'done'} ({left})", flush=True)


def unmeasured(groups: list[Group], results: dict[str, Any]) -> list[tuple[Group, int, str]]:
    """(group, round, contender) in the order of measuring."""
    return [(group, *job) for group in groups for job in missing(group, results["groups"].get(group.key, {}))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="a Python that has torch; without it only this engine is measured")
    parser.add_argument("--engines-python", action="append", default=[],
                        help="a Python that has some of mygrad, dezero, tinygrad; may be repeated")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: to see that everything runs")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often each contender has its turn; {ROUNDS}")
    parser.add_argument("--runs", type=int, help="timed calls in each process; 1 to 5, depending on the section")
    parser.add_argument("--estimate", action="store_true", help="say about how long it would take, measure nothing")
    parser.add_argument("-o", "--output", type=Path, required=True, help="result file; extended if it exists")
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {"groups": {}}
    groups = [
        group for group in plan(options.quick, options.rounds, options.runs)
        if not options.only or group.section in options.only
    ]  # fmt: skip
    tell_estimate(groups, results)
    if options.estimate:
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        results["machine"] = machine(options.torch_python)
    except Failed as error:
        raise SystemExit(str(error)) from error
    measure_all(groups, results, Runner(options.torch_python, options.engines_python), options.output)
    print(f"saved in {options.output}")


def tell_estimate(groups: list[Group], results: dict[str, Any]) -> None:
    """Print the minutes that each section will take, before anything is known of the machine."""
    clock, total = Clock(), 0.0
    for section in dict.fromkeys(group.section for group in groups):
        jobs = unmeasured([group for group in groups if group.section == section], results)
        minutes = clock.minutes(jobs)
        total += minutes
        print(f"{section}: {len(jobs)} measurements, about {minutes:.0f} min")
    print(f"together about {total:.0f} min where PyTorch takes 6 s for a step of the paper's network", flush=True)


if __name__ == "__main__":
    main()
