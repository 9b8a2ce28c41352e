"""Places for the boxes of a directed graph without cycles, from top to bottom (Sugiyama's way, in four steps).

1. Every box gets a row below all boxes that lead to it. Rows of boxes alternate with rows for the edges' labels.
2. An edge becomes a chain of stops, one in each row that it passes: thin ones in rows of boxes, one as wide as its
   label in the row above its target. From here on boxes and stops are alike, and no edge meets a box or a label.
3. Each row is put in order: again and again by the mean place of the neighbours in the row above, then below.
4. Each row is given coordinates, in that order: as near as possible to the neighbours' mean, without overlap. Some
   neighbours pull more than others, so that what leads from box to box is straight, and long edges are so in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

GAP, LANE = 14.0, 6.0  # pixels between neighbours; width of a stop without label
SWEEPS = 24
STRONG, WEAK = 8.0, 1.0  # pulls


@dataclasses.dataclass
class Layout:
    """Where everything goes, in pixels. Boxes are as wide and high as asked for, (x, y) their upper left corners."""

    width: float
    height: float
    corners: list[tuple[float, float]]
    routes: list[list[tuple[float, float]]]  # of each edge: points from the source's lower side to the target's upper
    labels: list[tuple[float, float]]  # of each edge: middle of its label


class _Item:
    """A box or a stop of an edge."""

    def __init__(self, row: int, width: float) -> None:
        self.row, self.width, self.x = row, width, 0.0  # x: of the middle
        self.above: list[_Item] = []
        self.below: list[_Item] = []
        self.pulls: dict[int, float] = {}  # of neighbours, by id


def layered(
    sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], label_sizes: Sequence[tuple[float, float]]
) -> Layout:
    """Lay out boxes of (width, height) and edges (source, target); `label_sizes`, one for each edge, may be (0, 0).

    Raises ValueError for a cycle.
    """
    rows_of = _rows(len(sizes), edges)
    boxes = [_Item(row, width) for row, (width, _) in zip(rows_of, sizes, strict=True)]
    fed = {target for _, target in edges}
    chains: list[list[_Item]] = []
    for (source, target), (width, _) in zip(edges, label_sizes, strict=True):
        last = boxes[target].row - 1
        stops = [_Item(r, max(width, LANE) if r == last else LANE) for r in range(boxes[source].row + 1, last + 1)]
        chains.append(chain := [boxes[source], *stops, boxes[target]])
        long = len(chain) > 3
        for i, (upper, lower) in enumerate(pairwise(chain)):
            upper.below.append(lower)
            lower.above.append(upper)
            weak = (long and i in (0, len(chain) - 2)) or source not in fed
            upper.pulls[id(lower)] = lower.pulls[id(upper)] = WEAK if weak else STRONG
    rows: list[list[_Item]] = [[] for _ in range(max(rows_of, default=0) + 1)]
    for item in [*boxes, *(stop for chain in chains for stop in chain[1:-1])]:
        rows[item.row].append(item)
    _order(rows)
    _place(rows)

    heights = [0.0] * len(rows)
    for box, (_, height) in zip(boxes, sizes, strict=True):
        heights[box.row] = max(heights[box.row], height)
    for (_, target), (_, height) in zip(edges, label_sizes, strict=True):
        heights[boxes[target].row - 1] = max(heights[boxes[target].row - 1], height)
    tops = [sum(heights[:r]) + GAP * (r + 1) for r in range(len(rows))]
    left = min((item.x - item.width / 2 for row in rows for item in row), default=0.0) - GAP
    right = max((item.x + item.width / 2 for row in rows for item in row), default=0.0) + GAP

    def middle(item: _Item) -> float:
        return tops[item.row] + heights[item.row] / 2

    corners = [(b.x - left - w / 2, middle(b) - h / 2) for b, (w, h) in zip(boxes, sizes, strict=True)]
    routes = []
    for (source, target), chain in zip(edges, chains, strict=True):
        x, low = _port(chain[0], chain[1], True) - left, tops[chain[0].row] + heights[chain[0].row]
        points = [(x, middle(chain[0]) + sizes[source][1] / 2), (x, low)]  # out of the row before it turns aside
        for stop in chain[1:-1]:
            points += [(stop.x - left, tops[stop.row]), (stop.x - left, tops[stop.row] + heights[stop.row])]
        x = _port(chain[-1], chain[-2], False) - left
        points += [(x, tops[chain[-1].row]), (x, middle(chain[-1]) - sizes[target][1] / 2)]
        routes.append(points)
    labels = [(chain[-2].x - left, middle(chain[-2])) for chain in chains]
    return Layout(right - left, (tops[-1] + heights[-1] if rows else 0.0) + GAP, corners, routes, labels)


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Even rows: each box two below the lowest that leads to it; one that nothing leads to just above what it feeds."""
    followers: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for source, target in edges:
        followers[source].append(target)
        waiting[target] += 1
    is_source = [n == 0 for n in waiting]
    rows = [0] * count
    ready, done = [i for i in range(count) if is_source[i]], 0
    while ready:
        i, done = ready.pop(), done + 1
        for j in followers[i]:
            rows[j] = max(rows[j], rows[i] + 2)
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    if done < count:
        raise ValueError("layered: the edges go round in a circle")
    return [
        min((rows[j] for j in followers[i]), default=2) - 2 if is_source[i] else rows[i] for i in range(count)
    ]


