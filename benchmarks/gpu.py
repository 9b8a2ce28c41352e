"""The one command for a machine with a GPU: checks every CUDA kernel, then times the kernels and the network.

    python benchmarks/gpu.py -o gpu.json                    everything, within ten minutes
    python benchmarks/gpu.py --stages ceilings,layers -o gpu.json
    python benchmarks/gpu.py --device simulate --quick --tiny -o try.json     the whole way on the processor: no timings

Needs CuPy; uses PyTorch (the rival, and its matrix products as ceilings), pytest and compute-sanitizer where they are,
and says what was left out where they are not. `python benchmarks/gpu_report.py gpu.json` makes tables and pictures.

A stage is a list of small items that a process of its own works off. An item that fails, hangs or kills the process
(after an illegal address nothing works any more) costs that item alone: the next process goes on behind it. The file
is written after every item, in the form {"stages": {stage: {"items": {item: row}, "seconds", "ended"}}}.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclasses.dataclass(frozen=True)
class Stage:
    """A module of gpu_stages/, and how many seconds all of its items and any one of them may take."""

    module: str
    seconds: float
    item_seconds: float
    what: str

    def times(self, factor: float) -> Stage:
        """With other limits."""
        return dataclasses.replace(self, seconds=factor * self.seconds, item_seconds=factor * self.item_seconds)


# In the order in which they run: first what the others are compared with, last what takes the time that is left.
STAGES = {
    "environment": Stage("gpu_stages.environment", 30, 30, "device, driver, versions; builds the compiled CPU kernels"),
    "ceilings": Stage("gpu_stages.ceilings", 30, 20, "memory bandwidth, arithmetic and matrix peaks as measured here"),
    "compilation": Stage("gpu_stages.compilation", 60, 60, "all kernels for this device: registers, local memory"),
    "primitives": Stage("gpu_stages.primitives", 30, 30, "each wrapper of PTX instructions against NumPy"),
    "network": Stage("gpu_stages.whole_network", 60, 40, "forward pass and training step: times, memory, agreement"),
    "torch": Stage("gpu_stages.rival", 45, 30, "PyTorch's forward pass and training step, eager; its layers"),
    "layers": Stage("gpu_stages.ladder", 100, 20, "every layer, pass and rung: times and errors"),
    "others": Stage("gpu_stages.other_kernels", 20, 15, "loss, normalisation, updates and the like: times, bandwidth"),
    "tests": Stage("gpu_stages.test_suite", 80, 60, "the project's CUDA tests on this device"),
    "sanitizer": Stage("gpu_stages.sanitizer", 70, 40, "compute-sanitizer's memcheck and racecheck on small shapes"),
    "compiled": Stage("gpu_stages.rival_compiled", 150, 90, "PyTorch by torch.compile, with what time is left"),
}
TOTAL = 570  # seconds
OUT_OF_TIME = "the stage's time was used up"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="JSON file (default: gpu.json in $OUT or here)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or simulate (default: cuda)")
    parser.add_argument("--stages", default=",".join(STAGES), help="commas between them (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer runs of everything: to see that it works")
    parser.add_argument("--tiny", action="store_true", help="layers and networks of a few channels and pixels")
    parser.add_argument("--limit", type=float, default=TOTAL, metavar="S", help=f"seconds for all (default: {TOTAL})")
    parser.add_argument("--patience", type=float, default=1, metavar="X", help="times all stages' limits (default: 1)")
    options = parser.parse_args()
    names = options.stages.split(",")
    if unknown := sorted(set(names) - set(STAGES)):
        parser.error(f"unknown stages {', '.join(unknown)}; known are {', '.join(STAGES)}")
    output = options.output or Path(os.environ.get("OUT", ".")) / "gpu.json"
    settings = {"device": options.device, "quick": options.quick, "tiny": options.tiny}
    began = time.monotonic()
    results: dict[str, Any] = {
        "settings": settings, "timings_mean_something": options.device != "simulate",
        "began": time.strftime("%Y-%m-%d %H:%M:%S %z"), "stages": {},
    }  # fmt: skip
    for name in (name for name in STAGES if name in names):
        left = options.limit - (time.monotonic() - began)
        run_stage(name, STAGES[name].times(options.patience), settings, left, results, output)
        results["seconds"] = round(time.monotonic() - began, 1)
        save(results, output)
        print(summary(name, results["stages"][name]), flush=True)
    print(f"{output}: {results['seconds']:.0f} s in all")


def run_stage(
    name: str, stage: Stage, settings: dict[str, Any], left: float, results: dict[str, Any], output: Path
) -> None:
    """Work off a stage's items, in as many processes as it takes, into results["stages"][name]."""
    record: dict[str, Any] = {"items": {}, "seconds": 0.0, "ended": "no time was left"}
    results["stages"][name] = record
    began = time.monotonic()
    deadline = began + min(left, stage.seconds)
    first = 0
    progress = Progress({}, lambda: None)
    while time.monotonic() < deadline:
        progress = Progress(record["items"], lambda: save(results, output))
        record["ended"] = run_process(stage, {**settings, "earlier": str(output)}, first, deadline, progress)
        if progress.running is not None:
            out_of_time = record["ended"] == OUT_OF_TIME
            record["items"][progress.running] = {"skipped" if out_of_time else "failed": record["ended"]}
        elif progress.complete or not progress.lost:  # done; or it ended before its first item, and would again
            break
        first = progress.index + 1
    record["planned"] = progress.planned
    record["seconds"] = round(time.monotonic() - began, 1)


