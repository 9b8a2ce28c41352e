"""The ablation script: a quick run to the table, what a variant changes, and the statistics of a made-up result."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import one_thread
from test_benchmarks import call, module

from minitorch_unet import Tensor, UNet
from minitorch_unet import functional as F
from minitorch_unet.config import TrainConfig

__all__ = ["module", "one_thread"]


def test_a_quick_run_fills_the_document_and_goes_on_where_it_was(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("above\n<!-- ablations: table -->\nold\n<!-- /ablations: table -->\nbelow\n")
    output = tmp_path / "a.json"
    how = ["-o", output, "--quick", "--only", "baseline", "--only", "no skip connections", "--root", tmp_path]
    call("ablations.py", *how, "--seeds", "0")
    first = json.loads(output.read_text())["runs"]
    out = call("ablations.py", *how, "--seeds", "0,1")
    runs = json.loads(output.read_text())["runs"]
    assert runs[:2] == first and [(r["variant"], r["seed"]) for r in runs[2:]] == [
        ("baseline", 1), ("no skip connections", 1),
    ]  # fmt: skip
    assert "seed 0:" not in out and runs[0]["dice"] != runs[2]["dice"]
    assert runs[0]["parameters"] == runs[1]["parameters"]
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    mean = (runs[0]["dice"] + runs[2]["dice"]) / 2
    assert f"| baseline | {mean:.3f} ± " in text and "| no skip connections | " in text


def test_without_skips_nothing_flows_through_them(module: Any) -> None:
    network = UNet(base=2, depth=1)
    module("ablations").without_skips(network)
    x = Tensor(np.random.default_rng(0).standard_normal((1, 1, 20, 20)).astype(np.float32))
    F.sum(network(x)).backward()
    weight = network.merge[0].block.conv1.weight
    assert weight.grad is not None
    gradient = weight.grad.numpy()  # (K, C, R, S): channels 0, 1 are the skip's, 2, 3 the upsampled map's
    assert not gradient[:, :2].any() and gradient[:, 2:].any()
    assert "down.1.conv1.weight" in dict(network.named_parameters())


def test_variants_are_legal_and_differ_from_the_baseline(module: Any) -> None:
    ablations = module("ablations")
    plain = TrainConfig()
    for name, variant in ablations.VARIANTS.items():
        if name == ablations.BASELINE:
            assert not variant.settings
        elif variant.settings:
            config = TrainConfig(**variant.settings)
            assert config != plain or name == "SGD, momentum 0.99"


def test_the_table_compares_seed_by_seed(module: Any) -> None:
    ablations = module("ablations")
    common = {"dice": 0.9, "iou": 0.8, "objects": 10, "objects_true": 9, "steps": 5}
    runs = [
        {"variant": name, "seed": seed, "seg": seg, **common}
        for name, values in (("baseline", (0.5, 0.7, 0.6)), ("dropout 0.5", (0.6, 0.8)))
        for seed, seg in enumerate(values)
    ]
    machine = {"cores": 2, "processor": "a processor"}
    text = ablations.table({"runs": runs, "scale": vars(ablations.QUICK), "machine": machine})
    assert "| baseline | 0.900 ± 0.000 | 0.800 ± 0.000 | 0.600 ± 0.100 |  | 10 of 9 | 5 |" in text
    assert "| 0.700 ± 0.141 | +0.100 ± 0.000 | 10 of 9 | 5 |" in text
    assert "seeds 0, 1, 2 (not all variants have all of them)" in text
    assert ablations.table({}) == "Not measured in this run."


def test_another_scale_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "a.json"
    output.write_text(json.dumps({"scale": {"base": 99}, "runs": []}))
    with pytest.raises(AssertionError, match="has runs of another scale"):
        call("ablations.py", "-o", output, "--quick")
