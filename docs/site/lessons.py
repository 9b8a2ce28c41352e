"""Lessons of the course as pages: their text, their code, and what the code printed and drew when the site was built.

`python docs/site/lessons.py SCRIPT FOLDER` runs one lesson and prints its page; each has a process of its own, in which
warnings are errors.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FIGURE = re.compile(r"^figure: (.+)\n", re.MULTILINE)  # what `minitorch_unet.course.show` prints


def output(printed: str) -> str:
    """The Markdown of what a cell has printed: text, and the pictures in their places."""
    parts = FIGURE.split(printed)
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"![{Path(part).stem}]({Path(part).name})\n"
        elif part.strip():
            parts[i] = f"```{{code-block}} text\n:class: output\n\n{part.rstrip()}\n```\n"
    return "\n".join(part for part in parts if part.strip())


def page(script: Path) -> str:
    """Run the lesson's cells one after another; raises what they raise."""
    import jupytext

    shared: dict[str, Any] = {"__name__": "__main__", "__file__": str(script)}
    text = []
    for number, cell in enumerate(jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent").cells, 1):
        if cell.cell_type != "code":
            text.append(cell.source + "\n")
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(cell.source, f"{script.name}, cell {number}", "exec"), shared)
        text.append(f"```python\n{cell.source}\n```\n")
        text.append(output(printed.getvalue()))
    run = f"python examples/course/{script.name}"
    text.append(f"---\n\nThis page is the script `examples/course/{script.name}` and its output: `{run}`.\n")
    return "\n".join(text)


def pages(scripts: Iterable[Path], folder: Path) -> dict[str, str]:
    """The pages of the scripts by name, run two at a time; figures are written into the folder."""

    def run(script: Path) -> tuple[str, str]:
        settings = os.environ | {
            "MPLBACKEND": "Agg", "MINITORCH_UNET_FIGURES": str(folder), "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }  # fmt: skip
        command = [sys.executable, "-W", "error", "-X", "utf8", __file__, str(script)]
        done = subprocess.run(command, env=settings, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{script.name} fails:\n{done.stderr}")
        return script.stem, done.stdout

    with ThreadPoolExecutor(2) as two:
        return dict(two.map(run, sorted(scripts)))


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