class Progress:
    """What a process has said so far: the item it works on, its number, whether it came to the end."""

    def __init__(self, items: dict[str, Any], changed: Any) -> None:
        self.items, self.changed = items, changed
        self.running: str | None = None
        self.index = -1
        self.planned = 0
        self.since = time.monotonic()
        self.complete = self.lost = False

    def read(self, line: str) -> None:
        """Take in a line: {"planned"} items, then {"begin": item, "index"} and {"item", "row", "lost"} for each.

        Lost: the device can no longer be used by this process, which therefore ends. The last line: {"complete"}.
        """
        said = json.loads(line)
        if "begin" in said:
            self.running, self.index = said["begin"], said["index"]
        elif "item" in said:
            self.items[said["item"]], self.running, self.lost = said["row"], None, said["lost"]
            self.changed()
        self.planned = said.get("planned", self.planned)
        self.complete = "complete" in said
        self.since = time.monotonic()


def run_process(stage: Stage, settings: dict[str, Any], first: int, deadline: float, progress: Progress) -> str:
    """Start a process at a stage's item number `first` and follow it; returns how it ended, in words."""
    with tempfile.TemporaryDirectory() as folder:
        said, errors = Path(folder) / "said", Path(folder) / "errors"
        said.touch()
        child = (str(HERE / "gpu_child.py"), stage.module, str(said), str(first), json.dumps(settings))
        paths = [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        with errors.open("wb") as file, said.open() as lines:
            process = subprocess.Popen(
                [sys.executable, *child], stdout=file, stderr=file, cwd=ROOT, env=environment, start_new_session=True
            )
            reason = None
            while reason is None:
                ended = process.poll() is not None
                for line in iter(lines.readline, ""):  # each line was written at once
                    progress.read(line)
                if ended:
                    break
                if time.monotonic() > deadline:
                    reason = OUT_OF_TIME
                elif time.monotonic() - progress.since > stage.item_seconds:
                    reason = f"not done after {stage.item_seconds:.0f} s"
                time.sleep(0.05)
            if reason:
                os.killpg(process.pid, signal.SIGKILL)  # with everything it has started
                process.wait()
                return reason
        if progress.complete:
            return "complete"
        last = errors.read_text(errors="replace").strip().splitlines()[-12:]
        return f"the process ended with code {process.returncode}: " + " | ".join(line.strip() for line in last)


def save(results: dict[str, Any], output: Path) -> None:
    """Write the file in one go: an interrupted run leaves the last whole one."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(output.name + ".draft")
    draft.write_text(json.dumps(results, indent=1))
    draft.replace(output)


def summary(name: str, record: dict[str, Any]) -> str:
    """A few lines about a stage for those who watch."""
    rows = record["items"]
    failed = {item: row["failed"] for item, row in rows.items() if "failed" in row}
    skipped = {item: row["skipped"] for item, row in rows.items() if "skipped" in row}
    lines = [
        f"{name}: {len(rows) - len(failed) - len(skipped)} done, {len(failed)} failed, {len(skipped)} skipped, "
        f"{record['seconds']:.0f} s, {record['ended'][:300]}"
    ]
    lines += [f"  failed {item}: {reason[:300]}" for item, reason in failed.items()]
    lines += [f"  skipped {item}: {reason[:200]}" for item, reason in skipped.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
