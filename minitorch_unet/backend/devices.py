"""Devices: which array library serves an array, and moving arrays between them.

"cpu" is NumPy. "cuda" (or "cuda:N") is CuPy on a GPU. "simulate" is the stand-in for CuPy of minitorch_unet.simulator:
the same kernels, on the processor, for tests and for looking at what a GPU would do. "auto" is cuda where it can be
used, else cpu.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import compiled, dry
from .cpu import CpuKernels
from .reference import Kernels
from .threads import get_num_threads

Array = Any  # numpy.ndarray, cupy.ndarray or the stand-in's: all speak the same language

DEVICES = "'cpu', 'cuda', 'cuda:N', 'simulate' and 'auto'"
STANDIN = "minitorch_unet.simulator.device_array"  # the module of its array class


def standin() -> Any:
    """The module that plays CuPy."""
    from ..simulator import standin as module

    return module


def cuda_unavailable_reason() -> str | None:
    """Why CUDA cannot be used here, in words; None when it can. Imports CuPy and compiles a kernel on first use."""
    if "minitorch_unet.simulator.standin" in sys.modules and standin().installed:
        return None
    return _cuda_unavailable_reason()


@functools.cache
def _cuda_unavailable_reason() -> str | None:
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed; install the extra 'cuda12' or 'cuda13' of minitorch-unet"
    try:
        import cupy

        if not cupy.cuda.is_available():
            return "CuPy is installed but finds no CUDA device"
    except Exception as error:  # a broken driver or library can fail in any way at import
        return f"CuPy cannot be used: {error}"
    try:
        cupy.RawModule(code='extern "C" __global__ void nothing() {}').compile()
    except Exception as error:  # a missing or unfitting NVRTC as well
        return f"CuPy cannot compile kernels: {' '.join(str(error).split())}"
    return None


def simulator_unavailable_reason() -> str | None:
    """Why kernels cannot be simulated here, in words; None when they can, or need not (in a dry run)."""
    if "minitorch_unet.simulator.standin" in sys.modules and standin().dry_running():
        return None
    from ..simulator.build import unavailable_reason

    return unavailable_reason()


def is_array(value: Any) -> bool:
    """Whether the value is an array of one of the devices."""
    return (
        isinstance(value, np.ndarray)
        or type(value).__module__ == STANDIN
        or hasattr(value, "__cuda_array_interface__")
    )


def array_module(array: Array) -> Any:
    """The library an array belongs to: the module `numpy`, `cupy` or the stand-in."""
    if isinstance(array, np.ndarray | np.generic):
        return np
    if type(array).__module__ == STANDIN:
        return standin()
    return sys.modules[type(array).__module__.partition(".")[0]]


def library(device: str) -> Any:
    """The module whose arrays are on a device, given in its full form."""
    if device == "cpu":
        return np
    if device == "simulate":
        return standin()
    import cupy

    return cupy


def device_of(array: Array) -> str:
    """`"cpu"`, `"cuda:N"` or `"simulate"`."""
    if isinstance(array, np.ndarray | np.generic):
        return "cpu"
    if type(array).__module__ == STANDIN and not standin().installed:
        return "simulate"
    return f"cuda:{array.device.id}"


def check_device(device: str) -> str:
    """`device` in its full form ("cpu", "cuda:N" or "simulate"); raises ValueError when it does not exist here."""
    if device == "cpu":
        return device
    if device == "auto":
        return "cpu" if cuda_unavailable_reason() else "cuda:0"
    name, _, number = device.partition(":")
    if device != "simulate" and (name != "cuda" or (":" in device and not number.isdecimal())):
        raise ValueError(f"device is {device!r}; legal are {DEVICES}")
    reason = simulator_unavailable_reason() if device == "simulate" else cuda_unavailable_reason()
    if reason:
        raise ValueError(f"device {device!r} is not available: {reason}")
    if device == "simulate":
        return device
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if int(number or 0) >= count:
        raise ValueError(f"device {device!r} does not exist: there are {count} CUDA devices, numbered from 0")
    return f"cuda:{int(number or 0)}"


def use_device(device: str) -> None:
    """Make a GPU the one that new arrays and all work go to; nothing to do for other devices."""
    if device.startswith("cuda"):
        library(device).cuda.Device(int(device.partition(":")[2])).use()


def memory_order(array: Array) -> tuple[int, ...]:
    """The axes from the one with the largest steps in memory to the one with the smallest."""
    return tuple(sorted(range(array.ndim), key=lambda i: (-abs(array.strides[i]), i)))


def is_device(target: Any) -> bool:
    """Whether this is the name of a device, be it there or not."""
    return isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda", "simulate", "auto")


def describe_device(device: str) -> str:
    """A device, given in its full form, in words: `cuda:0 (NAME, 80 GiB)`."""
    if device == "cpu":
        return f"cpu ({get_num_threads()} threads)"
    if device == "simulate":
        return "simulate (CUDA kernels on the processor: slow, for tests)"
    properties = library(device).cuda.runtime.getDeviceProperties(int(device.partition(":")[2]))
    return f"{device} ({properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB)"


def laid_out(array: Array, order: tuple[int, ...]) -> Array:
    """The array with its axes in this order in memory, without gaps; itself if it is so already."""
    inner = array.transpose(order)
    if inner.flags.c_contiguous:
        return array
    return array_module(array).ascontiguousarray(inner).transpose(np.argsort(order).tolist())


def to_device(array: Array, device: str) -> Array:
    """The array on `device`, its axes in the same order in memory; the same object if it is already there."""
    device = check_device(device)
    source = device_of(array)
    if source == device:
        return array
    array = np.asarray(array) if isinstance(array, np.generic) else array
    order = memory_order(array)
    inner, back = array.transpose(order), np.argsort(order).tolist()  # CuPy transfers in C order only
    if device == "cpu":
        return inner.get().transpose(back)
    if "simulate" in (source, device) and source != "cpu":
        inner = inner.get()
    xp = library(device)
    with xp.cuda.Device(int(device.partition(":")[2] or 0)):
        made = xp.asarray(np.asarray(inner, order="C")) if isinstance(inner, np.ndarray) else inner.copy()
    return made.transpose(back)


def to_numpy(array: Array) -> np.ndarray:
    """The array in host memory."""
    return array if isinstance(array, np.ndarray) else np.asarray(to_device(array, "cpu"))


_kernels: dict[Any, Kernels] = {}  # by array library


def kernels_of(xp: Any) -> Kernels:
    """The routines that serve arrays of the library `xp`."""
    if xp not in _kernels:
        _kernels[xp] = _make_kernels(xp)
    return _kernels[xp]


def _make_kernels(xp: Any) -> Kernels:
    if xp is not np:
        from .cuda import CudaKernels

        return CudaKernels(xp)
    return CpuKernels() if compiled.available() else Kernels(xp)


@contextlib.contextmanager
def dry_gpu() -> Iterator[Any]:
    """Within it device "simulate" runs dry, see the stand-in's `dry`: gives the memory pool that counts its arrays.

    With kernels of its own, since what they keep would be without values.
    """
    pool = standin().cuda.MemoryPool()
    before = _kernels.pop(standin(), None)
    try:
        with standin().dry(), standin().cuda.using_allocator(pool.malloc):
            yield pool
    finally:
        _kernels.pop(standin(), None)
        if before is not None:
            _kernels[standin()] = before


_compiled_kernels = functools.cache(CpuKernels)


def kernels_for(array: Array) -> Kernels:
    """The routines that serve this array."""
    if dry.record is not None and array_module(array) is np:
        return _compiled_kernels()
    return kernels_of(array_module(array))