def _order(rows: list[list[_Item]]) -> None:
    """Put each row in order by the mean place of its neighbours; keep the order with the fewest crossings."""
    best = [list(row) for row in rows]
    fewest = _crossings(rows)
    place = {id(item): i for row in rows for i, item in enumerate(row)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            row.sort(key=partial(_mean_place, place, down))
            place |= {id(item): i for i, item in enumerate(row)}
        if (found := _crossings(rows)) < fewest:
            fewest, best = found, [list(row) for row in rows]
    rows[:] = best


def _mean_place(place: dict[int, int], down: bool, item: _Item) -> float:
    """Of the neighbours above (down) or below; an item without any stays where it is."""
    neighbours = item.above if down else item.below
    return sum(place[id(n)] for n in neighbours) / len(neighbours) if neighbours else place[id(item)]


def _crossings(rows: list[list[_Item]]) -> int:
    """How many pairs of edges cross between neighbouring rows."""
    total = 0
    for upper, lower in pairwise(rows):
        place = {id(item): i for i, item in enumerate(lower)}
        ends = [place[end] for item in upper for end in sorted((id(n) for n in item.below), key=place.__getitem__)]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _place(rows: list[list[_Item]]) -> None:
    """Give each item of the ordered rows its x."""
    for row in rows:
        for i, item in enumerate(row):
            item.x = sum(other.width + GAP for other in row[:i]) + item.width / 2
    for sweep in range(2 * SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            wanted, pulls = [], []
            for item in row:
                # At first only from one side, which carries a change through all rows at once.
                sides = item.above + item.below if sweep >= SWEEPS else item.above if down else item.below
                pull = sum(item.pulls[id(n)] for n in sides)
                wanted.append(sum(item.pulls[id(n)] * n.x for n in sides) / pull if sides else item.x)
                pulls.append(pull or WEAK)
            for item, x in zip(row, _apart(wanted, [item.width for item in row], pulls), strict=True):
                item.x = x


def _apart(wanted: Sequence[float], widths: Sequence[float], pulls: Sequence[float]) -> list[float]:
    """Middles nearest to the wanted ones (in least squares), in order, with room for the widths and GAP between them.

    Without the room that they need, the middles are to be a sequence that never falls: neighbours that fall are put
    together to blocks at their mean, until none do.
    """
    room = [0.0]
    for a, b in pairwise(widths):
        room.append(room[-1] + (a + b) / 2 + GAP)
    blocks: list[tuple[float, float, int]] = []  # mean, pull and how many
    for x, before, pull in zip(wanted, room, pulls, strict=False):
        blocks.append((x - before, pull, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, p, n), (b, q, m) = blocks[-2:]
            blocks[-2:] = [((a * p + b * q) / (p + q), p + q, n + m)]
    means = [mean for mean, _, count in blocks for _ in range(count)]
    return [mean + before for mean, before in zip(means, room, strict=False)]


def _port(box: _Item, stop: _Item, below: bool) -> float:
    """Where on the box's side the edge to this stop begins: they share the side's inner half in the stops' order."""
    stops = sorted(box.below if below else box.above, key=lambda item: item.x)
    return box.x + box.width / 2 * ((stops.index(stop) + 0.5) / len(stops) - 0.5)
