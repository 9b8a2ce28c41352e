"""Pieces that the sections of the page are made of."""

from __future__ import annotations

from collections.abc import Sequence

from ..pages import escape


def panel(title: str, body: str) -> str:
    """A section with a title; `body` is HTML."""
    return f'<section class="panel"><h2>{escape(title)}</h2>{body}</section>'


def figure(title: str, body: str, text: str) -> str:
    """A small panel: title, chart, and a sentence about it (HTML)."""
    return f'<div class="panel"><h2>{escape(title)}</h2>{body}<p class="small">{text}</p></div>'


def table(rows: Sequence[Sequence[str]], bold: int = 0) -> str:
    """The first row is the head; `bold` rows after it are in bold. Text is escaped."""
    head, *rest = rows
    text = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    for i, row in enumerate(rest):
        style = ' class="bold"' if i < bold else ""
        text += f"</tr><tr{style}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row)
    return f'<div class="scroll"><table><tr>{text}</tr></table></div>'


def duration(seconds: float) -> str:
    """A time for people: 85 ms, 42 s, 3 min 5 s, 2 h 10 min."""
    if 0 < seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
