"""What memory had to do, line by line (mode "count"); kernels/simulator/count.cpp says how it is found."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import Place, locate

# In one row of the runtime's table.
COLUMNS = ("address", "shared", "write", "requests", "units", "least", "bytes")


class Row(NamedTuple):
    """Accesses of one line of a source.

    space: "global" or "shared"; kind: "load" or "store" (an atomic operation counts as a store).
    requests: one for each warp and each time that it came by.
    units: for global memory the 32-byte sectors that the requests touched, for shared memory the passes that the banks
    needed. least: how few would have done: the different words in whole sectors, or a pass for each request (two for
    words of 8 bytes, four for 16). bytes: asked for by the threads.
    """

    place: Place
    space: str
    kind: str
    requests: int
    units: int
    least: int
    bytes: int


def read(library: ctypes.CDLL, path: Path, base: int, own: Path) -> list[Row]:
    """The rows since the last call, in the order of the lines; several instructions of a line are one row."""
    count = library.cusim_count_rows(None, 0)
    table = np.zeros((count, len(COLUMNS)), np.uint64)
    library.cusim_count_rows(table.ctypes.data_as(ctypes.c_void_p), count)
    chains = locate(path, base, [int(address) for address in table[:, 0]], own)
    merged: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros(4, np.int64))
    for (_, shared, write, *numbers), chain in zip(table.tolist(), chains, strict=True):
        place = chain[0] if chain else Place("?", 0)
        merged[place, "shared" if shared else "global", "store" if write else "load"] += numbers
    return [Row(*key, *map(int, numbers)) for key, numbers in sorted(merged.items())]


def sums(rows: list[Row]) -> dict[str, int]:
    """Requests, sectors and passes of all rows: "global_load_requests", "global_load_sectors" and so on."""
    found = {}
    for space, unit in (("global", "sectors"), ("shared", "passes")):
        for kind in ("load", "store"):
            chosen = [row for row in rows if (row.space, row.kind) == (space, kind)]
            found[f"{space}_{kind}_requests"] = sum(row.requests for row in chosen)
            found[f"{space}_{kind}_{unit}"] = sum(row.units for row in chosen)
    return found


def format_table(rows: list[Row]) -> str:
    """A table of the rows; the last column is what was needed in proportion to the least."""
    units = {"global": "sectors", "shared": "passes"}
    head = ("line", "memory", "access", "requests", "needed", "least", "ratio")
    body = [
        (str(r.place), r.space, r.kind, str(r.requests), f"{r.units} {units[r.space]}", str(r.least),
         f"{r.units / r.least:.2f}" if r.least else "-")
        for r in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = []
    for line in [head, *body]:
        left = [text.ljust(width) for text, width in zip(line[:3], widths[:3], strict=True)]
        right = [text.rjust(width) for text, width in zip(line[3:], widths[3:], strict=True)]
        lines.append("  ".join([*left, *right]))
    return "\n".join(lines)
