"""Memory for large arrays, used again when they die.

The system hands out fresh memory page by page, zeroed, at a few GB/s: over the maps of a training step that is nearly a
tenth of its time. A step asks for the same sizes again and again, so a dead array's memory is kept for the next of its
size. Where there is none of that size, idle memory is given back to the system before new is asked for: the process
holds no more than it held at its largest. Each piece is a mapping of its own, because only then does giving it back
make the process smaller: the C library would keep freed pieces of up to 32 MiB for itself, in between others.
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import dry

LARGE = 1 << 20  # bytes from which on memory is kept
IDLE_LIMIT = 1 << 30  # bytes kept at most

_lock = threading.RLock()  # re-entered when an array dies while memory is being asked for
_idle: collections.OrderedDict[int, list[np.ndarray]] = collections.OrderedDict()  # by size, longest unused first
_idle_bytes = 0


class _Lease:
    """Owns memory on behalf of the arrays that view it, and returns it when the last of them is gone."""

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.memory = memory
        self.watcher = _watcher
        if self.watcher is not None:
            self.watcher(id(self), memory.nbytes)
        self.__array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (memory.ctypes.data, False), "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        if not sys.is_finalizing():  # else this module may be half gone
            _keep(self.memory)
            if self.watcher is not None:
                self.watcher(id(self), -self.memory.nbytes)


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like numpy.zeros."""
    array = empty(shape, dtype)
    if dry.record is None:
        array.fill(0)
    return array


Watcher = Callable[[int, int], None]
_watcher: Watcher | None = None


@contextlib.contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within it, `watcher(number, bytes)` is called for each large array that is made, and (-bytes) when it dies."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Like numpy.empty: a new contiguous array whose values are undefined."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    if size < LARGE:
        return np.zeros(shape, dtype) if dry.record is not None else np.empty(shape, dtype)
    with _lock:
        memory = _take(size)
        if memory is None:
            _release(size)
            memory = fresh(size)
    return np.asarray(_Lease(memory, tuple(shape), dtype))


def release() -> None:
    """Give all idle memory back to the system."""
    with _lock:
        _release(_idle_bytes)


def idle_bytes() -> int:
    """Bytes kept for later use."""
    return _idle_bytes


def fresh(size: int) -> np.ndarray:
    """New memory from the system, in large pages where it offers them, as NumPy has it for its own arrays."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    mapping = mmap.mmap(-1, size, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, np.uint8)


def _take(size: int) -> np.ndarray | None:
    global _idle_bytes
    kept = _idle.get(size)
    if not kept:
        return None
    _idle_bytes -= size
    memory = kept.pop()
    if not kept:
        del _idle[size]
    return memory


def _keep(memory: np.ndarray) -> None:
    global _idle_bytes
    with _lock:
        if memory.nbytes > IDLE_LIMIT:
            return
        _release(memory.nbytes - (IDLE_LIMIT - _idle_bytes))
        _idle.setdefault(memory.nbytes, []).append(memory)
        _idle.move_to_end(memory.nbytes)
        _idle_bytes += memory.nbytes


def _release(size: int) -> None:
    """Give at least `size` bytes of idle memory back to the system, as far as there are so many."""
    global _idle_bytes
    while size > 0 and _idle:
        bytes_each = next(iter(_idle))
        _take(bytes_each)
        size -= bytes_each
