"""compute-sanitizer on a short run of every kernel: reads and writes out of bounds (memcheck), races (racecheck).

Arrays get memory of their own for this, without CuPy's pool: in the pool, what lies behind an array is legal memory.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_child import Failed, Item, Skipped

CHILD = Path(__file__).resolve().parents[1] / "gpu_child.py"
SUMMARY = re.compile(r"(ERROR|RACECHECK) SUMMARY: (\d+)")


def items(settings: dict[str, Any]) -> list[Item]:
    return [
        (f"{tool}, {part}", lambda tool=tool, part=part: watched(settings, tool, part))
        for tool in ("memcheck", "racecheck")
        for part in ("layers", "others")
    ]


def watched(settings: dict[str, Any], tool: str, part: str) -> dict[str, Any]:
    """How many items were run, and what the tool reports."""
    if settings["device"] == "simulate":
        raise Skipped("compute-sanitizer watches a GPU; the simulator has a mode of its own for this")
    path = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(path).exists():
        raise Skipped("compute-sanitizer is not installed")
    changed = {**settings, "tiny": True, "quick": True, "untimed": True, "part": part}
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        command = [path, "--tool", tool, sys.executable, str(CHILD), "gpu_stages.short_run", str(said), "0"]
        done = subprocess.run([*command, json.dumps(changed)], capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []
    return judged(tool, done.stdout + done.stderr, lines)


def judged(tool: str, report: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The row for a report and what the process said of its items; raises Failed or Skipped."""
    rows = {line["item"]: line["row"] for line in lines if "item" in line}
    wrong = {item: row["failed"] for item, row in rows.items() if "failed" in row}
    summary = SUMMARY.search(report)
    if summary is None:
        raise Skipped(f"{tool} gave no summary: {report.strip()[-400:]}")
    errors = int(summary[2])
    row = {"items": len(rows), "complete": any("complete" in line for line in lines), "errors": errors}
    if errors or wrong or not row["complete"]:
        shown = [line.strip("= ") for line in report.splitlines() if re.search("Invalid|Race|hazard|at .*\\+0x", line)]
        raise Failed(f"{tool} reports {errors} errors; {wrong or ''} {' | '.join(shown[:8])}"[:1500], **row)
    return row
