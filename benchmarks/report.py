"""Turn a result of run.py and curve.py into the tables and pictures of kernels/README.md and docs/cpu-kernels.md.

    python benchmarks/report.py benchmarks/results/NAME.json

Only the text between `<!-- benchmarks: NAME -->` and `<!-- /benchmarks: NAME -->` is replaced; the rest is written by
hand. NAME is one of PARTS, alone or with ` table` or ` picture` behind it for one half of the part. A part that the
result lacks says so, so that figures of different runs never stand side by side.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pictures
import tables

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("kernels/README.md", "docs/cpu-kernels.md")
# Part of a document: its table, and its picture if there is one.
PARTS = {
    "glance": (tables.glance, None),
    "machine": (tables.machine, None),
    "network": (tables.network, None),
    "layers": (tables.per_layer, pictures.layer_bars),
    "roofline": (None, pictures.roofline),
    "ladder": (tables.rungs, pictures.ladder_bars),
    "scaling": (tables.growth, pictures.scaling_curves),
    "memory": (tables.peaks, pictures.memory_bars),
    "engines": (tables.engines, None),
    "curve": (tables.curve, pictures.training_curves),
}
FILES = {"curve": "curve-direct-winograd.png"}  # others: bench-NAME.png
ALT = {
    "layers": "Time of every layer, this engine beside PyTorch", "roofline": "Roofline of the network's layers",
    "ladder": "Time of one layer on each rung of the ladder", "scaling": "Step time over size, width and batch",
    "memory": "Peak memory of a training step", "curve": "Training loss with direct and with Winograd's arithmetic",
}  # fmt: skip
Parts = dict[str, tuple[Callable[[dict[str, Any]], str] | None, Callable[[dict[str, Any], Path], bool] | None]]
NOTHING = "Not measured in this run."


def draw_all(
    results: dict[str, Any], images: Path, parts: Parts = PARTS, files: dict[str, str] = FILES
) -> dict[str, Path]:
    """Draw the pictures of all parts that were measured: {part: file}; the pictures of others are taken away."""
    drawn = {}
    for name, (_, draw) in parts.items():
        if draw:
            file = images / files.get(name, f"bench-{name}.png")
            if draw(results, file):
                drawn[name] = file
            else:
                file.unlink(missing_ok=True)
    return drawn


def part(
    name: str, half: str, results: dict[str, Any], drawn: dict[str, Path], document: Path, parts: Parts = PARTS,
    alt: dict[str, str] = ALT,
) -> str:  # fmt: skip
    """The generated text of a part, or of its "table" or "picture" only."""
    make_table = parts[name][0]
    pieces = []
    if name in drawn and half != "table":
        place = os.path.relpath(drawn[name], document.parent).replace(os.sep, "/")
        pieces.append(f"![{alt[name]}]({place})")
    if make_table and half != "picture":
        pieces.append(make_table(results))
    return "\n\n".join(piece for piece in pieces if piece) or NOTHING


def fill(text: str, content: Callable[[str, str], str], word: str = "benchmarks", parts: Parts = PARTS) -> str:
    """`text` with content(name, half) between every pair of markers that begin with `word`.

    Raises ValueError for markers that cannot be paired.
    """
    marker = rf"(<!-- {word}: ([a-z]+)((?: table| picture)?) -->\n).*?(<!-- /{word}: \2\3 -->)"

    def replaced(found: re.Match[str]) -> str:
        begin, name, half, end = found.groups()
        if name not in parts:
            raise ValueError(f"fill: there is no part {name!r}; known are {', '.join(parts)}")
        return f"{begin}{content(name, half.strip())}\n{end}"

    text, count = re.subn(marker, replaced, text, flags=re.DOTALL)
    if not 2 * count == len(re.findall(f"<!-- /?{word}:", text)) > 0:
        raise ValueError(f"fill: the text's markers are not pairs of <!-- {word}: NAME --> and its end")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with the documents and docs/images")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    images = options.root / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    drawn = draw_all(results, images)
    for name in DOCUMENTS:
        document = options.root / name
        content = functools.partial(part, results=results, drawn=drawn, document=document)
        document.write_text(fill(document.read_text(encoding="utf-8"), content), encoding="utf-8")
    print(f"filled {' and '.join(DOCUMENTS)}, drew {len(drawn)} pictures into {images}")


if __name__ == "__main__":
    main()
