"""The report of a GPU's result, from a made-up one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
Load = Callable[[str], ModuleType]


def sample(script: Load) -> dict[str, Any]:
    """A result as gpu.py writes it, times by a simple model of a device: 3 TB/s, 50, 400 and 800 TFLOP/s."""
    ladder, whole, network = (script(name) for name in ("gpu_stages.ladder", "gpu_stages.rival", "network"))
    peak, rng = {"float32": 50e12, "tf32": 400e12, "bfloat16": 800e12}, np.random.default_rng(0)
    slow = {"naive": 50, "tiled": 20, "gemm": 1.5, "mma": 2, "hopper": 1.3, "auto": 1.25}

    def row(layer: Any, rung: Any) -> dict[str, Any]:
        least = max(layer.flops / peak[rung.precision], layer.bytes / 3e12)
        names = ["forward"] + ["input_grad"] * (not layer.first) + ["weight_grad"] * (layer.kind != "pool")
        passes = {n: {"seconds": slow[rung.algorithm] * least * rng.uniform(0.95, 1.05), "error": 1e-7} for n in names}
        return {**layer.record(), "algorithm": rung.algorithm, "precision": rung.precision, "passes": passes}

    def step(scale: float, **more: Any) -> dict[str, Any]:
        times = {"forward_s": 0.02, "forward_graph_s": 0.01, "step_s": 0.06, "step_graph_s": 0.03}
        return {**{name: scale * value for name, value in times.items()}, "peak_mib": 2000 * scale, **more}

    networks = [(p, batch) for batch in (1, 8) for p in whole.PRECISIONS]
    torch_layers = {
        layer.name: {n: p["seconds"] * 1.1 for n, p in row(layer, ladder.Rung("auto", "tf32"))["passes"].items()}
        for layer in network.unet_layers()
    }
    stages = {
        "environment": {"device": {"name": "Made-up GPU", "multiprocessors": 100, "memory_mib": 80000, "l2_mib": 50}},
        "ceilings": {
            "copy": {"bytes_per_second": 3e12}, "multiply-adds": {"flops": 50e12}, "tf32 product": {"flops": 400e12},
            "bfloat16 product": {"flops": 800e12}, "float16 product": {"skipped": "made up"},
        },
        "compilation": {"kernels": {"kernels": {"halve T=float": {"registers": 28, "shared": 0, "local": 0}}}},
        "primitives": {"mma_bf16": {"error": 0.4}, "mma_half": {"failed": "made|up"}},
        "network": {
            "agreement, tf32": {"scores_error": 3e-4, "gradient_error": 2e-3},
            **{f"{p}, batch {batch}": step(1, precision=p, batch=batch) for p, batch in networks},
        },
        "torch": {
            **{f"{p}, batch {batch}": step(1.5, precision=p, batch=batch) for p, batch in networks},
            "layers, tf32": {"layers": torch_layers},
        },
        "compiled": {"bfloat16, batch 1": step(0.9, precision="bfloat16", batch=1)},
        "layers": {
            f"{layer.name}, {rung}": row(layer, rung)
            for layer in network.unet_layers()
            for rung in ladder.suited(layer)
        },
        "others": {"join, float32": {"bytes": 3e8, "seconds": 2e-4}},
    }  # fmt: skip
    return {
        "timings_mean_something": True, "began": "2026-01-01 00:00:00", "seconds": 500.0,
        "stages": {name: {"items": items, "seconds": 1.0, "ended": "complete"} for name, items in stages.items()},
    }  # fmt: skip


def reported(folder: Path, results: dict[str, Any]) -> str:
    """The README that gpu_report.py makes of a result."""
    (folder / "kernels").mkdir(exist_ok=True)
    readme, file = folder / "kernels" / "README.md", folder / "gpu.json"
    readme.write_text((FOLDER.parent / "kernels" / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    file.write_text(json.dumps(results))
    command = [sys.executable, "-W", "error", FOLDER / "gpu_report.py", file, "--root", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return readme.read_text(encoding="utf-8")


def section(text: str, name: str) -> str:
    return text.partition(f"<!-- gpu: {name} -->")[2].partition(f"<!-- /gpu: {name} -->")[0]


def test_report_of_a_made_up_result(script: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = reported(tmp_path, sample(script))
    assert "Made-up GPU" in section(text, "machine")
    assert "streaming 3.00 TB/s" in section(text, "machine")
    assert "float32 133.3 TFLOP/s" in section(text, "machine")  # three TF32 products are quicker than multiply-adds
    assert "| primitives | 1 | mma_half: made/up |" in section(text, "checks")
    network = section(text, "network")
    assert "| tf32, batch 1 | 10 (graph) | 15 (eager, graph) | 0.67× | 30 (graph) | 45 (eager, graph) |" in network
    assert "| bfloat16, batch 1 | 10 (graph) | 9 (compiled, graph) | 1.11× |" in network
    line = next(line for line in section(text, "ladder").splitlines() if line.startswith("| automatic choice, tf32"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert 75 < float(cells[3].removesuffix("%")) < 85  # of the ceiling: 1 / 1.25
    assert cells[-1] == "1.0e-07"
    assert "tf32: layer" in section(text, "layers")
    assert "0.9" in section(text, "layers")
    assert "| join, float32 | 0.2 | 1.5 | 50 % |" in section(text, "others")
    assert "| halve T=float | 28 | 0 | 0 |" in section(text, "kernels")
    for picture in ("gpu-step.png", "gpu-ladder.png", "gpu-roofline.png"):
        assert (tmp_path / "docs" / "images" / picture).stat().st_size > 10_000
        assert f"](../docs/images/{picture})" in text


def test_report_says_what_was_not_measured(script: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = sample(script)
    for name in ("layers", "network", "others", "compilation"):
        del results["stages"][name]
    text = reported(tmp_path, results)
    for name in ("network", "ladder", "layers", "others", "kernels"):
        assert section(text, name).strip() == "Not measured in this run."
    assert list((tmp_path / "docs" / "images").iterdir()) == []


def test_nothing_is_claimed_without_a_result() -> None:
    """As long as no result of a GPU is in the repository, its tables are empty."""
    text = (FOLDER.parent / "kernels" / "README.md").read_text(encoding="utf-8")
    if not list((FOLDER / "results").glob("gpu-*.json")):
        names = ("machine", "checks", "network", "ladder", "layers", "others", "kernels")
        assert [section(text, name).strip() for name in names] == [
            "Yet to be measured: no machine with a GPU was at hand.", *[""] * 6
        ]  # fmt: skip
