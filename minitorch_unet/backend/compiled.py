"""The compiled CPU kernels: finding the shared library, choosing the instruction set, calling by ctypes.

MINITORCH_UNET_KERNELS forces an instruction set ("avx512", "avx2", "baseline") or does without ("numpy").
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import dry

INSTRUCTION_SETS = ("avx512", "avx2", "baseline")


def library_path() -> Path | None:
    """The compiled library beside this package, or None where it was not built."""
    package = Path(__file__).resolve().parents[1]
    names = ["_cpu_kernels" + suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    return next((package / name for name in names if (package / name).is_file()), None)


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """(library, instruction set), or (None, why there is none)."""
    wanted = os.environ.get("MINITORCH_UNET_KERNELS", "")
    if wanted == "numpy":
        return None, "switched off by MINITORCH_UNET_KERNELS=numpy"
    if wanted and wanted not in INSTRUCTION_SETS:
        legal = ", ".join((*INSTRUCTION_SETS, "numpy"))
        raise ValueError(f"MINITORCH_UNET_KERNELS is {wanted!r}; legal are {legal}")
    path = library_path()
    if path is None:
        return None, "not built: no C++ compiler when the package was installed"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"cannot be loaded: {error}"
    supported = [
        name
        for name in INSTRUCTION_SETS
        if name == "baseline" or getattr(library, f"supports_{name}")()
    ]
    if wanted and wanted not in supported:
        raise ValueError(f"MINITORCH_UNET_KERNELS is {wanted!r}; this processor supports {', '.join(supported)}")
    return library, wanted or supported[0]


def available() -> bool:
    """Whether compiled kernels serve this process."""
    return _load()[0] is not None


def status() -> str:
    """One line for people: the instruction set in use, or why NumPy serves everything."""
    library, text = _load()
    return f"in use, instruction set {text}" if library else f"none ({text}); NumPy serves every operation"


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """The C function `name` for the chosen instruction set. Integers go as int64, floats as float, arrays by address"""
    library, instruction_set = _load()
    if library is None:  # a dry run does without
        return lambda *arguments: dry.WIDTHS.get(name)
    raw = getattr(library, f"{name}_{instruction_set}")
    raw.restype = ctypes.c_int64 if name in dry.WIDTHS else None

    def call(*arguments: Any) -> Any:
        if dry.record is not None and raw.restype is None:
            return None
        return raw(*(_converted(a) for a in arguments))

    return call


@functools.cache
def width(name: str) -> int:
    """"panel_width", "vector_width" or "register_rows" of the instruction set in use, see kernels/cpu/products.h."""
    return int(function(name)())


def _converted(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_int64(int(value))


class _Scratch(threading.local):
    """Buffers of this thread by purpose: asking the system for memory on every call costs page faults."""

    def __init__(self) -> None:
        self.buffers: dict[str, np.ndarray] = {}


_scratch = _Scratch()


def scratch(purpose: str, size: int) -> np.ndarray:
    """At least `size` floats, aligned to 64 bytes, valid until this thread asks for the same purpose again."""
    if dry.record is not None:
        dry.record.scratch(purpose, 4 * size)
        return np.zeros(0, np.float32)
    buffer = _scratch.buffers.get(purpose)
    if buffer is None or buffer.size < size:
        raw = np.empty(size + 16, np.float32)
        skip = -raw.ctypes.data % 64 // 4
        buffer = _scratch.buffers[purpose] = raw[skip : skip + size]
    return buffer
