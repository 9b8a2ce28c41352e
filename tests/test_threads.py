"""Threads: how many, errors from pieces of work, forked children, equal bits."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from minitorch_unet import Tensor, get_num_threads, set_num_threads
from minitorch_unet import functional as F
from minitorch_unet.backend import available_cores
from minitorch_unet.backend.threads import run_parallel


@pytest.fixture(autouse=True)
def restore_threads():
    before = get_num_threads()
    blas = blas_threads()
    yield
    set_num_threads(before)
    if blas:
        from threadpoolctl import threadpool_limits

        threadpool_limits(blas[0], "blas")


def blas_threads() -> list[int]:
    """Of NumPy's library; SciPy brings one of its own, which the engine does not use."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return [pool["num_threads"] for pool in pools if "scipy" not in pool["filepath"]]


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None])
def test_set_num_threads_refuses(count) -> None:
    with pytest.raises(ValueError, match=f"set_num_threads: count is {count!r}; it must be a whole number"):
        set_num_threads(count)


def test_set_and_get() -> None:
    for count in (3, 1, 2):
        set_num_threads(count)
        assert get_num_threads() == count
        assert set(blas_threads()) <= {min(count, n) for n in (1, 2, 3)}


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_environment_variable_sets_the_number() -> None:
    code = "import minitorch_unet; print(minitorch_unet.get_num_threads())"
    assert child(code, MINITORCH_UNET_NUM_THREADS="3").stdout == "3\n"
    assert child(code, MINITORCH_UNET_NUM_THREADS="").stdout == f"{available_cores()}\n"


@pytest.mark.parametrize("text", ["0", "-2", "two", "1.5"])
def test_a_wrong_environment_variable_is_one_line(text) -> None:
    done = child(
        "from minitorch_unet.cli import main; raise SystemExit(main(['info']))", MINITORCH_UNET_NUM_THREADS=text
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"minitorch-unet info: MINITORCH_UNET_NUM_THREADS is {text!r}; it must be a whole number of at least 1\n"
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_every_item_is_worked_on_once(threads) -> None:
    set_num_threads(threads)
    done: list[int] = []
    run_parallel(done.append, (i for i in range(50)))
    assert sorted(done) == list(range(50))
    run_parallel(done.append, [])
    assert len(done) == 50


def test_pieces_run_at_the_same_time() -> None:
    set_num_threads(2)
    both = threading.Barrier(2, timeout=10)
    run_parallel(lambda item: both.wait() and None, [0, 1])  # a barrier of two passes only with two threads


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_items_exception_is_raised_when_all_have_ended(threads) -> None:
    set_num_threads(threads)
    ended = []

    def work(item: int) -> None:
        if item in (1, 3):
            raise RuntimeError(f"item {item}")
        time.sleep(0.05)
        ended.append(item)

    with pytest.raises(RuntimeError, match="item 1"):
        run_parallel(work, range(6))
    assert sorted(ended) == ([0] if threads == 1 else [0, 2, 4, 5])
    run_parallel(ended.append, [7, 8])  # the pool is still good
    assert ended[-2:] in ([7, 8], [8, 7])


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_is_held_to_one_thread_inside_and_restored(threads) -> None:
    set_num_threads(threads)
    before, inside = blas_threads(), []
    run_parallel(lambda item: inside.append(blas_threads()), [0, 1])
    assert all(set(counts) <= {1} for counts in inside)
    assert blas_threads() == before
    with pytest.raises(ZeroDivisionError):
        run_parallel(lambda item: 1 // item, [0, 0])
    assert blas_threads() == before


def test_pieces_obey_the_callers_error_state() -> None:
    set_num_threads(2)
    with np.errstate(all="ignore"):
        run_parallel(lambda item: np.float32(3e38) * np.float32(item), [10, 10])
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        run_parallel(lambda item: np.float32(3e38) * np.float32(item), [10, 10])


def convolved() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(1, 5, 90, 90)).astype(np.float32), requires_grad=True)
    w = Tensor(rng.normal(size=(70, 5, 3, 3)).astype(np.float32), requires_grad=True)
    y = F.conv2d(x, w, padding=1)
    (F.max_pool2d(y, 2) ** 2).sum().backward()
    return [y.data, x.grad.data, w.grad.data]


def test_results_are_equal_bit_for_bit_with_one_and_more_threads() -> None:
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(convolved())
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_works_after_the_parent_used_its_threads() -> None:
    code = """
import os, sys
sys.path.insert(0, "tests")
from minitorch_unet import set_num_threads
from test_threads import convolved
import numpy as np
set_num_threads(2)
before = convolved()
if os.fork() == 0:
    same = all(np.array_equal(a, b) for a, b in zip(before, convolved()))
    os._exit(7 if same else 1)
_, status = os.wait()
print(os.waitstatus_to_exitcode(status), all(np.array_equal(a, b) for a, b in zip(before, convolved())))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=os.path.dirname(os.path.dirname(__file__)),
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "7 True\n", done.stderr
