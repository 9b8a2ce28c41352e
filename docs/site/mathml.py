"""Formulas as MathML, made while the site is built: no script, nothing from the network, in the colour of the text."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import latex2mathml.converter

FONT = "STIXTwoMath-Regular.ttf"  # comes with ziamath; STIX fonts may be passed on (SIL Open Font License)


def mathml(latex: str, display: str) -> str:
    """The markup of one formula; raises ValueError for LaTeX that is not understood."""
    try:
        made = str(latex2mathml.converter.convert(latex.strip(), display=display))
    except Exception as error:
        raise ValueError(f"formula {latex!r}: {type(error).__name__} {error}") from error
    # A name of a function stands apart from what follows without brackets: ln p.
    return re.sub(r"(<mi>(?:ln|max|min)</mi>)(?!<mo)", r'\1<mspace width="0.17em"/>', made)


def visit_inline(self: Any, node: Any) -> None:
    """A formula within a line."""
    import docutils.nodes

    self.body.append(mathml(node.astext(), "inline"))
    raise docutils.nodes.SkipNode


def visit_block(self: Any, node: Any) -> None:
    """A formula of its own."""
    import docutils.nodes

    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise docutils.nodes.SkipNode


def copy_font(app: Any, error: Exception | None) -> None:
    """Put the font beside the style sheet that names it."""
    found = importlib.util.find_spec("ziamath")
    if error is None and found and found.origin:
        shutil.copy(Path(found.origin).parent / "fonts" / FONT, Path(app.outdir) / "_static")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("build-finished", copy_font)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
