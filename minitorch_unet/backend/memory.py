"""Memory for large arrays: a heap of our own, in which the memory of dead arrays stays and is used again.

The system hands out fresh memory page by page, zeroed, at a few GB/s: over the maps of a training step that would be a
tenth of its time. So the heap keeps what it has, and an array gets the first gap that is large enough. Where fresh
memory must be taken all the same, as much is given back from the gaps: the process never holds much more than its
arrays did when they were most.

Arrays begin at a multiple of the page size: no vector of theirs crosses from one cache line into the next.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import dry

LARGE = 1 << 20  # bytes from which on an array lies in the heap
SEGMENT = 1 << 30  # bytes of address space taken from the system at a time; memory comes when it is first written
IDLE_LIMIT = 1 << 30  # idle bytes from which on they are given back

Watcher = Callable[[int, int], None]


class _Spans:
    """Disjoint ranges of addresses, (start, end) in order, none touching the next."""

    def __init__(self, *spans: tuple[int, int]) -> None:
        self.spans = list(spans)
        self.total = sum(end - start for start, end in spans)

    def add(self, start: int, end: int) -> None:
        """Add a range that none of the others overlaps."""
        self.total += end - start
        i = bisect.bisect(self.spans, (start, start))
        if i < len(self.spans) and self.spans[i][0] == end:
            end = self.spans.pop(i)[1]
        if i and self.spans[i - 1][1] == start:
            i -= 1
            start = self.spans.pop(i)[0]
        self.spans.insert(i, (start, end))

    def cut(self, start: int, end: int) -> list[tuple[int, int]]:
        """Take out what lies in start .. end; return it."""
        i = bisect.bisect(self.spans, (start, start))
        if i and self.spans[i - 1][1] > start:
            i -= 1
        found, rest = [], []
        while i < len(self.spans) and self.spans[i][0] < end:
            a, b = self.spans.pop(i)
            found.append((max(a, start), min(b, end)))
            rest += [span for span in ((a, start), (end, b)) if span[0] < span[1]]
        self.spans[i:i] = rest
        self.total -= sum(b - a for a, b in found)
        return found


class _Segment:
    """One piece of address space: its gaps, and the cold ranges, for which the system holds no memory."""

    def __init__(self, size: int) -> None:
        self.memory, self._mapping = _from_system(size)
        self.gaps = _Spans((0, self.memory.size))
        self.cold = _Spans((0, self.memory.size))

    def take(self, size: int) -> int | None:
        """Where the first gap of `size` bytes begins, no longer a gap; None if there is none."""
        for start, end in self.gaps.spans:
            if end - start >= size:
                self.gaps.cut(start, start + size)
                return start
        return None

    @property
    def idle(self) -> int:
        """Bytes that the system gave and no array uses."""
        return self.gaps.total - self.cold.total

    def release(self, limit: int) -> int:
        """Give gaps' memory back to the system, `limit` bytes at most; return how many it were."""
        released = 0
        for start, end in reversed(self.gaps.spans):
            held = _Spans((start, end))
            for span in [span for span in self.cold.spans if span[0] < end and span[1] > start]:
                held.cut(*span)
            for a, b in reversed(held.spans):
                a = max(a, b - (limit - released))
                if a < b and hasattr(mmap, "MADV_DONTNEED"):
                    self._mapping.madvise(mmap.MADV_DONTNEED, a, b - a)
                    self.cold.add(a, b)
                    released += b - a
        return released


class Heap:
    """Segments, as many as are needed. Safe for threads."""

    def __init__(self) -> None:
        self.segments: list[_Segment] = []
        self._lock = threading.RLock()  # re-entered when an array dies while memory is being asked for

    def empty(self, size: int) -> tuple[_Segment, int, int]:
        """(segment, start, size in whole pages) of memory for `size` bytes."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._lock:
            segment, start = self._place(size)
            self.release(sum(b - a for a, b in segment.cold.cut(start, start + size)))
        return segment, start, size

    def _place(self, size: int) -> tuple[_Segment, int]:
        for segment in self.segments:
            start = segment.take(size)
            if start is not None:
                return segment, start
        try:
            segment = _Segment(max(size, SEGMENT))
        except (OSError, MemoryError):  # address space may be limited: then no more than is needed
            segment = _Segment(size)
        self.segments.append(segment)
        segment.gaps.cut(0, size)
        return segment, 0

    def give_back(self, segment: _Segment, start: int, size: int) -> None:
        """Take back what `empty` gave."""
        with self._lock:
            segment.gaps.add(start, start + size)
            self.release(self.idle_bytes() - IDLE_LIMIT)

    def release(self, limit: int) -> None:
        """Give idle memory back to the system, up to `limit` bytes of it."""
        with self._lock:
            for segment in self.segments:
                if limit > 0:
                    limit -= segment.release(limit)

    def idle_bytes(self) -> int:
        """Bytes held for later use."""
        return sum(segment.idle for segment in self.segments)


class _Lease:
    """Owns memory on behalf of the arrays that view it, and returns it when the last of them is gone."""

    def __init__(self, heap: Heap, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.heap = heap
        self.size = int(np.prod(shape)) * dtype.itemsize
        self.place = heap.empty(self.size)
        segment, start, _ = self.place
        self.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (segment.memory.ctypes.data + start, False), "version": 3,
        }  # fmt: skip
        self.watcher = _watcher
        if self.watcher is not None:
            self.watcher(id(self), self.size)

    def __del__(self) -> None:
        if not sys.is_finalizing():  # else this module may be half gone
            self.heap.give_back(*self.place)
            if self.watcher is not None:
                self.watcher(id(self), -self.size)


_heap = Heap()
_watcher: Watcher | None = None


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like numpy.empty: a new contiguous array whose values are undefined."""
    dtype = np.dtype(dtype)
    if int(np.prod(shape)) * dtype.itemsize < LARGE:
        return np.zeros(shape, dtype) if dry.record is not None else np.empty(shape, dtype)
    # The view: the array interface knows bfloat16 as two bytes without a meaning only.
    return np.asarray(_Lease(_heap, tuple(shape), dtype)).view(dtype)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like numpy.zeros."""
    array = empty(shape, dtype)
    if dry.record is None:
        array.fill(0)
    return array


def release() -> None:
    """Give all idle memory back to the system."""
    _heap.release(_heap.idle_bytes())


def idle_bytes() -> int:
    """Bytes kept for later use."""
    return _heap.idle_bytes()


@contextlib.contextmanager
def another_heap() -> Iterator[None]:
    """Within it arrays lie in a heap of their own, as they would in a process that has just begun."""
    global _heap
    before, _heap = _heap, Heap()
    try:
        yield
    finally:
        _heap = before


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within it, `watcher(number, bytes)` is called for each large array that is made, and (-bytes) when it dies."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def _from_system(size: int) -> tuple[np.ndarray, mmap.mmap]:
    """Address space, to be filled with large pages where the system offers them."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    mapping = mmap.mmap(-1, size, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, np.uint8), mapping
