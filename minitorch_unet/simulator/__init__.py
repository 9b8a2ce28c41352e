"""CUDA without a GPU: a look-alike of CuPy whose arrays lie in host memory, and kernels that run on the processor.

`standin` is the module that plays CuPy, `module` builds a .cu source with g++ and launches its kernels.
"""

from __future__ import annotations

import os

from .build import CompileError, CompilerMissing
from .errors import KernelError
from .module import Function, Module

__all__ = ["MODES", "CompileError", "CompilerMissing", "Function", "KernelError", "Module", "mode", "set_mode"]

MODES = ("fast", "check")
VARIABLE = "MINITORCH_UNET_SIMULATOR"

_mode: str | None = None


def mode() -> str:
    """How kernels are built: "fast", or "check" for races, bounds and uninitialised reads (several times slower).

    What `set_mode` said, else the environment variable MINITORCH_UNET_SIMULATOR, else "fast". Raises ValueError for
    another value of the variable.
    """
    chosen = _mode or os.environ.get(VARIABLE) or "fast"
    if chosen not in MODES:
        raise ValueError(f"{VARIABLE} is {chosen!r}; legal are {', '.join(map(repr, MODES))}")
    return chosen


def set_mode(chosen: str | None) -> None:
    """Build kernels in this mode from now on; None: as the environment variable says. Raises ValueError for others."""
    global _mode
    if chosen is not None and chosen not in MODES:
        raise ValueError(f"set_mode: mode is {chosen!r}; legal are {', '.join(map(repr, MODES))} and None")
    _mode = chosen
