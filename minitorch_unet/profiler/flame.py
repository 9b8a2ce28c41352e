"""The flame picture of a profile: time from left to right, modules above one another, operations at the bottom.

Each box is as wide as the time it took; a module's box reaches over the operations of it that followed one another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from .. import svg
from ..tables import shape_text
from .call import Call

WIDTH, ROW, TOP, LEFT = 1000, 20, 40, 10
NARROWEST = 0.25  # pixels; narrower boxes are left out, which keeps the file small


class Span(NamedTuple):
    """A box: its row, from when to when (in seconds from the beginning), its text and what it belongs to."""

    row: int
    start: float
    end: float
    name: str
    kind: str  # a phase, or "module"
    detail: str


def module_levels(path: str, known: Collection[str]) -> list[str]:
    """The modules that hold the one at `path`, from the outermost to itself: "a", "a.b.0", not the list "a.b"."""
    parts = path.split(".") if path else []
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return [prefix for prefix in prefixes if prefix in known or prefix == path]


def spans(calls: Sequence[Call], paths: Collection[str], begin: float) -> list[Span]:
    """The boxes of the picture, row by row."""
    found: list[Span] = []
    open_: list[Span] = []  # boxes of modules that may still grow, from the outermost
    inner: list[float] = []  # ends of the calls that hold the next one
    for call in sorted(calls, key=lambda call: (call.start, -call.end)):
        start, end = call.start - begin, call.end - begin
        while inner and inner[-1] <= start:
            inner.pop()
        # Updates within a module are those of `backward_and_step`, in the midst of the backward pass.
        phase = "backward" if call.phase == "update" and call.module else call.phase
        levels = [phase, *module_levels(call.module, paths)]
        if not inner:
            same = 0
            while same < min(len(levels), len(open_)) and open_[same].name == levels[same]:
                open_[same] = open_[same]._replace(end=end)
                same += 1
            found += open_[same:]
            del open_[same:]
            for row in range(same, len(levels)):
                kind = phase if row == 0 else "module"
                open_.append(Span(row, start, end, levels[row], kind, ""))
        shapes = f"{_shapes(call.inputs)} -> {_shapes(call.outputs)}" if call.outputs else ""
        found.append(Span(len(open_) + len(inner), start, end, call.name, call.phase, shapes))
        inner.append(end)
    return [*found, *open_]


def _shapes(shapes: Iterable[tuple[int, ...] | None]) -> str:
    return " ".join(shape_text(shape) for shape in shapes if shape is not None)


def draw(calls: Sequence[Call], paths: Collection[str], begin: float, end: float) -> str:
    """The picture as SVG text; paths: of the modules, begin and end: of the profile, in the calls' seconds."""
    boxes = spans(calls, paths, begin)
    total = end - begin or 1.0
    bottom = TOP + ROW * (1 + max((box.row for box in boxes), default=0))
    parts = [svg.text(LEFT, 24, f"{len(calls)} calls in {total * 1e3:.1f} ms", "title")]
    for box in boxes:
        x, width = LEFT + WIDTH * box.start / total, WIDTH * (box.end - box.start) / total
        if width < NARROWEST:
            continue
        hover = f"{box.name}: {(box.end - box.start) * 1e3:.2f} ms, {100 * (box.end - box.start) / total:.1f} %"
        hover += f"\n{box.detail}" if box.detail else ""
        parts.append(svg.box(x, TOP + ROW * box.row, width, ROW - 1, box.kind, hover, svg.fitting(box.name, width - 6)))
    for part in range(5):  # a scale
        x, place = LEFT + WIDTH * part / 4, {0: "", 4: " last"}.get(part, " middle")
        parts.append(svg.text(x, bottom + 16, f"{total * part / 4 * 1e3:.1f} ms", f"faint{place}"))
    return svg.document(WIDTH + 2 * LEFT, bottom + 26, parts, "where the time of a step went")
