"""The GPU script without a GPU: its processes and their ends, the whole way on the simulator, its report."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from minitorch_unet.backend import simulator_unavailable_reason

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
Load = Callable[[str], ModuleType]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module of the benchmarks' folder as a script there would."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in [name for name, m in sys.modules.items() if str(FOLDER) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


# ------------------------------------------------------------------------------------------- processes and their ends

PLANTED = """
import os, time
from gpu_child import Failed, Skipped

def raises(error):
    raise error

def items(settings):
    return [
        ("good", lambda: {"value": settings["value"]}),
        ("raises", lambda: raises(ValueError("bad value"))),
        ("not here", lambda: raises(Skipped("no such thing"))),
        ("wrong", lambda: raises(Failed("error 3", error=3))),
        ("dies", lambda: os._exit(7)),
        ("hangs", lambda: time.sleep(60)),
        ("last", lambda: {"process": os.getpid()}),
    ]
"""


def run_planted(module: Load, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, **limits: float) -> Any:
    """The record of a stage whose module is `text`, and the file as it was written."""
    gpu = module("gpu")
    (folder / "planted_stage.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    stage = gpu.Stage("planted_stage", limits.get("seconds", 60), limits.get("item_seconds", 2), "planted")
    results: dict[str, Any] = {"stages": {}}
    gpu.run_stage("planted", stage, {"value": 5}, limits.get("left", 60), results, folder / "out.json")
    return results["stages"]["planted"], json.loads((folder / "out.json").read_text())


def test_one_bad_item_does_not_lose_the_others(
    module: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, written = run_planted(module, tmp_path, monkeypatch, PLANTED)
    items = record["items"]
    assert items["good"] == {"value": 5}
    assert items["raises"] == {"failed": "ValueError: bad value (planted_stage.py:6)"}
    assert items["not here"] == {"skipped": "no such thing"}
    assert items["wrong"] == {"failed": "error 3", "error": 3}
    assert items["dies"]["failed"].startswith("the process ended with code 7")
    assert items["hangs"] == {"failed": "not done after 2 s"}
    assert items["last"]["process"] != os.getpid()
    assert record["ended"] == "complete"
    assert record["planned"] == len(items) == 7
    assert written["stages"]["planted"]["items"] == items


def test_a_lost_device_ends_the_process_but_not_the_stage(
    module: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
import os, sys, types
import gpu_child

def lose(loud):
    def refuse():
        raise RuntimeError("illegal address")
    runtime = types.SimpleNamespace(deviceSynchronize=refuse)
    sys.modules["cupy"] = types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))
    if loud:
        raise RuntimeError("cudaErrorIllegalAddress")
    return {"value": 1}

def items(settings):
    return [
        ("before", lambda: {"process": os.getpid()}), ("loses", lambda: lose(True)), ("quietly", lambda: lose(False)),
        ("after", lambda: {"process": os.getpid()}),
    ]
"""
    items = run_planted(module, tmp_path, monkeypatch, text)[0]["items"]
    assert items["loses"]["failed"].startswith("RuntimeError: cudaErrorIllegalAddress")
    assert items["quietly"] == {"failed": "RuntimeError: illegal address", "value": 1}
    assert items["before"]["process"] != items["after"]["process"]


