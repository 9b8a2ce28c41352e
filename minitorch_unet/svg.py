"""Pieces of SVG: boxes, texts and a document that is legible on a light and on a dark page, and needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

LETTER = 6.6  # pixels of a letter, 11 pixels high, on average and rather too many

# Colours by kind: fill and edge on light paper, then on dark.
KINDS = {
    "forward": ("#cfe3f7", "#2f6fae", "#1d3a57", "#6aa8e0"),
    "backward": ("#f9dccb", "#b85c24", "#57321d", "#e0956a"),
    "update": ("#dcecc9", "#5c8a26", "#33481d", "#9cc46a"),
    "module": ("#eeeeea", "#8a8a80", "#2e2e2b", "#8f8f86"),
    "parameter": ("#dcecc9", "#5c8a26", "#33481d", "#9cc46a"),
    "leaf": ("#fdf0c2", "#a8871a", "#4a401a", "#d6b84a"),
    "constant": ("#ffffff", "#8a8a80", "#1b1b19", "#8f8f86"),
}
PAPER, INK, FAINT = ("#ffffff", "#161616"), ("#1c1c1a", "#ecece6"), ("#5f5f58", "#b0b0a6")


def _style() -> str:
    light, dark = [], []
    for kind, (fill, edge, dark_fill, dark_edge) in KINDS.items():
        light.append(f".mtu .{kind}{{fill:{fill};stroke:{edge}}}")
        dark.append(f".mtu .{kind}{{fill:{dark_fill};stroke:{dark_edge}}}")
    for lines, shade in ((light, 0), (dark, 1)):
        lines.append(f".mtu .paper{{fill:{PAPER[shade]}}}.mtu text{{fill:{INK[shade]}}}")
        lines.append(f".mtu .faint{{fill:{FAINT[shade]}}}.mtu .edge{{stroke:{FAINT[shade]}}}")
        lines.append(f".mtu .head{{fill:{FAINT[shade]}}}")
    general = (
        ".mtu text{font:11px system-ui,sans-serif}.mtu .title{font-size:13px;font-weight:600}"
        ".mtu .name{font-weight:600}.mtu .edge{fill:none;stroke-width:1.2}.mtu .dashed{stroke-dasharray:4 3}"
        ".mtu .middle{text-anchor:middle}"
    )
    return f"<style>{general}{''.join(light)}@media(prefers-color-scheme:dark){{{''.join(dark)}}}</style>"


def document(width: float, height: float, parts: Sequence[str], title: str) -> str:
    """The whole picture; `title` is what screen readers say."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mtu" role="img" aria-label={quoteattr(title)} '
        f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}" '
        f'style="max-width:100%;height:auto">{_style()}<rect class="paper" width="100%" height="100%"/>'
        f"{''.join(parts)}</svg>\n"
    )


def text(x: float, y: float, content: str, classes: str = "") -> str:
    """A line of text."""
    kind = f' class="{classes}"' if classes else ""
    return f'<text x="{number(x)}" y="{number(y)}"{kind}>{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str, hover: str, label: str = "") -> str:
    """A rectangle of one of KINDS with a text that appears under the mouse, and perhaps one in it."""
    rect = (
        f'<rect class="{kind}" x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
        f'stroke-width="0.6"/>'
    )
    inside = text(x + 3, y + height / 2 + 4, label) if label else ""
    return f"<g><title>{escape(hover)}</title>{rect}{inside}</g>"


def fitting(content: str, width: float) -> str:
    """As much of the text as fits into this width; nothing where hardly a letter would."""
    letters = int(width / LETTER)
    if len(content) <= letters:
        return content
    return content[: letters - 1] + "…" if letters > 2 else ""


def number(value: float) -> str:
    """At most two decimals, and none where they are zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
