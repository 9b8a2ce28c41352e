"""Run the `sh` and `python` blocks of README.md, one after another, in a scratch copy of the checkout.

A block fenced as ```sh runs in bash, one fenced as ```python in the Python that runs this file; both find the
environment's commands first. Blocks in any other language (```console, ```text) are illustrations. The python blocks
of other pages, which build on one another, are run by the tests through `run_page`.
`<!-- ci: skip REASON -->` on the line above a block skips it. `.ci/run` has called `make test` and a
shortened demo just before, so the lines `make test` and `make demo` are not run again; the argument names the
folder with that demo's results, which the blocks find in runs/demo.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
)
ALREADY_RUN = ("make test", "make demo")
BLOCK = re.compile(
    r"^(?:<!-- ci: skip (?P<reason>.+?) -->\n+)?```(?P<language>sh|python)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One fenced block: its line in the file, its language, its code, and the reason to skip it, if any."""

    line: int
    language: str
    code: str
    reason: str | None


def find_blocks(text: str) -> list[Block]:
    """Return the blocks of a Markdown text that are to be run or were marked as skipped."""
    blocks = []
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        blocks.append(Block(line, found["language"], found["code"], found["reason"]))
    return blocks


def without_already_run(code: str) -> str:
    """Replace the commands that `.ci/run` has just called by a note."""
    lines = [
        f"echo '   ({line.strip()}: already run)'" if line.split("#")[0].strip() in ALREADY_RUN else line
        for line in code.splitlines()
    ]
    return "\n".join(lines) + "\n"


def run(block: Block, folder: Path) -> int:
    """Run one block in `folder` and return its exit status."""
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    if block.language == "python":
        command = [sys.executable, "-W", "error", "-c", block.code]
    else:
        command = ["bash", "-euo", "pipefail", "-c", without_already_run(block.code)]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def run_page(page: Path) -> int:
    """Run a page's python blocks in order, in this process and in one namespace, and return their number.

    For pages whose blocks build on one another. An error's traceback names the page and its line.
    """
    blocks = [block for block in find_blocks(page.read_text(encoding="utf-8")) if block.language == "python"]
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks:
        if not block.reason:
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
    return len(blocks)


def main(demo: Path) -> int:
    """Run all blocks; the first failure ends the run."""
    blocks = find_blocks((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkout"
        shutil.copytree(CHECKOUT, folder, ignore=NOT_COPIED)
        shutil.copytree(demo, folder / "runs" / "demo")
        (folder / ".venv").symlink_to(sys.prefix)
        for block in blocks:
            if block.reason:
                print(f"-- README.md:{block.line} skipped: {block.reason}", flush=True)
                continue
            print(f"-- README.md:{block.line} ({block.language})", flush=True)
            status = run(block, folder)
            if status:
                print(f"README.md:{block.line}: block failed with exit status {status}", file=sys.stderr)
                return 1
    print(f"{len(blocks)} blocks of README.md, all good")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
