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
            recomputing = contender == "ours recompute"
            memory = sum(layer.bytes for layer in layers) / 2**20 * (0.4 if recomputing else 0.6 if own else 1.1)
            times = {"forward_s": forward, "step_s": (3.2 if recomputing else 3) * forward}
            return {**times, "import_mib": 40, "peak_mib": 40 + memory}
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
    made = {form: curves(0.001 * (form == "winograd4"), 0.01) for form in ("direct", "winograd4")}
    return {"groups": groups, "machine": {**machine, "torch": {"python": "3", "torch": "0"}}, "curve": curve(made)}


def curves(shift: float, spread: float, steps: int = 40) -> dict[int, list[float]]:
    """Losses that fall for three seeds, which end `spread` apart; the second half `shift` higher."""
    return {
        seed: [1 / (step + 1) + spread * (seed - 1) + shift * (step >= steps // 2) for step in range(steps)]
        for seed in range(3)
    }


def curve(made: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """The curves as curve.py stores them."""
    runs = [{"form": form, "seed": seed, "loss": loss} for form, by in made.items() for seed, loss in by.items()]
    return {"settings": {}, "runs": runs}


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


def test_augment_compares_kinds_of_steps() -> None:
    how = ("--size", "188", "--base", "1", "--turns", "1", "--steps", "1", "--images", "1")
    row = json.loads(call("augment.py", *how))
    assert set(row["step_s"]) == set(row["batch_s"]) == {"plain", "usual", "elastic", "all"}
    assert set(row["ratio"]) == set(row["processor_ratio"]) == {"usual", "elastic", "all"}
    assert all(value > 0 for name in ("step_s", "batch_s", "ratio") for value in row[name].values())
    assert row["ratio"]["all"] == pytest.approx(row["step_s"]["all"] / row["step_s"]["plain"], rel=0.01)


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
    monkeypatch.setattr(run, "plan", lambda *settings: [group])
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


def test_run_measures_what_is_asked_for(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections, rounds and runs by option; the contenders in turns; every command with its own settings."""
    run = module("run")
    commands: list[list[str]] = []
    environments = []

    def fake(command: list[str], extra: Any = None, *rest: Any, **more: Any) -> dict[str, Any]:
        if command[1].endswith(".py"):
            commands.append(command[1:])
            environments.append(extra)
        return {"forward_s": 1.0}

    monkeypatch.setattr(run, "run_json", fake)
    file = tmp_path / "result.json"
    options = ["--only", "steps", "--only", "memory", "--rounds", "2", "--runs", "7", "--torch-python", "elsewhere"]
    monkeypatch.setattr(sys, "argv", ["run.py", "-o", str(file), *options])
    run.main()
    groups = json.loads(file.read_text())["groups"]
    assert {group["section"] for group in groups.values()} == {"steps", "memory"}
    steps = next(group for group in groups.values() if group["section"] == "steps")
    assert steps["size"] == 572 and steps["runs"] == 7
    assert [next(iter(round_)) for round_ in steps["rounds"]] == ["ours", "ours recompute"]
    recomputing = [command for command in commands if "--recompute" in command]
    assert len(recomputing) == 2 + 4  # rounds of steps, sizes of memory
    assert sum(extra == {"MINITORCH_UNET_KERNELS": "numpy"} for extra in environments) == 2
    assert sum("bfloat16" in command for command in commands) == 2
    runs = [command[command.index("--runs") + 1] for command in commands]
    assert runs == ["7"] * 2 * len(steps["rounds"][0]) + ["1"] * (len(commands) - 2 * len(steps["rounds"][0]))


def test_time_left_is_guessed(module: Any) -> None:
    """Known work is not counted; a machine that turns out slower makes the rest of the guess longer."""
    plan = module("plan")
    groups = plan.plan(False, plan.ROUNDS)
    assert list(dict.fromkeys(group.section for group in groups)) == list(plan.SECTIONS)
    jobs = [(group, *job) for group in groups for job in plan.missing(group, {})]
    assert len(jobs) == sum(group.rounds * len(group.contenders) for group in groups)
    clock = plan.Clock()
    assert 20 < clock.minutes(jobs) < 45
    assert clock.minutes(jobs[5:]) < clock.minutes(jobs)
    before = clock.minutes(jobs)
    clock.add(600, 1800)
    assert 2.5 * before < clock.minutes(jobs) < 3 * before
    done = {"rounds": [{who: {"failed": "x"} if who == "ours" else {} for who in groups[0].contenders}]}
    assert [number for number, who in plan.missing(groups[0], done) if who == "ours"] == [0, 1]
    assert [number for number, who in plan.missing(groups[0], done) if who != "ours"] == [1] * 6


def test_estimate_measures_nothing(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    text = call("run.py", "-o", file, "--estimate", "--rounds", "1")
    assert "together about" in text and "scaling: 28 measurements" in text
    assert not file.exists()


def test_coretype_is_not_handed_down(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    code = "import json, os; print('noise'); print(json.dumps({'found': sorted(os.environ), 'x': os.environ.get('X')}))"
    row = module("processes").run_json([sys.executable, "-c", code], {"X": "given"})
    assert "OPENBLAS_CORETYPE" not in row["found"] and row["x"] == "given"
    with pytest.raises(module("processes").Failed, match="made up"):
        module("processes").run_json([sys.executable, "-c", "raise SystemExit('made up')"])


def test_compare_prints_and_saves_ratios(tmp_path: Path) -> None:
    rival = tmp_path / "rival.py"
    rival.write_text('print(\'{"forward_s": 1e9, "step_s": 1e9, "peak_mib": 1e9}\')\n')
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


def test_power_law(module: Any) -> None:
    assert module("results").power_law([1, 3, 10], [5, 5 * 9, 500]) == pytest.approx((2, 5))


def test_glance_by_hand(module: Any) -> None:
    """Each ratio by the rivals it names: PyTorch's best or bfloat16, memory by layout, recomputing over ours."""
    steps = {
        "ours": (1, 4), "ours recompute": (1, 5), "ours numpy": (9, 16), "torch contiguous": (3, 10),
        "torch compiled": (2, 8), "torch bfloat16": (1.5, 2),
    }  # fmt: skip
    rows = {name: {"forward_s": f, "step_s": s} for name, (f, s) in steps.items()}
    peaks = {"ours": 300, "ours recompute": 200, "torch contiguous": 900, "torch channels_last": 400}
    held = {name: {"step_s": 1, "peak_mib": mib + 50, "import_mib": 50} for name, mib in peaks.items()}
    known = {"kind": "step", "size": 572, "base": 64, "batch": 1}
    groups = {
        "a": {"section": "steps", **known, "rounds": [rows]},
        "b": {"section": "memory", **known, "rounds": [held]},
        "c": {"section": "memory", **known, "size": 188, "rounds": [held]},
    }
    text = module("tables").glance({"groups": groups})
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()[2:]]
    assert [(title, ratio.strip("*")) for title, _, _, ratio in found] == [
        ("forward pass", "0.50×"), ("training step", "0.50×"), ("forward pass", "0.67×"), ("training step", "2.00×"),
        ("training step, NumPy alone", "2.00×"), ("peak memory of a step", "0.75×"), ("the same, recomputing", "0.50×"),
        ("training step, recomputing", "1.25×"),
    ]  # fmt: skip
    assert found[0][1:3] == ("1 s", "PyTorch compiled, 2 s")
    assert found[5][1:3] == ("300 MiB", "PyTorch channels_last, 400 MiB")
    memory = module("tables").peaks({"groups": groups}).splitlines()
    assert memory[3] == "| 572 px, base 64, batch 1 | 300 | 0.75× | 200 | 0.50× | 400 | 1.25× |"


@pytest.mark.parametrize(("shift", "verdict"), [(0.005, "within"), (0.02, "outside"), (-0.02, "outside")])
def test_verdict_on_curves(module: Any, shift: float, verdict: str) -> None:
    """Seeds end 0.01 apart in standard deviation; a shift of all curves is compared with that."""
    made = {"direct": curves(0, 0.01), "winograd4": curves(shift, 0.01)}
    text = module("tables").curve({"curve": curve(made)})
    assert f"**{verdict} the spread of seeds**" in text
    assert f"differ by at most {abs(shift):.4f}, in the mean by {shift:+.4f} ± 0.0000" in text
    assert "standard deviation of 0.0100" in text
    assert text.splitlines()[2].count(f"{shift:+.4f}") == 1


def test_no_verdict_without_a_spread(module: Any) -> None:
    """One seed, or seeds that only one form has, are no ground to judge by; nothing at all gives no table."""
    tables = module("tables")
    made = {"direct": curves(0, 0.01), "winograd4": {1: curves(0, 0)[1]}}
    text = tables.curve({"curve": curve(made)})
    assert "one seed says nothing" in text and "within" not in text
    assert tables.curve({"curve": curve({"direct": curves(0, 0), "winograd4": {}})}).count("winograd4") == 0
    assert tables.curve({}) == tables.curve({"curve": {"settings": {}, "runs": []}}) == ""


def test_curves_of_training(tmp_path: Path) -> None:
    """Two forms, two seeds: the same start, other rounding; what is there is kept; other settings are refused."""
    from minitorch_unet.backend.compiled import available
    from minitorch_unet.data import write_image

    if not available():
        pytest.skip("needs the compiled kernels")
    rng = np.random.default_rng(0)
    for folder, values in (("image", 256), ("label", 2)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(2):
            drawn = rng.integers(0, values, (48, 48)).astype(np.uint8)
            write_image(tmp_path / "data" / folder / f"{number}.png", drawn)
    file = tmp_path / "result.json"
    arguments = ["--data", tmp_path / "data", "--size", "188", "--base", "8", "--steps", "3", "--weights", "none"]
    first = call("curve.py", *arguments, "--seeds", "4", "-o", file)
    assert "direct, seed 4" in first
    second = call("curve.py", *arguments, "--seeds", "4,5", "-o", file)
    assert "direct, seed 4:" not in second and "winograd4, seed 5:" in second and "spread of seeds" in second
    stored = json.loads(file.read_text())
    losses = {(run["form"], run["seed"]): run["loss"] for run in stored["curve"]["runs"]}
    assert set(losses) == {(form, seed) for form in ("direct", "winograd4") for seed in (4, 5)}
    for seed in (4, 5):
        assert losses["direct", seed] != losses["winograd4", seed]
        np.testing.assert_allclose(losses["direct", seed][0], losses["winograd4", seed][0], rtol=1e-6)
        np.testing.assert_allclose(losses["direct", seed], losses["winograd4", seed], rtol=1e-2)
    assert abs(losses["direct", 4][0] - losses["direct", 5][0]) > 1e-4
    assert stored["groups"] == {} and "machine" in stored
    command = [sys.executable, FOLDER / "curve.py", *arguments, "--base", "4", "-o", file]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode and "'base': 8" in refused.stderr


def copied_documents(module: Any, folder: Path) -> dict[str, str]:
    """The documents in a scratch folder, and their text."""
    texts = {}
    for name in module("report").DOCUMENTS:
        texts[name] = (FOLDER.parent / name).read_text(encoding="utf-8")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(texts[name], encoding="utf-8")
    return texts


def test_report_fills_tables_and_draws(module: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    results = tmp_path / "sample.json"
    results.write_text(json.dumps(sample(module, 188, 16, quick=True)))
    originals = copied_documents(module, tmp_path)
    call("report.py", results, "--root", tmp_path)
    filled = {name: (tmp_path / name).read_text(encoding="utf-8") for name in originals}
    kernels, page = filled["kernels/README.md"], filled["docs/cpu-kernels.md"]
    assert "Not measured" not in kernels + page
    assert "| merge 3 conv 1 | 256→128 | 8→6 |" in kernels and "| merge 3 conv 1 |" not in page.split("## Try it")[1]
    assert "Slower than PyTorch" in kernels
    assert "| 188 px, base 16, batch 1, recomputing | PyTorch |" in kernels
    assert "within the spread of seeds" in page
    pictures = sorted((tmp_path / "docs" / "images").iterdir())
    expected = [f"bench-{name}.png" for name in ("ladder", "layers", "memory", "roofline", "scaling")]
    assert [picture.name for picture in pictures] == [*expected, "curve-direct-winograd.png"]
    for picture in pictures:
        assert f"(images/{picture.name})" in page
        assert f"(../docs/images/{picture.name})" in kernels or "curve" in picture.name
        assert np.asarray(Image.open(picture).convert("L")).std() > 10, f"{picture.name} is blank"
    # What stands outside the markers is as it was.
    fill = module("report").fill
    for name, text in filled.items():
        assert fill(text, lambda *_: "x") == fill(originals[name], lambda *_: "x") != originals[name]


def test_report_says_what_was_not_measured(module: Any, tmp_path: Path) -> None:
    """With one section only, and rivals that failed, no figure and no picture of an earlier run stays."""
    report = module("report")
    whole = sample(module, 188, 16, quick=True)
    kept = {key: group for key, group in whole["groups"].items() if group["section"] == "steps"}
    for group in kept.values():
        for round_ in group["rounds"]:
            round_.update({name: {"failed": "made up"} for name in round_ if not name.startswith("ours")})
    results = {"machine": whole["machine"], "groups": kept}
    (tmp_path / "bench-memory.png").write_text("earlier")
    drawn = report.draw_all(results, tmp_path)
    assert drawn == {} and not list(tmp_path.iterdir())
    parts = {name: report.part(name, "", results, drawn, tmp_path / "README.md") for name in report.PARTS}
    assert "188 px, base 16, batch 1" in parts["network"]
    assert "ours, " in parts["glance"] and "PyTorch," not in parts["glance"]  # recomputing beside not recomputing
    unmeasured = {name for name, text in parts.items() if text == report.NOTHING}
    assert unmeasured == set(report.PARTS) - {"machine", "network", "glance"}


def test_markers_must_be_pairs_of_known_parts(module: Any) -> None:
    fill = module("report").fill
    text = "a\n<!-- benchmarks: memory picture -->\nold\n<!-- /benchmarks: memory picture -->\nb"
    assert fill(text, lambda name, half: f"{name}, {half}") == text.replace("old", "memory, picture")
    other_end = text.replace("/benchmarks: memory picture", "/benchmarks: memory table")
    for broken in ("no markers", other_end, text + "<!-- benchmarks: memory -->"):
        with pytest.raises(ValueError, match="pairs"):
            fill(broken, lambda *_: "x")
    with pytest.raises(ValueError, match="no part 'memories'"):
        fill(text.replace("memory", "memories"), lambda *_: "x")
