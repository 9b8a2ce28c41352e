"""The GPU script without a GPU: its processes and their ends, the whole way on the simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from minitorch_unet.backend import simulator_unavailable_reason

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
Load = Callable[[str], ModuleType]


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


def run_planted(script: Load, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, **limits: float) -> Any:
    """The record of a stage whose module is `text`, and the file as it was written."""
    gpu = script("gpu")
    (folder / "planted_stage.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    stage = gpu.Stage("planted_stage", limits.get("seconds", 60), limits.get("item_seconds", 2), "planted")
    results: dict[str, Any] = {"stages": {}}
    gpu.run_stage("planted", stage, {"value": 5}, limits.get("left", 60), results, folder / "out.json")
    return results["stages"]["planted"], json.loads((folder / "out.json").read_text())


def test_one_bad_item_does_not_lose_the_others(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, written = run_planted(script, tmp_path, monkeypatch, PLANTED)
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
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    items = run_planted(script, tmp_path, monkeypatch, text)[0]["items"]
    assert items["loses"]["failed"].startswith("RuntimeError: cudaErrorIllegalAddress")
    assert items["quietly"] == {"failed": "RuntimeError: illegal address", "value": 1}
    assert items["before"]["process"] != items["after"]["process"]


@pytest.mark.parametrize("text", ["import no_such_module\n", "def items(settings):\n    raise OSError('none')\n"])
def test_a_stage_that_cannot_begin_says_why(
    script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    gpu = script("gpu")
    monkeypatch.setattr(gpu, "save", lambda *_: None)
    (tmp_path / "out.json").write_text("{}")
    record = run_planted(script, tmp_path, monkeypatch, text)[0]
    assert record["items"] == {}
    assert "the process ended with code 1" in record["ended"]
    assert ("no_such_module" in record["ended"]) != ("OSError: none" in record["ended"])


def test_a_stage_ends_with_its_time(script: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = run_planted(
        script, tmp_path, monkeypatch, PLANTED.replace("os._exit(7)", "time.sleep(60)"), seconds=3, item_seconds=9
    )
    assert record["ended"] == "the stage's time was used up"
    assert record["items"]["dies"] == {"skipped": "the stage's time was used up"}
    assert "last" not in record["items"]
    assert record["planned"] == 7


def test_the_stages_fit_into_ten_minutes(script: Load) -> None:
    gpu = script("gpu")
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


def test_times_are_those_of_graphs_where_calls_can_be_captured(script: Load) -> None:
    """The part that only a GPU runs otherwise, with the stand-in in the place of CuPy."""
    from minitorch_unet.simulator import standin

    standin.install()
    try:
        device = script("gpu_device").Device({"device": "cuda", "quick": True, "tiny": True})
        arrays = [device.random((1000,)) for _ in range(3)]
        assert abs(float(arrays[0].mean())) < 0.2
        assert float(abs(arrays[0] - arrays[1]).max()) > 0.1
        device.restart()
        assert float(abs(device.random((1000,)) - arrays[0]).max()) == 0
        with standin.counting() as seen:
            found = device.seconds([lambda x=x: x + 1 for x in arrays])
        assert found["timed"] == "graph"
        assert found["seconds"] > 0
        assert seen.replayed.total() == len(arrays) * (found["runs"] + 1)
        found = device.seconds([lambda: float(arrays[0].sum())])  # waits for its result
        assert found["timed"].startswith("calls; not captured: CaptureError")
        assert found["seconds"] > 0
        assert device.called_seconds(lambda: arrays[0] + 1, 2) > 0
        cache = device.cache
        assert device.copies(10 * cache) == 2
        assert device.copies(cache // 4) * (cache // 4) >= 3 * cache
    finally:
        standin.uninstall()


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


def test_reports_of_the_sanitizer_are_judged(script: Load) -> None:
    child, sanitizer = script("gpu_child"), script("gpu_stages.sanitizer")
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


def test_reports_of_pytest_are_counted(script: Load) -> None:
    child, suite = script("gpu_child"), script("gpu_stages.test_suite")
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
