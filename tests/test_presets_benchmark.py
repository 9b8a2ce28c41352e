"""The script that trains each preset for two minutes: a quick run to the table, and what it may change of a preset."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_runs import one_thread
from test_benchmarks import call, module

from minitorch_unet import presets

__all__ = ["module", "one_thread"]


def test_a_quick_run_fills_the_document_and_goes_on_where_it_was(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "presets.md"
    page.parent.mkdir()
    page.write_text("above\n<!-- presets: table -->\nold\n<!-- /presets: table -->\nbelow\n")
    output = tmp_path / "p.json"
    how = ["-o", output, "--quick", "--root", tmp_path, "--only", "padded_rgb_sigmoid"]
    assert "padded_rgb_sigmoid: IoU" in call("presets.py", *how)
    first = json.loads(output.read_text())["runs"]["padded_rgb_sigmoid"]
    assert "padded_rgb_sigmoid: IoU" not in call("presets.py", *how)
    assert json.loads(output.read_text())["runs"] == {"padded_rgb_sigmoid": first}
    assert first["steps"] == 4 and first["settings"]["loss"] == "binary_cross_entropy"
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n") and "old" not in text
    assert f"| `padded_rgb_sigmoid` | {first['parameters']} | adam, 0.002 | 4 | " in text


def test_short_runs_keep_what_a_preset_is(module: Any) -> None:
    short = module("presets")
    assert set(short.SHORT) == set(presets.PRESETS)
    free = {"base", "epochs", "schedule", "tile", "batch", "lr"}
    for name, preset in presets.PRESETS.items():
        sgd = {"optimizer"} if preset.settings["optimizer"] == "sgd" else set()
        assert set(short.ALL | short.SHORT[name]) <= free | sgd
        presets.config(name, **(short.ALL | short.SHORT[name]))


def test_another_scale_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "p.json"
    output.write_text(json.dumps({"scale": {"pictures": 99}, "runs": {}}))
    with pytest.raises(AssertionError, match="has runs of another scale"):
        call("presets.py", "-o", output, "--quick")
