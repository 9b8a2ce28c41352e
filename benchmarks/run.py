"""The one command that measures everything: this engine against PyTorch, layer by layer and as a whole network.

    python benchmarks/run.py --torch-python path/to/python -o benchmarks/results/NAME.json
    python benchmarks/run.py --torch-python path/to/python --quick -o quick.json

Contenders take turns, round after round, each in a fresh process, and every round begins with another one. The file is
written after every measurement; called again with the same file, it keeps what is there and measures what is missing.
`python benchmarks/report.py NAME.json` makes tables and pictures of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from network import unet_layers
from processes import Failed, cores, processor, run_json

HERE = Path(__file__).resolve().parent
SECTIONS = ("steps", "layers", "scaling", "memory", "numpy", "small-engines")
LONGEST = 3600  # seconds that one process may take
TORCH_FLOAT32 = ("torch contiguous", "torch channels_last", "torch compiled")
TORCH = {
    "torch contiguous": ("--layout", "contiguous"),
    "torch channels_last": ("--layout", "channels_last"),
    "torch compiled": ("--layout", "channels_last", "--compile"),
    "torch bfloat16": ("--layout", "channels_last", "--precision", "bfloat16"),
}
FIGURES = ("forward_s", "step_s", "both_s", "peak_mib")  # printed while it runs
SMALL_ENGINES = ("mygrad", "dezero", "tinygrad")
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


@dataclasses.dataclass(frozen=True)
class Group:
    """Contenders that are compared on one piece of work. `kind`: step, layers, ladder or engine."""

    section: str
    kind: str
    size: int
    base: int
    batch: int
    contenders: tuple[str, ...]
    rounds: int
    runs: int

    @property
    def key(self) -> str:
        """Name in the result file."""
        return f"{self.section}: {self.kind}, size {self.size}, base {self.base}, batch {self.batch}"


def plan(quick: bool, rounds: int) -> list[Group]:
    """All groups in order. `quick`: a narrow network, small images, one round, no compilation; to try the pipeline."""
    size, base, runs, rounds = (188, 16, 1, 1) if quick else (572, 64, 3, rounds)
    float32 = TORCH_FLOAT32[:2] if quick else TORCH_FLOAT32
    bases = (8, 16) if quick else (16, 32)
    sizes = (284, 380) if quick else (188, 380, 764)
    batches = (1, 2, 4)
    ours = ("ours", *float32)
    scales = [(size, b, 1) for b in bases] + [(s, base, 1) for s in sizes] + [(188, base, n) for n in batches]
    scales = [scale for scale in dict.fromkeys(scales) if scale != (size, base, 1)]  # which is the group of the steps
    return [
        Group("steps", "step", size, base, 1, (*ours, "torch bfloat16"), rounds, runs),
        Group("layers", "layers", size, base, 1, ("ours", "torch"), rounds, runs),
        Group("layers", "ladder", size, base, 1, ("ours",), 1, runs),
        *(Group("scaling", "step", *scale, ours, rounds, runs) for scale in scales),
        *(Group("memory", "step", s, base, 1, ("ours", *TORCH_FLOAT32[:2]), 1, 1) for s in (*sizes, size)),
        Group("numpy", "step", size, base, 1, ("ours numpy", *float32), rounds, runs),
        Group("small-engines", "engine", 64, 64, 1, ("ours", *SMALL_ENGINES), rounds, 5),
    ]


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


def run_group(group: Group, results: dict[str, Any], runner: Runner, file: Path) -> None:
    """Measure what the group lacks, round by round."""
    entry = results["groups"].setdefault(group.key, {})
    entry |= {name: value for name, value in dataclasses.asdict(group).items() if name not in ("rounds", "contenders")}
    rounds = entry.setdefault("rounds", [])
    for number in range(group.rounds):
        if number == len(rounds):
            rounds.append({})
        shift = number % len(group.contenders)
        for contender in group.contenders[shift:] + group.contenders[:shift]:
            row = rounds[number].get(contender, {"failed": "not measured"})
            if "failed" not in row:
                continue
            try:
                row = runner.measure(group, contender)
                told = ", ".join(f"{name} {row[name]}" for name in FIGURES if name in row)
            except Failed as error:
                row = {"failed": error.reason}
                told = f"failed: {error.reason}"
            rounds[number][contender] = row
            save(results, file)
            print(f"{group.key}, round {number + 1}, {contender}: {told or 'done'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", help="a Python that has torch; without it only this engine is measured")
    parser.add_argument("--engines-python", action="append", default=[],
                        help="a Python that has some of mygrad, dezero, tinygrad; may be repeated")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: to see that everything runs")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True, help="result file; extended if it exists")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.output.read_text()) if options.output.exists() else {"groups": {}}
    try:
        results["machine"] = machine(options.torch_python)
    except Failed as error:
        raise SystemExit(str(error)) from error
    runner = Runner(options.torch_python, options.engines_python)
    for group in plan(options.quick, options.rounds):
        if not options.only or group.section in options.only:
            run_group(group, results, runner, options.output)
    print(f"saved in {options.output}")


if __name__ == "__main__":
    main()
