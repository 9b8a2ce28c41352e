"""Pages that show source files with numbers of lines, made for the files that other pages point to."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {".py": "python", ".cpp": "cpp", ".h": "cpp", ".cu": "cuda", ".cuh": "cuda"}


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{path}</title>
<style>{css}</style></head>
<body><p><a href="{home}">minitorch_unet</a> / <strong>{path}</strong></p>
{code}</body></html>
"""
LAYOUT = """
body { margin: 1rem; font: 15px sans-serif; background: #fff; color: #222; }
a { color: #2a5db0; } .highlight { background: none; } pre { font-size: 13px; line-height: 1.45; overflow-x: auto; }
.highlight .linenos a { color: #999; text-decoration: none; padding-right: 1em; }
.highlight a:target + a .linenos { background: #ffe79c; }
"""
DARK = "body { background: #131416; color: #ddd; } a { color: #7aa7ee; } a:target + a .linenos { background: #5a4a10; }"


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
        """Markdown that leads to a line of the file, from a page that is `up` ("../" each) below the root.

        As HTML, since the page that it leads to is none of Sphinx's.
        """
        place = f"{path}, line {line}" if line else path
        anchor = f"#line-{line}" if line else ""
        text = text or f"`{place.removeprefix('minitorch_unet/')}`"
        return f'<a href="{up}{self.page(path)}.html{anchor}">{text}</a>'

    def link_to(self, thing: Any, up: str) -> str:
        """Markdown that leads to where a class or function is defined."""
        path = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT).as_posix()
        return self.link(path, inspect.getsourcelines(thing)[1], up=up)

    def write(self, site: Path) -> None:
        """Write the pages of all files that were asked for into the built site."""
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import get_lexer_by_name

        def form(style: str) -> HtmlFormatter[str]:
            return HtmlFormatter(lineanchors="line", anchorlinenos=True, linenos="inline", style=style)

        light, dark = (form(style).get_style_defs(".highlight") for style in ("tango", "monokai"))
        css = f"{LAYOUT}\n{light}\n@media (prefers-color-scheme: dark) {{ {DARK}\n{dark} }}"
        for path in sorted(self.wanted):
            text = (ROOT / path).read_text(encoding="utf-8")
            code = highlight(text, get_lexer_by_name(LANGUAGES[Path(path).suffix]), form("tango"))
            page = site / f"{self.page(path)}.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            home = "../" * (len(page.relative_to(site).parts) - 1) + "index.html"
            page.write_text(PAGE.format(path=path, css=css, home=home, code=code), encoding="utf-8")


def plain(text: str) -> str:
    """Prose from a docstring as Markdown: code in backticks stays, all other signs mean themselves."""
    parts = text.split("`")
    for i in range(0, len(parts), 2):
        parts[i] = "".join("\\" + sign if sign in "\\*_<>[]|#$~^" else sign for sign in parts[i])
    return "`".join(parts)
