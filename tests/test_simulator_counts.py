"""The counts of benchmarks/cuda_counts.py against arithmetic, and the tables that it has written into the documents."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import inspection

ROOT = Path(__file__).resolve().parents[1]
simulated = pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module."""
    folder = ROOT / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("cuda_counts")
    for name in [name for name, m in sys.modules.items() if str(folder) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


def rung(counts: ModuleType, title: str) -> object:
    return next(rung for rung in counts.RUNGS if rung.title == title)


@simulated
def test_tiles_are_counted_as_arithmetic_has_it(counts: ModuleType) -> None:
    """Rung 2 on 32 channels, 48 filters, 8 x 8 pixels: 4 x 3 blocks of 16 x 16, 18 steps of 16."""
    found = counts.count(rung(counts, "2 tiled, float32"), "forward", c=32, k=48, h=10)
    blocks, steps, warps = 4 * 3, 9 * 32 // 16, 8
    assert found.launch.kernel == "conv_tiled_forward"
    assert (found.launch.grid, found.launch.block) == ((4, 3, 1), 256)
    assert found.barriers == blocks * steps * 2
    assert found.read == blocks * steps * 2 * 16 * 16 * 4  # two tiles of 16 x 16 floats, each read once, nothing wasted
    assert found.sectors == (found.read // 32, found.read // 32)
    # A warp writes two rows of 17 floats of either tile, in two passes, and reads two values for each of 16 products.
    written, read = blocks * steps * warps * 2, blocks * steps * warps * 2 * 16
    assert found.passes == (2 * written + read, written + read)
    assert found.wgmmas == 0


@simulated
def test_hoppers_engines_are_counted_as_arithmetic_has_it(counts: ModuleType) -> None:
    """Rung 5 on 64 channels, 128 filters, 16 x 16 pixels: two tiles of 16 x 8, boxes of 18 rows for three taps."""
    pytest.importorskip("ml_dtypes")
    found = counts.count(rung(counts, "5 hopper, bfloat16"), "forward")
    assert found.read == 2 * 3 * (18 * 8 + 3 * 128) * 64 * 2
    assert found.wgmmas * 64 * 128 * 16 == counts.FMAS
    assert found.sectors == (0, 0)
    # Input gradient: three tiles of 32 x 8 pixels and 64 channels, two pieces of 64 filters. A box has 34 x 8 pixels,
    # of which those outside of gy's 16 x 16 are no bytes of memory; of its columns q - s .. q - s + 7 some are inside.
    grad = counts.count(rung(counts, "5 hopper, bfloat16"), "input_grad")
    inside = sum(0 <= column < 16 for q in (0, 8, 16) for s in range(3) for column in range(q - s, q - s + 8))
    assert grad.read == 2 * (inside * 16 * 128 + 3 * 9 * 64 * 128)
    assert grad.wgmmas == 3 * 2 * 9 * (64 // 16) * (32 * 8 // 64)


@simulated
def test_what_a_lower_rung_serves_is_refused(counts: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"5 hopper, TF32, weight_grad: launched \['conv_"):
        counts.count(rung(counts, counts.LOWER[0]), counts.LOWER[1], c=16, k=16, h=6)


def tables() -> dict[str, list[list[str]]]:
    """The tables between the documents' markers, as cells."""
    found = {}
    for name in ("docs/cuda-kernels.md", "kernels/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for part, body in re.findall(r"<!-- counts: (\w+) -->\n(.*?)<!-- /counts: \1 -->", text, re.DOTALL):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
            assert re.fullmatch(r"-+:?", rows[1][0])
            found[part] = [rows[0], *rows[2:]]
    return found


def test_tables_in_the_documents_have_the_scripts_form(counts: ModuleType) -> None:
    """Heads, and a row for every rung and pass, for every source: what is new asks for `cuda_counts.py` to be run."""
    found = tables()
    assert {part: rows[0] for part, rows in found.items()} == counts.PARTS
    cases = [[rung.title, counts.TITLES[direction]] for rung, direction in counts.CASES]
    for part in ("traffic", "instructions"):
        assert [row[:2] for row in found[part][1:]] == cases
        assert all(len(row) == len(found[part][0]) and all(row) for row in found[part])
    sources = [
        [f"`{path.name}`", str(len(source.budgets)), str(len(source.variants))]
        for path in inspection.sources()
        for source in [inspection.read_source(path)]
    ]
    assert [row[:3] for row in found["kernels"][1:]] == sources


def test_only_the_chosen_tables_are_written(
    counts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in counts.DOCUMENTS:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(counts, "tables_of", lambda parts: {part: f"| new {part} |" for part in parts})
    monkeypatch.setattr(sys, "argv", ["cuda_counts.py", "--parts", "traffic", "--root", str(tmp_path)])
    counts.main()
    before, after = ((folder / "docs/cuda-kernels.md").read_text(encoding="utf-8") for folder in (ROOT, tmp_path))
    assert counts.current(after) == counts.current(before) | {"traffic": "| new traffic |"}
    assert after.replace("| new traffic |", counts.current(before)["traffic"]) == before
    assert (tmp_path / "kernels/README.md").read_text() == (ROOT / "kernels/README.md").read_text()


def test_every_source_has_a_row_in_the_readme() -> None:
    """File by file: idea, bound, variants; headers are named below the table."""
    text = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")
    section = text.partition("## CUDA, file by file")[2].partition("<!-- counts")[0]
    rows = dict(re.findall(r"^\| `(\w+\.cu)` \| (.+) \|$", section, re.MULTILINE))
    folder = ROOT / "kernels" / "cuda"
    assert set(rows) == {path.name for path in folder.glob("*.cu")}
    assert all(cells.count(" | ") == 2 for cells in rows.values())
    assert {path.name for path in folder.glob("*.cuh")} <= set(re.findall(r"`(\w+\.cuh)`", section))