@pytest.mark.parametrize("text", ["import no_such_module\n", "def items(settings):\n    raise OSError('none')\n"])
def test_a_stage_that_cannot_begin_says_why(
    module: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    gpu = module("gpu")
    monkeypatch.setattr(gpu, "save", lambda *_: None)
    (tmp_path / "out.json").write_text("{}")
    record = run_planted(module, tmp_path, monkeypatch, text)[0]
    assert record["items"] == {}
    assert "the process ended with code 1" in record["ended"]
    assert ("no_such_module" in record["ended"]) != ("OSError: none" in record["ended"])


def test_a_stage_ends_with_its_time(module: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = run_planted(
        module, tmp_path, monkeypatch, PLANTED.replace("os._exit(7)", "time.sleep(60)"), seconds=3, item_seconds=9
    )
    assert record["ended"] == "the stage's time was used up"
    assert record["items"]["dies"] == {"skipped": "the stage's time was used up"}
    assert "last" not in record["items"]
    assert record["planned"] == 7


def test_the_stages_fit_into_ten_minutes(module: Load) -> None:
    gpu = module("gpu")
    *stages, _ = gpu.STAGES.values()  # the last one takes what is left
    assert sum(stage.seconds for stage in stages) < gpu.TOTAL < 600


# ----------------------------------------------------------------------------------------------- on the simulator

SKIPPED = {"torch", "compiled", "tests", "sanitizer", "compilation"}


@pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))
def test_the_whole_way_on_the_simulator(tmp_path: Path) -> None:
    """Every stage that needs no GPU does its work, with no failures and no times."""
    pytest.importorskip("ml_dtypes")
    output = tmp_path / "try.json"
    command = [sys.executable, FOLDER / "gpu.py", "--device", "simulate", "--quick", "--tiny", "-o", output]
    command += ["--limit", "3000", "--patience", "20"]  # of a busy machine
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(output.read_text())
    assert results["timings_mean_something"] is False
    for name, record in results["stages"].items():
        assert record["ended"] == "complete", (name, record["ended"])
        assert record["planned"] == len(record["items"]) > 0
        failed = {item: row["failed"] for item, row in record["items"].items() if "failed" in row}
        assert failed == {}, name
        worked = [row for row in record["items"].values() if "skipped" not in row]
        assert bool(worked) == (name not in SKIPPED), name
        assert '"seconds"' not in json.dumps(worked)
    layers = results["stages"]["layers"]["items"]
    served = {kernel.split()[0] for row in layers.values() for p in row["passes"].values() for kernel in p["kernels"]}
    assert {"conv_naive_forward", "conv_tiled_input_grad", "conv_gemm_weight_grad", "conv_mma_forward"} <= served
    command = [sys.executable, FOLDER / "gpu_report.py", output]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "is of the simulator" in refused.stderr


def test_unknown_stages_are_named() -> None:
    command = [sys.executable, FOLDER / "gpu.py", "--stages", "layers,bananas"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown stages bananas" in done.stderr


# ------------------------------------------------------------------------------------- what other tools report

MEMCHECK = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at conv_naive_forward+0x1a0
========= ERROR SUMMARY: 2 errors
"""


def test_reports_of_the_sanitizer_are_judged(module: Load) -> None:
    child, sanitizer = module("gpu_child"), module("gpu_stages.sanitizer")
    lines = [{"planned": 1}, {"begin": "a", "index": 0}, {"item": "a", "row": {}, "lost": False}, {"complete": True}]
    clean = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"
    assert sanitizer.judged("racecheck", clean, lines) == {"items": 1, "complete": True, "errors": 0}
    with pytest.raises(child.Failed, match=r"2 errors; .*Invalid __global__ write of size 4 bytes \| at conv_naive"):
        sanitizer.judged("memcheck", MEMCHECK, lines)
    with pytest.raises(child.Failed, match="0 errors"):  # it did not come to the end
        sanitizer.judged("racecheck", clean, lines[:-1])
    with pytest.raises(child.Failed, match="'a': 'wrong'"):
        sanitizer.judged("racecheck", clean, [{"item": "a", "row": {"failed": "wrong"}}, {"complete": True}])
    with pytest.raises(child.Skipped, match=r"gave no summary: .*Device not supported"):
        sanitizer.judged("memcheck", "========= Device not supported\n", [])


def test_reports_of_pytest_are_counted(module: Load) -> None:
    child, suite = module("gpu_child"), module("gpu_stages.test_suite")
    report = ElementTree.fromstring(
        '<testsuites><testsuite><testcase classname="a" name="one"/><testcase classname="a" name="two">'
        '<skipped message="needs x"/></testcase>{}</testsuite></testsuites>'.format("")
    )
    assert suite.counted(report, 0) == {"passed": 1, "failures": {}, "skips": {"needs x": 1}}
    with pytest.raises(child.Failed, match="code 2"):
        suite.counted(report, 2)
    bad = ElementTree.fromstring('<t><testcase classname="a" name="b"><failure message="1 != 2"/></testcase></t>')
    with pytest.raises(child.Failed, match="1 failed, 0 passed") as caught:
        suite.counted(bad, 1)
    assert caught.value.row["failures"] == {"a.b": "1 != 2"}


# ----------------------------------------------------------------------------------------------------- the report


def sample(module: Load) -> dict[str, Any]:
    """A result as gpu.py writes it, times by a simple model of a device: 3 TB/s, 50, 400 and 800 TFLOP/s."""
    ladder, whole, network = (module(name) for name in ("gpu_stages.ladder", "gpu_stages.rival", "network"))
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


def test_report_of_a_made_up_result(module: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = reported(tmp_path, sample(module))
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


def test_report_says_what_was_not_measured(module: Load, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    results = sample(module)
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
