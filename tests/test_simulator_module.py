"""The simulator's Python side: arguments, builds and their cache, shared memory, seeds, counts, intrinsics."""

import functools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minitorch_unet.simulator import CompileError, CompilerMissing, KernelError, Module, build, settings

pytestmark = pytest.mark.skipif(build.unavailable_reason() is not None, reason=str(build.unavailable_reason()))
KERNELS = Path(__file__).parent / "simulator_kernels"
F, I = np.float32, np.int32  # noqa: E741
PAIR = np.array([(3, 0.5)], np.dtype([("a", "i4"), ("b", "f8")], align=True))


@functools.cache
def module(mode: str = "check") -> Module:
    return Module(KERNELS / "various.cu", mode)


def kernel(name: str, mode: str = "check"):
    return module(mode).get_function(name)


# ------------------------------------------------------------------------------------------------ arguments


def legal() -> list:
    x = np.arange(32, dtype=F)
    return [x, np.zeros(32, F), PAIR.tobytes(), np.int64(-7), np.arange(32, dtype=np.uint8), F(0.25)]


def test_arguments_of_all_kinds_arrive() -> None:
    args = legal()
    kernel("arguments")((1,), (32,), args)
    np.testing.assert_allclose(args[1], args[0] * 0.25 + 3 + 0.5 - 7 + args[4])
    args[4] = np.uintp(0)
    kernel("arguments")(1, 32, args)
    np.testing.assert_allclose(args[1], args[0] * 0.25 + 3 + 0.5 - 7)


@pytest.mark.parametrize(
    ("position", "value", "error", "text"),
    [
        (0, np.arange(32.0), TypeError, "argument x has dtype float64; the kernel takes float32 (float*)"),
        (1, np.zeros(32, np.int32), TypeError, "argument y has dtype int32"),
        (0, [1.0], TypeError, "argument x is a list"),
        (0, 0, TypeError, "argument x is a int; it must be an array, or np.uintp(0)"),
        (2, bytes(17), ValueError, "argument pair has 17 bytes; Pair has 16"),
        (2, 5, TypeError, "argument pair is a int; it must be the struct's bytes"),
        (3, I(7), TypeError, "argument wide is a int32; the kernel takes long long int (8 bytes)"),
        (3, 7, TypeError, "argument wide is a int; it must be a NumPy scalar of 8 bytes"),
        (4, np.zeros(32, np.uint16), TypeError, "argument bytes has dtype uint16"),
        (5, np.float64(1), TypeError, "argument factor is a float64; the kernel takes float (4 bytes)"),
        (5, I(1), TypeError, "argument factor is a int32"),
    ],
)
def test_arguments_that_do_not_fit_are_named(position: int, value: object, error: type, text: str) -> None:
    args = legal()
    args[position] = value
    with pytest.raises(error) as caught:
        kernel("arguments")(1, 32, args)
    assert text in str(caught.value) and str(caught.value).startswith("arguments: ")


def test_launches_that_a_gpu_would_refuse() -> None:
    launch, args = kernel("arguments"), legal()
    with pytest.raises(TypeError, match=r"takes 6 arguments \(x, y, pair, wide, bytes, factor\), got 5"):
        launch(1, 32, args[:-1])
    with pytest.raises(ValueError, match=r"block \(65, 1, 1\) has 65 threads; at most 64 are legal"):
        launch(1, 65, args)
    with pytest.raises(ValueError, match=r"grid is \(0,\)"):
        launch(0, 32, args)
    with pytest.raises(ValueError, match="shared_mem is 50000"):
        launch(1, 32, args, shared_mem=50000)
    launch.max_dynamic_shared_size_bytes = 50000
    launch(1, 32, args, shared_mem=50000)
    args[1].flags.writeable = False
    with pytest.raises(ValueError, match="argument y is read-only"):
        launch(1, 32, args)
    with pytest.raises(KeyError, match="has no kernel 'nothing'"):
        kernel("nothing")
    with pytest.raises(KeyError, match="must be declared extern"):
        kernel("cxx_linkage")
    with pytest.raises(KeyError):
        kernel("no_entry_point")


