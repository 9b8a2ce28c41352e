"""Turn a result of run.py into the tables of kernels/README.md and the pictures in docs/images.

    python benchmarks/report.py benchmarks/results/NAME.json

Only the text between `<!-- benchmarks: NAME -->` and `<!-- /benchmarks: NAME -->` is replaced; the rest is written by
hand. A part that the result lacks says so, so that figures of different runs never stand side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import pictures
import tables

ROOT = Path(__file__).resolve().parents[1]
# Part of the README: its table, and its picture if there is one.
PARTS = {
    "machine": (tables.machine, None),
    "network": (tables.network, None),
    "layers": (tables.per_layer, pictures.layer_bars),
    "roofline": (None, pictures.roofline),
    "ladder": (tables.rungs, pictures.ladder_bars),
    "scaling": (tables.growth, pictures.scaling_curves),
    "memory": (tables.peaks, pictures.memory_bars),
    "engines": (tables.engines, None),
}
ALT = {
    "layers": "Time of every layer, this engine beside PyTorch", "roofline": "Roofline of the network's layers",
    "ladder": "Time of one layer on each rung of the ladder", "scaling": "Step time over size, width and batch",
    "memory": "Peak memory of a training step",
}  # fmt: skip


def part(name: str, results: dict[str, Any], images: Path, readme: Path) -> str:
    """The generated text of a part; its picture is drawn into `images`."""
    make_table, draw = PARTS[name]
    pieces = [make_table(results)] if make_table else []
    if draw:
        picture = images / f"bench-{name}.png"
        if draw(results, picture):
            place = os.path.relpath(picture, readme.parent).replace(os.sep, "/")
            pieces.insert(0, f"![{ALT[name]}]({place})")
    return "\n\n".join(piece for piece in pieces if piece) or "Not measured in this run."


def fill(text: str, contents: dict[str, str]) -> str:
    """`text` with what stands between the markers replaced. Raises ValueError for a part whose markers are missing."""
    for name, content in contents.items():
        begin, end = f"<!-- benchmarks: {name} -->", f"<!-- /benchmarks: {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"fill: the text has no part between {begin} and {end}")
        replacement = f"{begin}\n{content}\n{end}"
        text = pattern.sub(lambda _, replacement=replacement: replacement, text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--readme", type=Path, default=ROOT / "kernels" / "README.md")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    options.images.mkdir(parents=True, exist_ok=True)
    contents = {name: part(name, results, options.images, options.readme) for name in PARTS}
    options.readme.write_text(fill(options.readme.read_text(encoding="utf-8"), contents), encoding="utf-8")
    print(f"filled {options.readme}, drew into {options.images}")


if __name__ == "__main__":
    main()
