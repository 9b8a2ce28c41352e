"""What the stand-in counts: everything that costs time on a GPU and cannot be seen in a result."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Stats:
    """Counts by name. A launch inside a graph counts as captured when it is recorded and as replayed when it runs."""

    launches: Counter[str] = field(default_factory=Counter)  # kernels of the array library
    raw_launches: Counter[str] = field(default_factory=Counter)  # kernels of RawModule and RawKernel
    captured: Counter[str] = field(default_factory=Counter)
    replayed: Counter[str] = field(default_factory=Counter)
    graph_launches: int = 0
    syncs: Counter[str] = field(default_factory=Counter)  # moments at which the host waits for the device
    uploads: int = 0  # host to device
    upload_bytes: int = 0
    downloads: int = 0  # device to host
    download_bytes: int = 0
    allocations: int = 0
    allocated_bytes: int = 0

    def reset(self) -> None:
        """All counts to 0."""
        self.__init__()  # type: ignore[misc]


stats = Stats()
_listening: list[Stats] = [stats]


@contextlib.contextmanager
def counting() -> Iterator[Stats]:
    """Within `with counting() as seen:` what happens is counted in `seen`, too."""
    seen = Stats()
    _listening.append(seen)
    try:
        yield seen
    finally:
        _listening[:] = [counts for counts in _listening if counts is not seen]


def note(what: str, name: str) -> None:
    """One more of `what` ("launches", "syncs" ...) called `name`."""
    for counts in _listening:
        getattr(counts, what)[name] += 1


def note_bytes(what: str, size: int) -> None:
    """One more "upload", "download" or "allocation" of `size` bytes."""
    many, total = {
        "upload": ("uploads", "upload_bytes"),
        "download": ("downloads", "download_bytes"),
        "allocation": ("allocations", "allocated_bytes"),
    }[what]
    for counts in _listening:
        setattr(counts, many, getattr(counts, many) + 1)
        setattr(counts, total, getattr(counts, total) + size)


def note_graph() -> None:
    """One more launch of a graph."""
    for counts in _listening:
        counts.graph_launches += 1
