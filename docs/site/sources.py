"""Pages that show source files with line numbers, made for the files that other pages point to."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {".py": "python", ".cpp": "cpp", ".h": "cpp", ".cu": "cuda", ".cuh": "cuda"}


class Sources:
    """Gives links to files of the repository and, in the end, writes the pages that these lead to."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()

    def page(self, path: str) -> str:
        """The page, without its ending, that shows the file; raises ValueError where there is none to show."""
        if not (ROOT / path).is_file() or Path(path).suffix not in LANGUAGES:
            raise ValueError(f"{path} is no source file of this repository")
        self.wanted.add(path)
        return f"sources/{path.replace('.', '-')}"

    def link(self, path: str, line: int | None = None, text: str = "", up: str = "") -> str:
        """Markdown that leads to a line of the file, from a page that is `up` ("../" each) below the root."""
        place = f"{path}, line {line}" if line else path
        anchor = f"#line-{line}" if line else ""
        return f"[{text or f'`{place}`'}]({up}{self.page(path)}.html{anchor})"

    def link_to(self, thing: Any, up: str) -> str:
        """Markdown that leads to where a class or function is defined."""
        path = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT).as_posix()
        return self.link(path, inspect.getsourcelines(thing)[1], up=up)

    def write(self, stage: Path) -> None:
        """Write the pages of all files that were asked for."""
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import get_lexer_by_name

        form = HtmlFormatter(lineanchors="line", anchorlinenos=True, linenos="inline", wrapcode=True)
        for path in sorted(self.wanted):
            text = (ROOT / path).read_text(encoding="utf-8")
            code = highlight(text, get_lexer_by_name(LANGUAGES[Path(path).suffix]), form)
            page = stage / f"{self.page(path)}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            note = ""
            if path.endswith(".py"):
                note = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
            body = f"---\norphan: true\n---\n# {path}\n\n{plain(note)}\n\n```{{raw}} html\n{code}\n```\n"
            page.write_text(body, encoding="utf-8")


def plain(text: str) -> str:
    """Prose from a docstring as Markdown: code in backticks stays, all other signs mean themselves."""
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = "".join("\\" + sign if sign in "\\*_<>[]|#$~^" else sign for sign in parts[i])
    return "`".join(parts)
