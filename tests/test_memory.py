"""Reuse of large arrays' memory."""

import gc
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitorch_unet.backend import memory

SIZE = 2 << 20  # bytes


@pytest.fixture(autouse=True)
def nothing_idle():
    gc.collect()
    with memory.another_heap():
        yield


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_of_a_dead_array_serves_the_next_of_its_size() -> None:
    first = memory.empty((SIZE // 4,), np.float32)
    where = address(first)
    del first
    assert memory.idle_bytes() == SIZE
    again = memory.empty((2, SIZE // 8), np.float32)
    assert address(again) == where and memory.idle_bytes() == 0
    assert again.shape == (2, SIZE // 8) and again.dtype == np.float32
    assert again.flags.c_contiguous and again.flags.writeable


def test_memory_is_kept_back_while_any_view_lives() -> None:
    array = memory.empty((SIZE,), np.uint8)
    view = array.reshape(2, -1).T[3:]
    where = address(array)
    del array
    assert memory.idle_bytes() == 0
    assert address(memory.empty((SIZE,), np.uint8)) != where
    assert view.shape == (SIZE // 2 - 3, 2)
    del view
    assert memory.idle_bytes() == 2 * SIZE


def test_small_arrays_are_numpys_own() -> None:
    small = memory.empty((10,), np.float64)
    assert small.base is None
    del small
    assert memory.idle_bytes() == 0


def test_the_first_gap_that_is_large_enough_is_filled() -> None:
    held = [memory.empty((size * SIZE,), np.uint8) for size in (1, 3, 1, 2, 1)]
    where = [address(array) for array in held]
    del held[3], held[1]
    assert address(memory.empty((2 * SIZE,), np.uint8)) == where[1]
    small = [memory.empty((SIZE,), np.uint8) for _ in range(4)]
    assert [address(array) for array in small] == [where[1], where[1] + SIZE, where[1] + 2 * SIZE, where[3]]


def test_gaps_close() -> None:
    held = [memory.empty((SIZE,), np.uint8) for _ in range(4)]
    where = address(held[1])
    del held[2], held[1]  # neighbours, in either order
    assert address(memory.empty((2 * SIZE,), np.uint8)) == where


def test_fresh_memory_is_paid_for_with_idle_memory() -> None:
    held = [memory.empty((SIZE,), np.uint8) for _ in range(4)]
    del held[2], held[0]
    assert memory.idle_bytes() == 2 * SIZE
    first = memory.empty((SIZE + 4096,), np.uint8)  # fits into no gap
    assert memory.idle_bytes() == SIZE - 4096
    second = memory.empty((3 * SIZE,), np.uint8)
    assert memory.idle_bytes() == 0
    del first, second
    assert memory.idle_bytes() == 4 * SIZE + 4096


def test_no_more_than_the_limit_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(memory, "IDLE_LIMIT", 2 * SIZE)
    held = [memory.empty((SIZE,), np.uint8) for _ in range(5)]
    held.clear()
    assert memory.idle_bytes() == 2 * SIZE


def test_more_than_a_segment(monkeypatch) -> None:
    monkeypatch.setattr(memory, "SEGMENT", 2 * SIZE)
    held = [memory.empty((size * SIZE // 4,), np.float32) for size in (1, 1, 1, 5)]
    for number, array in enumerate(held):
        array[:] = number
    assert [set(array.tolist()) for array in held] == [{0.0}, {1.0}, {2.0}, {3.0}]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 20)), max_size=40))
def test_live_arrays_never_overlap_and_the_books_balance(events: list[tuple[int, int]]) -> None:
    """Arrays made and dropped in any order: each keeps its values; idle is what the most took, less what lives."""
    with memory.another_heap():
        live: list[tuple[int, np.ndarray]] = []
        most = 0
        for number, (size, drop) in enumerate(events):
            if live and drop % 3 == 0:
                live.pop(drop % len(live))
            array = memory.empty((size * SIZE // 8,), np.float32)
            array[:: 1 << 10] = number
            live.append((number, array))
            del array  # else this name would keep it alive when it is dropped
            total = sum(a.nbytes for _, a in live)
            most = max(most, total)
            assert total + memory.idle_bytes() == most
        assert all((array[:: 1 << 10] == number).all() for number, array in live)


def test_arrays_of_many_threads_never_share_memory() -> None:
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            array = memory.empty((SIZE // 8,), np.int64)
            array[:] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mebibytes", [3, 24])
def test_released_memory_leaves_the_process(mebibytes: int) -> None:
    """Pieces in between others, of sizes that the C library would keep for itself."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    held = [memory.zeros((mebibytes << 20,), np.uint8) for _ in range(8)]
    assert not any(array.any() for array in held)
    for array in held:
        array[:] = 1
    full = resident()
    del held[::2]
    memory.release()
    assert memory.idle_bytes() == 0
    assert full - resident() > 3.5 * (mebibytes << 20)


def test_zeros_in_memory_that_was_used() -> None:
    used = memory.empty((SIZE,), np.uint8)
    used[:] = 7
    where = address(used)
    del used
    again = memory.zeros((SIZE // 4,), np.float32)
    assert address(again) == where and not again.any()


def test_a_watcher_hears_of_every_large_array_made_while_it_watches() -> None:
    heard = []
    before = memory.empty((SIZE,), np.uint8)
    with memory.watched(lambda number, change: heard.append((number, change))):
        first = memory.empty((SIZE,), np.uint8)
        second = memory.empty((SIZE // 2,), np.uint8)
        memory.empty((10,), np.uint8)
        del before, first
    del second  # made within, so its end is told, too
    numbers = [number for number, _ in heard]
    assert [change for _, change in heard] == [SIZE, SIZE // 2, -SIZE, -SIZE // 2]
    assert numbers == [numbers[0], numbers[1], numbers[0], numbers[1]]
