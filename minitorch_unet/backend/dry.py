"""A dry run: the engine's own code with all its allocations and none of its arithmetic, to learn what a step will need.

Within `with dry_run() as record:` the compiled kernels are called but do nothing, so that the large arrays they would
fill are never touched and the system gives no memory for them. Results are zeros; only shapes mean anything. It works
without compiled kernels, too, and then tells what they would need. One dry run at a time, from one thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# The instruction set's sizes, taken where no library tells its own: those of AVX-512.
WIDTHS = {"panel_width": 32, "vector_width": 16, "register_rows": 12}


class Record:
    """What a dry run saw: bytes of the buffers in `compiled.scratch`, by purpose."""

    def __init__(self) -> None:
        self.buffers: dict[str, int] = {}

    def scratch(self, purpose: str, size: int) -> None:
        """Note a request for `size` bytes."""
        self.buffers[purpose] = max(size, self.buffers.get(purpose, 0))

    @property
    def scratch_bytes(self) -> int:
        """Bytes of all buffers; they stay until the process ends."""
        return sum(self.buffers.values())


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
