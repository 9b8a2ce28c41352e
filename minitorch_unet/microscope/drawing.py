"""The U as a picture (SVG): a box for each stage, as wide as it has channels and as high as its map; arrows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..pages import escape
from .record import StageRecord

HEIGHT, WIDTH = 176, 60  # pixels of the highest and of the widest box
LEAST = 7  # pixels of a box, however small it is
GAP, LEVEL_GAP, MARGIN, LINE = 34, 34, 30, 14
PAIR_GAP = 16  # behind two stacks that are joined, whose text is long


@dataclasses.dataclass
class Box:
    """Where a stage is drawn."""

    x: float
    y: float
    w: float
    h: float

    @property
    def middle(self) -> float:
        """Half-way down."""
        return self.y + self.h / 2


def lay_out(records: Sequence[StageRecord], up_first: bool, below: float) -> dict[str, Box]:
    """A box for each stage: one row for each level, going down on the left and up on the right, `below` for text."""
    tallest = max(r.shape[1] for r in records)
    widest = max(r.shape[0] for r in records)
    boxes: dict[str, Box] = {}
    last = Box(MARGIN - GAP, 0, 0, 0)
    for r in records:
        w, h = max(LEAST, r.shape[0] / widest * WIDTH), max(LEAST, r.shape[1] / tallest * HEIGHT)
        kind = r.stage.kind
        if kind == "crop":  # beside the upsampled maps, which it is joined with
            up = boxes[f"up {r.stage.level}"]
            boxes[r.stage.name] = Box(up.x + up.w if up_first else up.x - w, 0, w, h)
            last = boxes[r.stage.name] if up_first else up
            continue
        x = last.x if kind in ("pool", "up") else last.x + last.w + GAP
        x += PAIR_GAP * (len(r.stage.inputs) - 1) if kind == "conv" else 0
        boxes[r.stage.name] = last = Box(x, 0, w, h)
    y = 34.0
    for level in range(max(r.stage.level for r in records) + 1):
        row = [boxes[r.stage.name] for r in records if r.stage.level == level]
        height = max(box.h for box in row)
        for box in row:
            box.y = y + (height - box.h) / 2
        y += height + below + LEVEL_GAP
    return boxes


def draw(records: Sequence[StageRecord], up_first: bool) -> str:
    """The SVG element. Each stage is a group with `data-stage`, its number; scripts give it its looks and its part."""
    square = all(r.shape[1] == r.shape[2] for r in records)
    below = LINE + 4 if square else 2 * LINE + 2
    boxes = lay_out(records, up_first, below)
    by_name = {r.stage.name: r for r in records}
    width = max(box.x + box.w for box in boxes.values()) + MARGIN + 62
    height = max(box.y + box.h for box in boxes.values()) + below + 16
    parts = [_arrows(r, boxes, below) for r in records]
    parts += [_stage(i, r, by_name, boxes[r.stage.name]) for i, r in enumerate(records)]
    scores = boxes["scores"]
    at = scores.x + scores.w + GAP + 9
    parts.append(_arrow("one", scores.x + scores.w + 2, scores.middle, at - 11, scores.middle))
    parts.append(
        f'<g class="loss" id="loss-mark"><circle cx="{at:.1f}" cy="{scores.middle:.1f}" r="9"/>'
        f'<text x="{at:.1f}" y="{scores.middle + 24:.1f}">loss</text></g>'
    )
    return (
        f'<svg id="u" viewBox="0 0 {width:.0f} {height:.0f}" style="min-width:{min(width, 880):.0f}px;'
        f'max-width:{1.25 * width:.0f}px" role="group" aria-label="The network, a box for each stage">'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(parts)}</svg>"
    )


def _stage(number: int, r: StageRecord, by_name: dict[str, StageRecord], box: Box) -> str:
    channels, rows, columns = r.shape
    lines = [f"{rows}²"] if rows == columns else [f"{rows}×", str(columns)]
    label = f"{r.stage.name}: {channels} {'map' if channels == 1 else 'maps'} of {rows} × {columns} pixels"
    middle, above = box.x + box.w / 2, str(channels)
    if r.stage.kind in ("up", "crop"):  # the two stand close together: one text for both, above the upsampled maps
        other = by_name[f"{'crop' if r.stage.kind == 'up' else 'up'} {r.stage.level}"]
        up_first = r.stage.name == by_name[f"merge {r.stage.level} conv 1"].stage.inputs[0]
        first, second = (channels, other.shape[0]) if up_first else (other.shape[0], channels)
        above, lines = (f"{first} + {second}", lines) if r.stage.kind == "up" else ("", [])
        middle = box.x + box.w if up_first else box.x  # where the two meet
    rows_of_text = [(above, box.y - 6, ""), *((line, box.y + box.h + LINE * i, ' class="size"')
                                              for i, line in enumerate(lines, start=1))]  # fmt: skip
    texts = "".join(
        f'<text x="{middle:.1f}" y="{y:.1f}"{extra}>{escape(text)}</text>' for text, y, extra in rows_of_text if text
    )
    inner = _window(number, by_name, r, box)
    halo = f'x="{box.x - 4:.1f}" y="{box.y - 4:.1f}" width="{box.w + 8:.1f}" height="{box.h + 8:.1f}" rx="3"'
    body = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.w:.1f}" height="{box.h:.1f}"'
    reach = (
        f'x="{box.x - 9:.1f}" y="{box.y - 18:.1f}" width="{box.w + 18:.1f}" height="{box.h + 36:.1f}"'
        if above
        else body
    )
    return (
        f'<g class="stage {r.stage.kind}" data-stage="{number}" role="button" tabindex="-1" '
        f'aria-label="{escape(label)}"><title>{escape(label)}</title>'
        f'<rect class="halo" {halo}/><rect class="body" {body}/>{inner}{texts}<rect class="reach" {reach}/></g>'
    )


def _window(number: int, by_name: dict[str, StageRecord], r: StageRecord, box: Box) -> str:
    """What of this stage is used further on: the crop for the skip connection; of the input, where scores lie."""
    if r.stage.kind == "input":
        used = by_name["scores"].shape[1]
    elif r.stage.name.startswith("down") and f"crop {r.stage.level}" in by_name and r.stage.name.endswith("2"):
        used = by_name[f"crop {r.stage.level}"].shape[1]
    else:
        return ""
    h = box.h * used / r.shape[1]
    if used == r.shape[1]:
        return ""
    return (
        f'<rect class="window" x="{box.x - 2:.1f}" y="{box.middle - h / 2:.1f}" width="{box.w + 4:.1f}" '
        f'height="{h:.1f}"/>'
    )


def _arrows(r: StageRecord, boxes: dict[str, Box], below: float) -> str:
    """The arrow to this stage from the one it is computed from; `below`: pixels of the text under a box."""
    box, stage = boxes[r.stage.name], r.stage
    if stage.kind == "input":
        return ""
    source = boxes[stage.inputs[0]]
    if stage.kind == "pool":
        x = box.x + min(box.w, source.w) / 2
        return _arrow("pool", x, source.y + source.h + below, x, box.y - 19)
    if stage.kind == "up":
        x = box.x + min(box.w, source.w) / 2
        return _arrow("up", x, source.y - 19, x, box.y + box.h + below + 2)
    if stage.kind == "crop":
        up = boxes[f"up {stage.level}"]
        target = min(box.x, up.x)  # before both, whichever comes first
        return _arrow("skip", source.x + source.w + 5, source.middle, target - 4, box.middle)
    pair = [boxes[name] for name in stage.inputs]
    start = max(b.x + b.w for b in pair)
    return _arrow("one" if stage.kind == "scores" else "conv", start + 3, pair[-1].middle, box.x - 4, box.middle)


def _arrow(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line class="arrow {kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" marker-end="url(#tip)"/>'
    )