def test_views_are_known_by_the_memory_they_span() -> None:
    whole = np.ones((6, 8), F)
    view = whole[1:5, 2:5]
    kernel("double_view")(1, 32, (view, I(4), I(3), np.int64(8)))
    assert (view == 2).all() and whole.sum() == 48 + 12
    with pytest.raises(KernelError, match="element 32 of x, which has 27"):
        kernel("double_view")(1, 32, (view, I(5), I(3), np.int64(8)))
    backwards = np.ones(8, F)[::-1]  # points to its last element
    with pytest.raises(KernelError, match="out of bounds"):
        kernel("double_view")(1, 32, (backwards, I(1), I(8), np.int64(8)))


def test_two_arguments_in_one_piece_of_memory() -> None:
    """The same array twice, and views that interleave."""
    whole = np.arange(64, dtype=F)
    args = legal()
    args[0], args[1] = whole[:32], whole[:32]
    kernel("arguments")(1, 32, args)
    args[0], args[1] = whole[:40], whole[20:60]
    with pytest.raises(KernelError, match="of x and y"):
        kernel("arguments")(1, 32, args)


def test_memory_found_through_a_table_of_addresses() -> None:
    targets = [np.zeros(32, F), np.zeros(32, F)]
    table = np.array([t.ctypes.data for t in targets], np.uint64)
    with pytest.raises(KernelError, match="out of bounds"):
        kernel("through_table")(2, 32, (table, I(2)))
    kernel("through_table")(2, 32, (table, I(2)), reachable=targets)
    assert (targets[0] == 1).all() and (targets[1] == 2).all()


# ------------------------------------------------------------------------------------------------ memory and order


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_dynamic_shared_memory_declared_as_cuda_does(mode: str) -> None:
    y = np.zeros(48, F)
    kernel("dynamic_of_the_file", mode)(1, 48, (y,), shared_mem=192)
    np.testing.assert_array_equal(y, np.arange(48)[::-1])
    z = np.zeros(48, I)
    kernel("dynamic_of_the_kernel", mode)(1, 48, (z,), shared_mem=192)
    np.testing.assert_array_equal(z, 3 * np.arange(48)[::-1])


def test_shared_memory_holds_nan_when_a_block_begins() -> None:
    y = np.zeros(32, F)
    kernel("never_written", "fast")(1, 32, (y, I(0)))
    assert np.isnan(y).all()


@pytest.mark.parametrize("name", ["order", "lane_order"])
def test_a_seed_gives_an_order_and_always_the_same(name: str) -> None:
    grid, block = (37, 32) if name == "order" else (1, 32)
    n = max(grid, 1 if name == "order" else 32)
    found = {}
    for seed in (0, 1, 1, 2):
        built = Module(KERNELS / "various.cu", "fast", seed=seed)
        tickets = np.zeros(n, np.uint32)
        built.get_function(name)(grid, block, (np.zeros(1, np.uint32), tickets))
        assert sorted(tickets) == list(range(n))
        assert found.setdefault(seed, tickets.tolist()) == tickets.tolist()
    assert found[0] == list(range(n)) and found[1] != found[0] and found[2] != found[1]


def test_mode_and_seed_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv(settings.MODE, "check")
    monkeypatch.setenv(settings.SEED, "5")
    assert (settings.mode(), settings.seed()) == ("check", 5)
    settings.set_mode("fast")
    settings.set_seed(7)
    assert (settings.mode(), settings.seed()) == ("fast", 7)
    settings.set_mode(None)
    settings.set_seed(None)
    monkeypatch.setenv(settings.MODE, "quick")
    monkeypatch.setenv(settings.SEED, "-1")
    for wrong in (settings.mode, settings.seed, lambda: settings.set_mode("quick"), lambda: settings.set_seed(-1)):
        with pytest.raises(ValueError, match=r"legal are|whole number"):
            wrong()


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_too_many_local_variables(mode: str) -> None:
    with pytest.raises(KernelError, match="more than 256 KiB") as caught:
        kernel("large_locals", mode)(1, 32, (np.zeros(32, F),))
    assert caught.value.kind == "stack"


# ------------------------------------------------------------------------------------------------ counts


def test_counts_of_a_launch() -> None:
    built = Module(KERNELS / "various.cu", "fast")
    built.stats()
    built.get_function("dynamic_of_the_file")(3, 64, (np.zeros(64, F),), shared_mem=256)
    # A block: 64 threads begin, and all but the last to come to the barrier go on from there.
    assert built.stats() == {"launches": 1, "switches": 3 * (64 + 63), "barriers": 3, "collectives": 0}
    assert built.stats()["launches"] == 0


