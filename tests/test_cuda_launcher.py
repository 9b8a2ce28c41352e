"""The launcher lets nothing through that a kernel would misread, and says which kernel and argument it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_kernel_cases import DEVICE

from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda.launcher import KernelLaunchError, Launcher, Strided
from minitorch_unet.backend.cuda.sources import parse, resolved
from minitorch_unet.backend.devices import library

pytestmark = pytest.mark.skipif(
    DEVICE == "simulate" and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)


@pytest.fixture(scope="module")
def launcher() -> Launcher:
    return Launcher(library(DEVICE))


def sums(launcher: Launcher, grid: Any = 1, block: Any = 256, how: Any = None, **changed: Any) -> np.ndarray:
    """Launch finish_sums, which adds 3 rows of 5 numbers; `changed` arguments in the place of good ones."""
    xp = launcher.xp
    out = xp.zeros(5, np.float32)
    arguments = {"parts": xp.ones((3, 5), np.float64), "count": 3, "channels": 5, "sums": out} | changed
    given = {name: value for name, value in arguments.items() if value is not missing}
    launcher.launch("pointwise.cu", "finish_sums", grid, block, {"T": "float"}, **(how or {}), **given)
    return out.get()


missing = object()


def test_good_arguments_are_launched(launcher: Launcher) -> None:
    np.testing.assert_array_equal(sums(launcher), np.full(5, 3))
    np.testing.assert_array_equal(sums(launcher, count=np.int64(2), channels=5.0), np.full(5, 2))
    with_gaps = launcher.xp.ones((3, 10), np.float64)[:, :5]  # refused below, unless it is said that they are meant
    np.testing.assert_array_equal(sums(launcher, parts=Strided(with_gaps)), np.full(5, 3))
    np.testing.assert_array_equal(sums(launcher, grid=(1, 0)), np.zeros(5))  # an empty grid: nothing is launched


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda xp: {"parts": np.ones((3, 5))}, TypeError, "argument parts is a numpy.ndarray; it must be a device array"),
    (lambda xp: {"parts": xp.ones((3, 5), np.float32)}, TypeError,
     r"argument parts has dtype float32; the kernel takes float64 \(double\*\)"),
    (lambda xp: {"parts": xp.ones((3, 10))[:, :5]}, ValueError, r"argument parts of shape \(3, 5\) has gaps in mem"),
    (lambda xp: {"parts": xp.ones(16)[1:], "how": {"align": 16}}, ValueError,
     "argument parts starts 8 bytes past a multiple of 16"),
    (lambda xp: {"count": 2.5}, TypeError, "argument count is 2.5; it must be a whole number"),
    (lambda xp: {"count": 2**31}, ValueError, "argument count is 2147483648; int holds -2147483648 to 2147483647"),
    (lambda xp: {"count": "3"}, TypeError, "argument count is a str; it must be a number"),
    (lambda xp: {"count": b"1234"}, TypeError, "argument count is a bytes; it must be a number"),
    (lambda xp: {"count": missing}, TypeError, r"arguments missing: \['count'\], unknown: \[\]"),
    (lambda xp: {"extra": 1}, TypeError, r"arguments missing: \[\], unknown: \['extra'\]"),
    (lambda xp: {"grid": (1, 65536)}, ValueError, r"grid is \(1, 65536, 1\); legal are 1 to"),
    (lambda xp: {"block": (64, 32)}, ValueError, "has 2048 threads; at most 1024 are legal"),
    (lambda xp: {"how": {"shared": 10**6}}, ValueError, "needs 1000000 bytes of shared memory a block; this"),
])  # fmt: skip
def test_what_does_not_fit_is_named(launcher: Launcher, make: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match="^finish_sums: .*" + text):
        sums(launcher, **make(launcher.xp))


def test_a_struct_is_bytes_and_nothing_else(launcher: Launcher) -> None:
    xp = launcher.xp
    arrays = {"parts": xp.zeros(4, np.float32), "bias": None, "mask": None, "y": xp.zeros(4, np.float32)}
    with pytest.raises(TypeError, match="conv_finish: argument conv is a int; it must be the bytes of a Convolution"):
        launcher.launch("conv_finish.cu", "conv_finish", 1, 256, {"T": "float"}, splits=1, conv=3, **arrays)


def test_unknown_kernels_and_broken_sources(launcher: Launcher) -> None:
    with pytest.raises(KernelLaunchError, match=r"pool.cu has no kernel 'swim'; it has .*halve"):
        launcher.launch("pool.cu", "swim", 1, 1, {"T": "float"})
    with pytest.raises(KernelLaunchError, match=r"pool.cu .*'no_such_type'.* does not compile"):
        launcher.launch("pool.cu", "halve", 1, 1, {"T": "no_such_type"})


def test_declarations_are_read() -> None:
    text = """
    // extern "C" __global__ void not_me(int a) {}
    extern "C" __global__ void __launch_bounds__(128, 2) me(const T* __restrict__ x, unsigned long long n, const
      __grid_constant__ Map map) {}
    """
    (name, parameters), = parse(text).items()
    assert name == "me"
    assert [tuple(p) for p in parameters] == [
        ("x", "T", True), ("n", "unsigned long long", False), ("map", "Map", False)
    ]  # fmt: skip
    assert resolved("T", {"T": "bf16"}) == "bf16"
