"""The network's arithmetic, the timing scripts on tiny sizes, tables and pictures of a made-up result."""

import importlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the benchmarks' folder as a script there would."""
    monkeypatch.syspath_prepend(FOLDER)
    imported: list[str] = []

    def load(name: str) -> ModuleType:
        imported.append(name)
        return importlib.import_module(name)

    yield load
    for name in [name for name, m in sys.modules.items() if str(FOLDER) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


def call(script: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> str:
    """What a script of the benchmarks prints; shows its error if it fails."""
    command = [sys.executable, "-W", "error", FOLDER / script, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sample(module: Any, size: int, base: int, quick: bool = False) -> dict[str, Any]:
    """A result as run.py writes it, its times by a simple model of a machine: PyTorch direct, ours Winograd."""
    network, run = module("network"), module("run")
    rng = np.random.default_rng(0)

    def near(value: float) -> float:
        return float(value * rng.uniform(0.95, 1.05))

    speed = {"naive": 2e9, "im2col": 2e11, "torch": 3e11, "direct": 4e11}
    speed |= {"winograd2": 6e11, "winograd4": 1e12, "auto": 1e12}
    error = {"naive": 3e-7, "im2col": 2e-7, "direct": 2e-7, "winograd2": 4e-7, "winograd4": 1e-6, "auto": 1e-6}

    def passes(layer: Any, name: str) -> dict[str, float]:
        weighted = layer.kind != "pool" and name != "naive"
        names = ["forward"] + ["input_grad"] * (not layer.first) + ["weight_grad"] * weighted
        return {n: near(layer.flops / speed[name] + layer.bytes / 8e10) for n in names}

    def row(group: Any, contender: str) -> dict[str, Any]:
        if contender == "torch compiled" and group.size != size:
            return {"failed": "made up"}
        layers = network.unet_layers(group.size, group.base, group.batch) if group.kind != "engine" else []
        if group.kind == "engine":
            return {"engine": f"{contender} 1.0", "forward_s": near(0.01), "both_s": near(0.03), "checksum": 1.0}
        if group.kind == "step":
            own = contender.startswith("ours")
            forward = sum(passes(layer, "auto" if own else "torch")["forward"] for layer in layers)
            memory = sum(layer.bytes for layer in layers) / 2**20
            times = {"forward_s": forward, "step_s": 3 * forward}
            return {**times, "import_mib": 40, "peak_mib": 40 + memory * (0.6 if own else 1.1)}
        if contender == "torch":
            rows = [{layout: passes(layer, "torch") for layout in ("contiguous", "last")} for layer in layers]
            return {"engine": "torch 0", "layers": [{"seconds": seconds} for seconds in rows]}
        rungs = ["auto"] if group.kind == "layers" else list(error)
        records = []
        for layer in layers:
            names = rungs if layer.kind == "conv3" else rungs[:1]
            errors = {name: dict.fromkeys(passes(layer, name), error[name]) for name in names}
            records.append({**layer.record(), "seconds": {n: passes(layer, n) for n in names}, "error": errors})
        peak = {"gflops": 5e2, "stream_gbs": 1e2}
        return {"engine": "ours", "kernels": "made up", "algorithms": rungs, "peak": peak, "layers": records}

    groups = {}
    for group in run.plan(quick, 2):
        load = {"load_before": 0.1, "load_after": 1.0}
        rounds = [{name: {**row(group, name), **load} for name in group.contenders} for _ in range(2)]
        known = {name: getattr(group, name) for name in ("section", "kind", "size", "base", "batch", "runs")}
        groups[group.key] = {**known, "rounds": rounds}
    versions = {"python": "3", "numpy": "2", "minitorch_unet": "0", "pools": [
        {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": "made up", "num_threads": 2}
    ]}  # fmt: skip
    machine = {"processor": "made up", "cores": 2, "system": "Linux", "ours": versions, "environment": {}}
    return {"groups": groups, "machine": {**machine, "torch": {"python": "3", "torch": "0"}}}


def test_arithmetic_of_the_papers_network(module: Any) -> None:
    layers = module("network").unet_layers(572, 64)
    macs = {kind: sum(layer.flops for layer in layers if layer.kind == kind) / 2e9 for kind in ("conv3", "up", "head")}
    assert sum(layer.kind == "conv3" for layer in layers) == 18
    assert round(macs["conv3"], 2) == 144.78
    assert round(macs["up"], 2) == 5.63
    assert round(sum(macs.values()), 2) == 150.43


def test_layers_fit_together(module: Any) -> None:
    """Each layer takes what the one before gives; merges the skip's channels too. Weights sum to the known number."""
    layers = module("network").unet_layers(572, 64, 2)
    for before, after in pairwise(layers):
        assert after.h == before.p
        assert after.c == (2 * before.k if before.kind == "up" else before.k)
    skips = {layer.name: layer.skip for layer in layers if layer.skip}
    assert skips == {"merge 3 conv 1": 64, "merge 2 conv 1": 136, "merge 1 conv 1": 280, "merge 0 conv 1": 568}
    weights = sum(layer.c * layer.k * {"conv3": 9, "up": 4, "head": 1, "pool": 0}[layer.kind] for layer in layers)
    biases = sum(layer.k for layer in layers if layer.kind != "pool")
    assert weights + biases == 31_030_658
    assert layers[-1].p == 388


def test_bytes_by_hand(module: Any) -> None:
    layer = module("network").Layer("any", "conv3", 2, 3, 5, 10)
    assert layer.bytes == 4 * (2 * 3 * 10 * 10 + 2 * 5 * 8 * 8 + 5 * 3 * 9)
    assert layer.flops == 2 * (2 * 5 * 8 * 8) * (3 * 9)


def test_step_prints_its_fields() -> None:
    row = json.loads(call("step.py", "--size", "188", "--base", "2", "--runs", "1"))
    assert {"engine", "kernels", "size", "base", "batch", "runs", "threads", "coretype"} <= set(row)
    assert row["output"] == [1, 2, 4, 4]
    assert row["forward_s"] > 0 and row["step_s"] > 0
    assert row["peak_mib"] >= row["import_mib"] > 0


@pytest.mark.parametrize("kernels", ["", "numpy"])
def test_layers_of_every_kind(kernels: str) -> None:
    arguments = ("--size", "188", "--base", "2", "--runs", "1", "--layer", "1")
    row = json.loads(call("layers.py", *arguments, environment={"MINITORCH_UNET_KERNELS": kernels}))
    assert {layer["kind"] for layer in row["layers"]} == {"conv3", "pool", "up"}
    assert row["peak"]["gflops"] > 0 and row["peak"]["stream_gbs"] > 0
    if "none" in row["kernels"]:
        assert row["algorithms"] == ["im2col"]
    for layer in row["layers"]:
        if layer["kind"] == "conv3":
            assert set(layer["seconds"]) == set(row["algorithms"])
        for algorithm, by_pass in layer["seconds"].items():
            assert "forward" in by_pass
            assert ("input_grad" in by_pass) == (not layer["first"])
            assert ("weight_grad" in by_pass) == (layer["kind"] != "pool" and algorithm != "naive")
            assert all(seconds > 0 for seconds in by_pass.values())
        assert all(0 < value < 1e-5 for by_pass in layer["error"].values() for value in by_pass.values())


def test_up_and_merge_passes_are_the_networks(module: Any) -> None:
    """The calls that layers.py times give what the functions of the engine give."""
    import minitorch_unet as mt
    from minitorch_unet import functional as F

    network, layers = module("network"), module("layers")
    kernels = layers.kernels_of(np)
    for layer in network.unet_layers(188, 2):
        if layer.name not in ("up 2", "merge 2 conv 1", "head"):
            continue
        a = layers.make_inputs(layer)
        sources = a["x"] if isinstance(a["x"], tuple) else (a["x"],)
        inputs = [mt.Tensor(source, requires_grad=True) for source in sources]
        weight, bias = mt.Tensor(a["weight"], requires_grad=True), mt.Tensor(a["bias"])
        joined = F.cat(inputs, 1) if len(inputs) > 1 else inputs[0]
        y = F.conv_transpose2d(joined, weight, bias, 2) if layer.kind == "up" else F.conv2d(joined, weight, bias)
        (y * mt.Tensor(a["gy"])).sum().backward()
        expected = {
            "forward": np.maximum(y.data, 0) if layer.kind == "conv3" else y.data,
            "input_grad": np.concatenate([source.grad.numpy() for source in inputs], 1),
            "weight_grad": weight.grad.numpy(),
        }
        for name, work in layers.make_passes(layer, kernels, a).items():
            np.testing.assert_allclose(work(), expected[name], rtol=1e-3, atol=1e-4, err_msg=f"{layer.name}, {name}")


def test_run_keeps_what_is_there(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there is extended: failures are tried again, measurements kept; no contender goes unrecorded."""
    run = module("run")
    group = run.Group("steps", "step", 188, 2, 1, ("ours", "torch contiguous"), 2, 1)
    monkeypatch.setattr(run, "plan", lambda quick, rounds: [group])
    asked: list[list[str]] = []

    def fake(command: list[str], *rest: Any, **more: Any) -> dict[str, Any]:
        if command[1].endswith(".py"):
            asked.append(command)
        return {"forward_s": float(len(asked))}

    monkeypatch.setattr(run, "run_json", fake)
    file = tmp_path / "folder" / "result.json"
    monkeypatch.setattr(sys, "argv", ["run.py", "-o", str(file)])
    run.main()
    first = json.loads(file.read_text())["groups"][group.key]["rounds"]
    assert [round_["ours"]["forward_s"] for round_ in first] == [1, 2]
    assert [round_["torch contiguous"]["failed"] for round_ in first] == ["no --torch-python given"] * 2
    monkeypatch.setattr(sys, "argv", ["run.py", "-o", str(file), "--torch-python", "elsewhere"])
    run.main()
    second = json.loads(file.read_text())["groups"][group.key]["rounds"]
    assert [command[0] for command in asked] == [sys.executable] * 2 + ["elsewhere"] * 2
    assert [round_["ours"] for round_ in second] == [round_["ours"] for round_ in first]
    assert all("failed" not in row for round_ in second for row in round_.values())


def test_coretype_is_not_handed_down(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    code = "import json, os; print('noise'); print(json.dumps({'found': sorted(os.environ), 'x': os.environ.get('X')}))"
    row = module("processes").run_json([sys.executable, "-c", code], {"X": "given"})
    assert "OPENBLAS_CORETYPE" not in row["found"] and row["x"] == "given"
    with pytest.raises(module("processes").Failed, match="made up"):
        module("processes").run_json([sys.executable, "-c", "raise SystemExit('made up')"])


def test_compare_prints_and_saves_ratios(tmp_path: Path) -> None:
    rival = tmp_path / "rival.py"
    rival.write_text("print('{\"forward_s\": 1e9, \"step_s\": 1e9, \"peak_mib\": 1e9}')\n")
    file = tmp_path / "ratios.json"
    arguments = ("--size", "188", "--base", "2", "--runs", "1", "--rounds", "1", "--json", str(file))
    assert "median ratios" in call("compare.py", "--rival", f"{sys.executable} {rival}", *arguments)
    saved = json.loads(file.read_text())
    assert set(saved["median_ratio"]) == {"forward_s", "step_s", "peak_mib"}
    assert saved["rounds"][0]["rivals"][0]["step_s"] == 1e9


def test_ratio_is_taken_within_rounds(module: Any) -> None:
    """The machine was slow in the second round: medians of times would hide that ours was always twice as fast."""
    rounds = [{"ours": {"step_s": t}, "a": {"step_s": 2 * t}, "b": {"step_s": 3 * t}} for t in (1.0, 10.0, 1.5)]
    rounds[0]["c"] = {"failed": "made up"}
    results = module("results")
    assert results.ratio({"rounds": rounds}, "ours", ("a", "b", "c"), results.step) == 0.5
    assert results.best({"rounds": rounds}, ("a", "b", "c"), results.step) == ("a", 3.0)
    assert results.ratio({"rounds": rounds}, "ours", ("c",), results.step) is None


def test_slope_of_a_power_law(module: Any) -> None:
    assert module("results").slope([1, 3, 10], [5, 5 * 9, 500]) == pytest.approx(2)


def test_report_fills_tables_and_draws(module: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    results = tmp_path / "sample.json"
    results.write_text(json.dumps(sample(module, 188, 16, quick=True)))
    readme = tmp_path / "README.md"
    original = (FOLDER.parent / "kernels" / "README.md").read_text(encoding="utf-8")
    readme.write_text(original, encoding="utf-8")
    call("report.py", results, "--readme", readme, "--images", tmp_path / "images")
    text = readme.read_text(encoding="utf-8")
    assert "Not measured" not in text
    assert "| merge 3 conv 1 | 256→128 | 8→6 |" in text
    assert "Slower than PyTorch" in text
    pictures = sorted((tmp_path / "images").iterdir())
    expected = ("ladder", "layers", "memory", "roofline", "scaling")
    assert [picture.name for picture in pictures] == [f"bench-{name}.png" for name in expected]
    for picture in pictures:
        assert f"(images/{picture.name})" in text
        assert np.asarray(Image.open(picture).convert("L")).std() > 10, f"{picture.name} is blank"
    # What stands outside the markers is as it was.
    fill, emptied = module("report").fill, dict.fromkeys(module("report").PARTS, "x")
    assert fill(text, emptied) == fill(original, emptied)


def test_report_says_what_was_not_measured(module: Any, tmp_path: Path) -> None:
    """With one section only, and rivals that failed, no figure of an earlier run stays."""
    report = module("report")
    whole = sample(module, 188, 16, quick=True)
    kept = {key: group for key, group in whole["groups"].items() if group["section"] == "steps"}
    for group in kept.values():
        for round_ in group["rounds"]:
            round_.update({name: {"failed": "made up"} for name in round_ if name != "ours"})
    results = {**whole, "groups": kept}
    parts = {name: report.part(name, results, tmp_path, tmp_path / "README.md") for name in report.PARTS}
    assert "188 px, base 16, batch 1" in parts["network"]
    unmeasured = {name for name, text in parts.items() if text == "Not measured in this run."}
    assert unmeasured == set(report.PARTS) - {"machine", "network"}
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="benchmarks: machine"):
        report.fill("no markers", parts)
