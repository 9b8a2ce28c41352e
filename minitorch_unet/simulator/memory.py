"""The stand-in's device memory: NumPy arrays, aligned as CuPy's pool aligns, and pools that know how much is in use."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from . import stats

ALIGNMENT = 512  # bytes: what CuPy's memory pool rounds to, and a multiple of what any vector load needs


class OutOfMemoryError(MemoryError):
    """A pool's limit does not allow the allocation."""


class MemoryPool:
    """Counts the memory of arrays that were made while it was the allocator. Freed blocks count until they are freed.

    `used_bytes` are those of living arrays, `total_bytes` the most there were since the last `free_all_blocks`.
    """

    def __init__(self, allocator: Any = None) -> None:
        self._used = self._total = 0
        self._limit = 0

    def malloc(self, size: int) -> MemoryPointer:
        """Memory of `size` bytes; `using_allocator(pool.malloc)` chooses the pool."""
        return MemoryPointer(_aligned(size, self))

    def used_bytes(self) -> int:
        """Bytes of living arrays."""
        return self._used

    def total_bytes(self) -> int:
        """Bytes taken from the device."""
        return self._total

    def free_bytes(self) -> int:
        """Bytes kept for the next arrays."""
        return self._total - self._used

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give back what no array uses."""
        self._total = self._used

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """The most bytes that the pool may take; 0: no limit."""
        if fraction is not None:
            raise NotImplementedError("stand-in: MemoryPool.set_limit takes a size only")
        self._limit = size or 0

    def get_limit(self) -> int:
        """See set_limit."""
        return self._limit

    def _take(self, size: int) -> None:
        if self._limit and self._used + size > self._limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {size:,} bytes (allocated so far: {self._used:,} bytes, "
                f"limit set to: {self._limit:,} bytes)."
            )
        self._used += size
        self._total = max(self._total, self._used)

    def _give(self, size: int) -> None:
        self._used -= size


class MemoryPointer:
    """An address in device memory; keeps the memory alive."""

    def __init__(self, memory: np.ndarray, device_id: int = 0) -> None:
        self.mem, self.device_id = memory, device_id

    @property
    def ptr(self) -> int:
        """The address as a number."""
        return self.mem.ctypes.data


default_pool = MemoryPool()
_pool: MemoryPool | None = default_pool


def get_default_memory_pool() -> MemoryPool:
    """The pool of arrays made outside `using_allocator`."""
    return default_pool


def set_allocator(allocator: Callable[[int], Any] | None = None) -> None:
    """Make arrays with `allocator`, the `malloc` of a MemoryPool; None: without a pool."""
    global _pool
    owner = getattr(allocator, "__self__", None)
    if allocator is not None and not isinstance(owner, MemoryPool):
        raise TypeError("stand-in: an allocator must be the method malloc of a MemoryPool, or None")
    _pool = owner


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """`set_allocator` within a `with` block."""
    before = _pool
    set_allocator(allocator)
    try:
        yield
    finally:
        set_allocator(None if before is None else before.malloc)


def shape_of(shape: Any) -> tuple[int, ...]:
    """A shape as CuPy takes it: a number, or several."""
    return (int(shape),) if isinstance(shape, int | np.integer) else tuple(int(n) for n in shape)


def allocate(shape: tuple[int, ...], dtype: Any, order: str = "C") -> np.ndarray:
    """New memory from the current pool, not filled."""
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufcV" or dtype.char in "gG":
        raise ValueError(f"Unsupported dtype {dtype}")
    flat = _aligned(math.prod(shape) * dtype.itemsize, _pool)
    return np.ndarray(shape, dtype, buffer=flat.data, order="F" if order == "F" else "C")


def _aligned(size: int, pool: MemoryPool | None) -> np.ndarray:
    """`size` bytes at an address that is a multiple of ALIGNMENT, counted in the pool as long as they live."""
    rounded = -(-size // ALIGNMENT) * ALIGNMENT
    if pool is not None:
        pool._take(rounded)
    raw = np.empty(size + ALIGNMENT, np.uint8)  # exactly, or a checker would not see its end
    if pool is not None:
        weakref.finalize(raw, pool._give, rounded).atexit = False
    stats.note_bytes("allocation", size)
    start = -raw.ctypes.data % ALIGNMENT
    _living[raw.ctypes.data + start] = raw
    return raw[start : start + size]


_living: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()  # by address


def found_in(arguments: Iterable[Any]) -> list[np.ndarray]:
    """The memory that a kernel finds by addresses inside its arguments: in arrays of 64-bit numbers and in structs."""
    words: list[np.ndarray] = []
    for value in arguments:
        if isinstance(value, bytes):
            words += [np.frombuffer(value, np.uint64, len(value) // 8)]
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.itemsize == 8:
            words += [value.reshape(-1).view(np.uint64)]
    if not words:
        return []
    numbers = np.sort(np.concatenate(words))
    found = []
    for start, raw in list(_living.items()):
        i = np.searchsorted(numbers, np.uint64(start))
        if i < numbers.size and int(numbers[i]) < start + raw.nbytes - ALIGNMENT:
            offset = start - raw.ctypes.data
            found.append(raw[offset : raw.nbytes - ALIGNMENT + offset])
    return found


def poison(memory: np.ndarray, capturing: bool = False) -> None:
    """Fill memory that nobody has written yet: NaN, or bytes 0x7f, so that reading it shows.

    Integers recorded in a capture become 0 instead: the work recorded after them may use them as indices.
    """
    if memory.dtype.kind == "b":
        memory.fill(not capturing)
    elif memory.dtype.kind in "iu":
        memory.fill(0 if capturing else int.from_bytes(b"\x7f" * memory.itemsize, "little"))
    else:
        memory.fill(np.nan)
