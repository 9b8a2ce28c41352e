"""Turn a result of gpu.py into the tables and pictures of the CUDA part of kernels/README.md.

    python benchmarks/gpu_report.py benchmarks/results/gpu-NAME.json

Only the text between `<!-- gpu: NAME -->` and `<!-- /gpu: NAME -->` is replaced, NAME being one of PARTS. A part that
the result lacks says so. A result of the simulator is refused: it has no times.
"""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any

import gpu_pictures
import gpu_tables
from report import ROOT, draw_all, fill, part

DOCUMENTS = ("kernels/README.md",)
PARTS = {
    "machine": (gpu_tables.machine, None),
    "checks": (gpu_tables.checks, None),
    "network": (gpu_tables.network, gpu_pictures.step_bars),
    "ladder": (gpu_tables.ladder, gpu_pictures.ladder_bars),
    "layers": (gpu_tables.per_layer, gpu_pictures.roofline),
    "others": (gpu_tables.others, None),
    "kernels": (gpu_tables.kernels, None),
}
FILES = {"network": "gpu-step.png", "ladder": "gpu-ladder.png", "layers": "gpu-roofline.png"}
ALT = {
    "network": "Forward pass and training step on a processor and on the GPU",
    "layers": "Roofline of the layers on the GPU", "ladder": "One layer on each rung of the ladder on the GPU",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with the documents and docs/images")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.results.read_text())
    if not results["timings_mean_something"]:
        parser.error(f"{options.results} is of the simulator: there is nothing to report")
    images = options.root / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    drawn = draw_all(results, images, PARTS, FILES)
    for name in DOCUMENTS:
        document = options.root / name
        content = functools.partial(part, results=results, drawn=drawn, document=document, parts=PARTS, alt=ALT)
        text = fill(document.read_text(encoding="utf-8"), content, "gpu", PARTS)
        document.write_text(text, encoding="utf-8")
    print(f"filled {' and '.join(DOCUMENTS)}, drew {len(drawn)} pictures into {images}")


if __name__ == "__main__":
    main()
