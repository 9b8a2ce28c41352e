"""Threads: one number for the whole engine, and one way to run independent pieces of work side by side.

NumPy releases the interpreter lock inside its loops and matrix products, so plain Python threads are enough. While the
engine's threads run, the BLAS library is held to one thread each: the pieces then do not compete for cores, and a
result does not depend on how many threads computed it, because the pieces are cut by size and never by thread count.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from . import dry

_count: int | None = None
_pool: ThreadPoolExecutor | None = None


def available_cores() -> int:
    """Number of cores this process may run on (its CPU affinity), at least 1."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not offered by macOS and Windows
        return os.cpu_count() or 1


def get_num_threads() -> int:
    """Number of threads the engine uses: `set_num_threads`, else MINITORCH_UNET_NUM_THREADS, else the cores at hand."""
    global _count
    if _count is None:
        text = os.environ.get("MINITORCH_UNET_NUM_THREADS", "")
        if text and not (text.isdecimal() and int(text) > 0):
            raise ValueError(f"MINITORCH_UNET_NUM_THREADS is {text!r}; it must be a whole number of at least 1")
        _count = int(text) if text else available_cores()
    return _count


def set_num_threads(count: int) -> None:
    """Use `count` threads (at least 1) from now on, in the engine and in the BLAS library behind NumPy."""
    global _count, _pool
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"set_num_threads: count is {count!r}; it must be a whole number of at least 1")
    if _pool is not None:
        _pool.shutdown()
        _pool = None
    _count = count
    _blas().limit(limits=count, user_api="blas")


@contextlib.contextmanager
def assumed_threads(count: int) -> Iterator[None]:
    """Within it `get_num_threads` says `count`: for dry runs, which start no threads."""
    global _count
    before, _count = _count, count
    try:
        yield
    finally:
        _count = before


def run_parallel(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """Call `work(item)` for every item, on the engine's threads, under the caller's `numpy.errstate`.

    The items must write to separate memory. Their order of execution is not defined. When all have ended, the
    exception of the first item that failed is raised here.
    """
    if dry.record is not None:
        return
    with _blas().limit(limits=1, user_api="blas"):
        _drain(work, list(items))


def _drain(work: Callable[[Any], None], items: list[Any]) -> None:
    """The caller and as many of the pool's threads as there is work for take item after item."""
    global _pool
    helpers = min(get_num_threads(), len(items)) - 1
    if helpers < 1:
        for item in items:
            work(item)
        return
    queue = collections.deque(enumerate(items))  # taking from it is atomic
    failures: list[tuple[int, BaseException]] = []

    def take() -> None:
        while queue:
            try:
                number, item = queue.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                work(item)
            except BaseException as error:
                failures.append((number, error))

    if _pool is None:
        _pool = ThreadPoolExecutor(get_num_threads(), thread_name_prefix="minitorch_unet")
    # NumPy keeps its error state in the context, which threads do not inherit; a context serves one call at a time.
    others = [_pool.submit(contextvars.copy_context().run, take) for _ in range(helpers)]
    take()
    wait(others)  # an exception must not reach the caller while other pieces still write
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _forget_pool() -> None:
    """In a forked child the pool's threads do not exist: start a new one at the next use."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