def aligned(n: int, dtype: type = F) -> np.ndarray:
    """n ones from an address that is a multiple of 64."""
    whole = np.ones(n + 64, dtype)
    return whole[-whole.ctypes.data % 64 // whole.itemsize :][:n]


@pytest.mark.parametrize(("step", "sectors"), [(1, 4), (2, 8), (8, 32), (0, 1)])
def test_sectors_of_a_strided_load(step: int, sectors: int) -> None:
    module("count").stats()
    kernel("strided", "count")(1, 64, (aligned(64 * 8 + 1), aligned(64), I(step)))
    counts = module("count").stats()
    assert counts["global_load_requests"] == 2 and counts["global_store_requests"] == 2
    assert counts["global_load_sectors"] == (2 * sectors if step else 2) and counts["global_store_sectors"] == 8
    lines = (KERNELS / "various.cu").read_text(encoding="utf-8").splitlines()
    assert {lines[row.place.line - 1].split("(")[0].split()[-1] for row in module("count").traffic} == {"strided"}


@pytest.mark.parametrize(("step", "passes"), [(1, 1), (2, 2), (32, 32), (33, 1), (0, 1), (16, 16)])
def test_passes_of_shared_memory_banks(step: int, passes: int) -> None:
    module("count").stats()
    kernel("banks", "count")(1, 32, (aligned(1), aligned(32), I(step)))
    counts = module("count").stats()
    assert (counts["shared_load_requests"], counts["shared_load_passes"]) == (1, passes)
    assert counts["shared_store_requests"] == counts["shared_store_passes"] == 33


def test_vectors_move_in_one_request() -> None:
    module("count").stats()
    kernel("vectors", "count")(1, 32, (aligned(128), aligned(128)))
    counts = module("count").stats()
    assert (counts["global_load_requests"], counts["global_load_sectors"]) == (1, 16)


# ------------------------------------------------------------------------------------------------ arithmetic


def test_intrinsics() -> None:
    a, b = 0x0F0012C4, 0x89ABCDEF
    y = np.zeros(16, np.uint32)
    kernel("intrinsics")(1, 1, (np.array([a, b], np.uint32), y))
    both = b << 32 | a
    expected = [
        bin(a).count("1"), 4, 3, int(f"{a:032b}"[::-1], 2), 0x890FEFC4,  # bytes 7, 3, 4 and 0 of b:a
        both << 9 >> 32 & 0xFFFFFFFF, both >> 9 & 0xFFFFFFFF, a * b >> 32, 2, -2 & 0xFFFFFFFF, 2**31 - 1, 0, 3, 1,
        F(0.5).view(np.uint32), 0,
    ]  # fmt: skip
    assert y.tolist() == [int(v) for v in expected]


def test_votes_and_reductions_of_a_partial_warp() -> None:
    y = np.zeros((40, 12), np.uint32)
    kernel("votes")(1, 40, (y,))
    for t in range(40):
        lanes = range(32) if t < 32 else range(32, 40)
        up = t - 1 if t - 1 in lanes else t
        down = t + 2 if t % 4 < 2 else t
        expected = [
            sum(1 << u % 32 for u in lanes if u % 3 == 0), 33 in lanes, lanes[0] == 0, sum(lanes),
            -lanes[-1] & 0xFFFFFFFF, lanes[-1], up, down, t // 8 * 8 + 5, 20, 1, 0,
        ]  # fmt: skip
        assert y[t].tolist() == [int(v) for v in expected]


def test_atomic_operations() -> None:
    u, s, f = np.zeros(10, np.uint32), np.zeros(2, I), np.zeros(1, F)
    u[9] = 2**32 - 1
    kernel("atomics")(1, 48, (u, s, f))
    bits = 2**32 - 1
    assert u.tolist() == [48, 2**32 - 48, 47, bits, bits ^ (2**16 - 1), 48 % 10, (0 - 48) % 10, 5, 7, 0]
    assert s.tolist() == [-47, (48 * (2**31 - 1) + 2**31) % 2**32 - 2**31] and f[0] == 24


# ------------------------------------------------------------------------------------------------ builds


SMALL = '#include "half.h"\nextern "C" __global__ void f(float* y) { y[0] = VALUE; }\n'


def value(folder: Path, **how: object) -> float:
    y = np.zeros(1, F)
    Module(SMALL, include=(folder,), **how).get_function("f")(1, 1, (y,))
    return float(y[0])


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, but for the runtime's objects."""
    real = build.cache_folder()
    value_of_nothing = Module('\nextern "C" __global__ void g() {}\n')  # makes them
    assert value_of_nothing.path.parent == real
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = build.cache_folder()
    assert folder == tmp_path / "cache" / "minitorch-unet" / "simulator"
    folder.mkdir(parents=True)
    for path in real.glob("*.o"):
        shutil.copy(path, folder)
    return folder


def test_a_build_is_found_again_until_something_changes(tmp_path, cache) -> None:
    header = tmp_path / "half.h"
    header.write_text("#define VALUE 1\n")
    assert value(tmp_path) == 1 and len(list(cache.glob("*.so"))) == 1
    assert value(tmp_path) == 1 and len(list(cache.glob("*.so"))) == 1
    header.write_text("#define VALUE 2\n")
    assert value(tmp_path) == 2 and len(list(cache.glob("*.so"))) == 2
    header.write_text("#ifndef VALUE\n#define VALUE 2\n#endif\n")
    assert value(tmp_path, defines=("VALUE=3",)) == 3 and value(tmp_path, defines=("VALUE=4",)) == 4
    assert len(list(cache.glob("*.so"))) == 4
    assert not [p for p in cache.iterdir() if p.is_dir()]  # no scratch is left


def test_builds_that_were_not_used_for_a_month_are_deleted(tmp_path, cache) -> None:
    (tmp_path / "half.h").write_text("#define VALUE 1\n")
    old, used = cache / "0-fast.so", cache / "1-check.o"
    for path, days in ((old, 31), (used, 29)):
        path.touch()
        os.utime(path, (0, time.time() - days * 86400))
    assert value(tmp_path) == 1
    assert not old.exists() and used.exists()


def test_processes_that_build_the_same_at_once(tmp_path, cache) -> None:
    (tmp_path / "half.h").write_text("#define VALUE 1\n")
    code = f"import sys; sys.path[:0] = {sys.path!r}; import test_simulator_module as t, pathlib; "
    code += f"assert t.value(pathlib.Path({str(tmp_path)!r})) == 1"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        assert process.wait() == 0, process.stderr.read()
        process.stderr.close()
    assert len(list(cache.glob("*.so"))) == 1


def test_what_does_not_compile_is_told_with_its_line() -> None:
    with pytest.raises(CompileError, match=r"kernel.cu:2:.*error.*nothing"):
        Module('\nextern "C" __global__ void f(float* y) { y[0] = nothing; }\n')
    with pytest.raises(CompileError, match=r"pool\.cu:7"):
        Module('#line 7 "pool.cu"\nextern "C" __global__ void f(float* y) { y[0] = nothing; }\n')
    with pytest.raises(FileNotFoundError):
        Module("no_such_file.cu")
    with pytest.raises(ValueError, match="mode is 'quick'"):
        Module(SMALL, "quick")


def test_no_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompilerMissing, match=r"'no-such-compiler' is not found; install g\+\+, or name one with CXX"):
        Module(SMALL)
    false = tmp_path / "broken"
    false.write_text("#!/bin/sh\necho cannot >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(false))
    with pytest.raises(CompilerMissing, match="cannot be used: cannot"):
        Module(SMALL)
    clang = tmp_path / "clang"
    clang.write_text("#!/bin/sh\necho '#define __clang__ 1'\n")
    clang.chmod(0o755)
    monkeypatch.setenv("CXX", f"{clang} -O1")
    assert "is clang" in str(build.unavailable_reason())
    monkeypatch.setenv("CXX", f"{shutil.which('g++')} -DUNUSED")
    assert build.unavailable_reason() is None


def test_stacks_are_switched_by_the_system_where_there_is_no_assembly(monkeypatch) -> None:
    usual = module("fast").path
    monkeypatch.setitem(build.FLAGS, "fast", (*build.FLAGS["fast"], "-DCUSIM_UCONTEXT"))
    built = Module(KERNELS / "various.cu", "fast")
    assert built.path != usual
    y = np.zeros(48, F)
    built.get_function("dynamic_of_the_file")(2, 48, (y,), shared_mem=192)
    np.testing.assert_array_equal(y, np.arange(48)[::-1])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("float *x, const int n", ["x", "n"]),
        ("const float* __restrict__ x,\n  long long n", ["x", "n"]),
        ("const Map<float, 3> map, Pair p", ["map", "p"]),
    ],
)
def test_names_of_parameters(text: str, names: list[str]) -> None:
    assert build.parameter_names(text) == names
