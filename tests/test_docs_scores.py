"""Every number in the tables of docs/scores.md, and that the page leaves no score out."""

import re

import pytest
from test_docs import ROOT, readme_blocks

from minitorch_unet import metrics

PAGE = ROOT / "docs" / "scores.md"
ROW = re.compile(r"^\| `(?P<code>[^`]+)` \| (?P<value>[\d.]+|inf) \|(?: `(?P<hand>[^`]+)` \|)?$", re.MULTILINE)
ROWS = [(m["code"], m["value"], m["hand"]) for m in ROW.finditer(PAGE.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def names() -> dict[str, object]:
    found: dict[str, object] = {}
    for block in readme_blocks().find_blocks(PAGE.read_text(encoding="utf-8")):
        exec(block.code, found)
    return found


@pytest.mark.parametrize(("code", "value", "hand"), ROWS, ids=[code for code, _, _ in ROWS])
def test_value(names: dict[str, object], code: str, value: str, hand: str | None) -> None:
    """As printed to its last digit, and exactly what is worked out by hand."""
    computed = float(eval(code, names))
    digits = len(value.partition(".")[2])
    assert f"{computed:.{digits}f}" == value
    if hand is not None:
        assert computed == pytest.approx(float(eval(hand, {"log": names["log"]})), abs=1e-12)


def test_every_table_row_with_a_number_is_checked() -> None:
    text = PAGE.read_text(encoding="utf-8")
    numbers = [line for line in text.splitlines() if re.match(r"^\|.*\| *[\d.]+ *\|", line)]
    assert len(numbers) + 1 == len(ROWS) > 45  # and one infinite


def test_no_score_is_left_out() -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = {"MembraneScores", "ObjectCounts", "per_class_scores", "surface_distances", "seg_scores"}  # of other scores
    assert [name for name in metrics.__all__ if name not in parts and f"{name}(" not in text] == []
