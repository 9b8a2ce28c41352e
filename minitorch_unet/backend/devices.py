"""Devices: which array library serves an array, and moving arrays between them."""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import Any

import numpy as np

from . import compiled, dry
from .cpu import CpuKernels
from .reference import Kernels

Array = Any  # numpy.ndarray or cupy.ndarray: both speak the same language


@functools.cache
def cuda_unavailable_reason() -> str | None:
    """Why CUDA cannot be used here, in words; None when it can. Imports CuPy on first use."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed; install the extra 'cuda12' or 'cuda13' of minitorch-unet"
    try:
        import cupy

        if not cupy.cuda.is_available():
            return "CuPy is installed but finds no CUDA device"
    except Exception as error:  # a broken driver or library can fail in any way at import
        return f"CuPy cannot be used: {error}"
    return None


def array_module(array: Array) -> Any:
    """The library an array belongs to: the `numpy` or the `cupy` module."""
    if isinstance(array, np.ndarray | np.generic):
        return np
    return sys.modules[type(array).__module__.partition(".")[0]]


def device_of(array: Array) -> str:
    """`"cpu"` or `"cuda:N"`."""
    if isinstance(array, np.ndarray | np.generic):
        return "cpu"
    return f"cuda:{array.device.id}"


def check_device(device: str) -> str:
    """`device` in its full form ("cpu" or "cuda:N"); raises ValueError when it does not exist here."""
    if device == "cpu":
        return device
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdecimal()):
        raise ValueError(f"device is {device!r}; legal are 'cpu', 'cuda' and 'cuda:N'")
    reason = cuda_unavailable_reason()
    if reason:
        raise ValueError(f"device {device!r} is not available: {reason}")
    import cupy

    count = cupy.cuda.runtime.getDeviceCount()
    if int(number or 0) >= count:
        raise ValueError(f"device {device!r} does not exist: there are {count} CUDA devices, numbered from 0")
    return f"cuda:{int(number or 0)}"


def to_device(array: Array, device: str) -> Array:
    """The array on `device`; the same object if it is already there."""
    device = check_device(device)
    if device_of(array) == device:
        return array
    if device == "cpu":
        return array.get()
    import cupy

    with cupy.cuda.Device(int(device.partition(":")[2])):
        return cupy.asarray(array)


def to_numpy(array: Array) -> np.ndarray:
    """The array in host memory."""
    return array if isinstance(array, np.ndarray) else np.asarray(to_device(array, "cpu"))


@functools.cache
def kernels_of(xp: Any) -> Kernels:
    """The routines that serve arrays of the library `xp`."""
    if xp is np and compiled.available():
        return CpuKernels()
    return Kernels(xp)


_compiled_kernels = functools.cache(CpuKernels)


def kernels_for(array: Array) -> Kernels:
    """The routines that serve this array."""
    if dry.record is not None and array_module(array) is np:
        return _compiled_kernels()
    return kernels_of(array_module(array))
