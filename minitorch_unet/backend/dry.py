"""A dry run: the engine's own code with all its allocations and none of its arithmetic, to learn what a step will need.

Within `with dry_run() as record:` the compiled kernels are called but do nothing, so that the large arrays they would
fill are never touched and the system gives no memory for them. Results are zeros; only shapes mean anything. It works
without compiled kernels, too, and then tells what they would need. One dry run at a time, from one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PANEL_WIDTH = 32  # the kernels' with AVX-512, taken where no library tells its own


class Record:
    """What a dry run saw: bytes of the buffers in `compiled.scratch`, by purpose."""

    def __init__(self) -> None:
        self.common: dict[str, int] = {}  # of the thread that calls
        self.each: dict[str, int] = {}  # of every thread that shares the work
        self._sharing = False

    def scratch(self, purpose: str, size: int) -> None:
        """Note a request for `size` bytes."""
        buffers = self.each if self._sharing else self.common
        buffers[purpose] = max(size, buffers.get(purpose, 0))

    def share(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        """In place of threads: the pieces one after another."""
        before, self._sharing = self._sharing, True
        try:
            for item in items:
                work(item)
        finally:
            self._sharing = before

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of all buffers with so many threads; they stay until the process ends."""
        own = {purpose: max(size, self.each.get(purpose, 0)) for purpose, size in self.common.items()}
        return sum((self.each | own).values()) + (threads - 1) * sum(self.each.values())


record: Record | None = None  # of the dry run that is under way


@contextlib.contextmanager
def dry_run() -> Iterator[Record]:
    """See the module."""
    global record
    if record is not None:
        raise RuntimeError("dry_run: another dry run is under way")
    record = Record()
    try:
        yield record
    finally:
        record = None


def dry_running() -> bool:
    """Whether a dry run is under way."""
    return record is not None
