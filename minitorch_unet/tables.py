"""Tables as text and as HTML, and what is written in them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def format_table(head: Sequence[str], lines: Sequence[Sequence[str]], html: bool = False) -> str:
    """Columns with a head; those whose entries are numbers stand to the right. Lines may be shorter than the head."""
    filled = [[*line, *[""] * (len(head) - len(line))] for line in lines]
    right = [_is_of_numbers([line[i] for line in filled]) for i in range(len(head))]
    if html:
        rows = [_row(head, right, "th"), *(_row(line, right, "td") for line in filled)]
        return f"<table>{''.join(rows)}</table>"
    widths = [max(len(line[i]) for line in [head, *filled]) for i in range(len(head))]
    text = []
    for line in [head, ["-" * width for width in widths], *filled]:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _is_of_numbers(cells: Sequence[str]) -> bool:
    return all(not cell or cell == "-" or cell.replace(",", "").replace(".", "", 1).isdigit() for cell in cells)


def _row(cells: Sequence[str], right: Sequence[bool], tag: str) -> str:
    style = [' style="text-align: right"' if r else "" for r in right]
    return f"<tr>{''.join(f'<{tag}{s}>{escape(c)}</{tag}>' for c, s in zip(cells, style, strict=True))}</tr>"


def size_text(size: int) -> str:
    """Bytes in the fitting unit."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def shape_text(shape: Sequence[int]) -> str:
    """2×3; "scalar" for a single value without axes."""
    return "×".join(map(str, shape)) or "scalar"
