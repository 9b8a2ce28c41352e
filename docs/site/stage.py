"""Collects what the site is made of in one folder: the pages of docs, of other folders, lessons, and reference pages.

Links between files of the repository are rewritten to links between pages; a link to a source file leads to a page that
shows it. A link to anything else of the repository fails, here or as a warning of Sphinx.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

import functions
import lessons
import modules
from sources import LANGUAGES, ROOT, Sources

# Pages that have their place elsewhere in the repository.
ELSEWHERE = {
    "kernels/README.md": "kernels.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"(?<!`)(!?\[[^\]]*\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def staged_pages() -> dict[str, str]:
    """Path in the repository -> path on the site, of every page that is copied."""
    own = {path.relative_to(ROOT).as_posix(): path.name for path in (ROOT / "docs").glob("*.md")}
    course = {script.relative_to(ROOT).as_posix(): f"course/{script.stem}.md" for script in scripts()}
    return own | ELSEWHERE | course | {"README.md": "index.md"}


def scripts() -> list[Path]:
    """The lessons of the course."""
    return sorted((ROOT / "examples" / "course").glob("[0-9]*.py"))


def rewritten(text: str, path: str, pages: dict[str, str], sources: Sources) -> str:
    """The text of the page at `path` with links that hold on the site."""
    here = posixpath.dirname(pages[path])
    site_depth = pages[path].count("/")

    def replace(match: re.Match[str]) -> str:
        start, target, anchor = match[1], match[2], match[3] or ""
        repository = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if path.startswith("examples/course/") and target.endswith(".png"):
            site = f"course/{target}"
        elif repository.startswith("docs/images/"):
            site = repository.removeprefix("docs/")
        elif repository in pages:
            site = pages[repository]
        elif Path(repository).suffix in LANGUAGES and (ROOT / repository).is_file():
            return sources.link(repository, text=start.lstrip("!")[1:-2], up="../" * site_depth)
        elif (ROOT / repository).exists():  # a folder, or a file that is not shown: its name says enough
            return start.lstrip("!")[1:-2]
        else:
            raise ValueError(f"{path} links to {target}, which does not exist")
        return f"{start}{posixpath.relpath(site, here or '.')}{anchor})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts)


def stage(folder: Path) -> Sources:
    """Write everything into the folder, which is emptied first; returns the sources that pages point to."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "course").mkdir(parents=True)
    sources = Sources()
    pages = staged_pages()
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in pages if path.endswith(".md")}
    del texts["README.md"]  # whose place docs/index.md takes
    made = lessons.pages(scripts(), folder / "course")
    texts |= {f"examples/course/{name}.py": text for name, text in made.items()}
    for path, text in texts.items():
        (folder / pages[path]).write_text(rewritten(text, path, pages, sources), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "images", folder / "images")
    functions.write(folder, sources)
    modules.write(folder, sources)
    return sources
