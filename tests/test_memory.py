"""Reuse of large arrays' memory."""

import gc
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from minitorch_unet.backend import memory

SIZE = 2 << 20  # bytes


@pytest.fixture(autouse=True)
def nothing_idle():
    gc.collect()
    memory._release(1 << 60)
    assert memory.idle_bytes() == 0
    yield
    memory._release(1 << 60)


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


def test_another_size_releases_idle_memory_before_it_asks_for_more() -> None:
    held = [memory.empty((SIZE,), np.uint8) for _ in range(3)]
    held.clear()
    assert memory.idle_bytes() == 3 * SIZE
    other = memory.empty((SIZE + 4096,), np.uint8)
    assert memory.idle_bytes() == SIZE  # two of the three pieces make room
    del other
    assert memory.idle_bytes() == SIZE + SIZE + 4096


def test_no_more_than_the_limit_is_kept(monkeypatch) -> None:
    monkeypatch.setattr(memory, "IDLE_LIMIT", 2 * SIZE)
    held = [memory.empty((SIZE,), np.uint8) for _ in range(5)]
    held.clear()
    assert memory.idle_bytes() == 2 * SIZE
    big = memory.empty((3 * SIZE,), np.uint8)
    del big
    assert memory.idle_bytes() <= 2 * SIZE


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
