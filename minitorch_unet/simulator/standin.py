"""The module that plays CuPy: the library `xp` of device "simulate", and in tests, after `install()`, `cupy` itself.

    from minitorch_unet.simulator import standin as cp
    a = cp.ones((2, 3), cp.float32) * 2
    with cp.counting() as seen:
        total = float(a.sum())
    print(seen.launches, seen.syncs)

Names that are not CuPy's: `stats` and `counting` (see stats.py), `dry` and `dry_running` (see capture.py), `install`,
`uninstall`, `installed`, `cupyx`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import capture, cuda_api, methods
from . import stats as _stats
from .device_array import ndarray, run
from .indices import index_of
from .memory import get_default_memory_pool
from .raw import RawKernel, RawModule
from .tables import BINARY, CONSTANTS, FUNCTIONS, UNARY, bound

__version__ = "14.2.0+standin"
stats, counting = _stats.stats, _stats.counting
dry, dry_running = capture.dry, capture.dry_running
cuda = cuda_api.module
installed = False

__all__ = ["RawKernel", "RawModule", "get_default_memory_pool", "ndarray"]


class Ufunc:
    """An elementwise function: arrays or numbers, `out`, `dtype`; `at` where the project needs it."""

    def __init__(self, name: str, nin: int) -> None:
        self.name, self.nin = name, nin
        self._numpy = getattr(np, name)

    def __call__(self, *args: Any, out: Any = None, casting: str = "same_kind", dtype: Any = None) -> Any:
        if len(args) == self.nin + 1 and out is None:
            *args, out = args  # type: ignore[assignment]
        if len(args) != self.nin:
            raise TypeError(f"{self.name}: takes {self.nin} arrays, found {len(args)}")
        how = {"casting": casting} | ({} if dtype is None else {"dtype": dtype})
        if out is not None:
            return methods.in_place(self.name, self._numpy, out, *args, **how)
        return run(self.name, self._numpy, *args, **how)


class Add(Ufunc):
    """The one ufunc whose `at` is used."""

    def at(self, a: ndarray, indices: Any, b: Any) -> None:
        """Add b at the indices, repeated ones as often as they occur."""
        key = index_of(indices)
        run("add.at", lambda x, y: np.add.at(x, key, y), a, b, writes=a)


def _function(name: str, parameters: str) -> Callable[..., Any]:
    numpy = getattr(np, name)
    by_position = parameters.partition("/")[0].split()

    def call(*args: Any, **kwargs: Any) -> Any:
        named = bound(name, parameters, args, kwargs)
        out = named.pop("out", None)
        if name in ("argmax", "argmin"):
            named.pop("dtype", None)
        first = [named.pop(parameter) for parameter in by_position if parameter in named]
        if out is not None:
            return methods.in_place(name, numpy, out, *first, **named)
        return run(name, numpy, *first, **named)

    call.__name__ = name
    return call


_names: dict[str, Any] = {name: getattr(np, name) for name in CONSTANTS}
_names |= {name: Ufunc(name, 1) for name in UNARY} | {name: Ufunc(name, 2) for name in BINARY}
_names |= {name: _function(name, parameters) for name, parameters in FUNCTIONS.items()}
_names["add"] = Add("add", 2)


def __getattr__(name: str) -> Any:
    if name not in _names:
        raise AttributeError(f"stand-in: {name!r} is not among the names of CuPy that the project uses (tables.py)")
    return _names[name]


# --------------------------------------------------------------------- creation


def array(obj: Any, dtype: Any = None, copy: bool = True, order: str = "K", ndmin: int = 0) -> ndarray:
    """A new array. Like CuPy, it keeps a device array's memory order, but lays out a host array in C or F order."""
    if isinstance(obj, ndarray):
        if not copy and (dtype is None or obj.dtype == np.dtype(dtype)) and obj.ndim >= ndmin:
            return obj
        kept = run("copy", lambda a: np.array(a, dtype, order=order, ndmin=ndmin), obj, keep_order=order != "C")  # type: ignore[call-overload]
        return kept
    if isinstance(obj, list | tuple) and any(isinstance(item, ndarray) for item in obj):
        return _names["stack"]([array(item, dtype) for item in obj])
    given = np.array(obj, dtype, ndmin=ndmin)
    if given.dtype.kind not in "biufV":
        raise ValueError(f"Unsupported dtype {given.dtype}")
    capture.transferred("upload", "array", given.nbytes)
    fortran = order == "F" or (order in "KA" and given.flags.f_contiguous and not given.flags.c_contiguous)
    made = ndarray(given.shape, given.dtype, "F" if fortran else "C")
    if not capture.state.dry:
        made._host[...] = given
    return made


def asarray(a: Any, dtype: Any = None, order: str | None = None, *, copy: bool | None = None) -> ndarray:
    """`array` without a copy where none is needed."""
    return array(a, dtype, copy=bool(copy), order=order or "K")


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    """In C order; the same object if it is so already."""
    a = asarray(a, dtype)
    return a if a.flags.c_contiguous else run("copy", np.ascontiguousarray, a)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """Memory that nobody has written: filled with NaN or bytes 0x7f, so that reading it shows."""
    return ndarray(shape, dtype, order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    """All elements the same number."""
    made = ndarray(shape, np.asarray(fill_value).dtype if dtype is None else dtype, order)
    return run("fill", lambda a, value: np.copyto(a, value, casting="unsafe"), made, fill_value, writes=made)


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """All 0."""
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    """All 1."""
    return full(shape, 1, dtype, order)


def empty_like(prototype: ndarray, dtype: Any = None, order: str = "K") -> ndarray:
    """`empty` of the prototype's shape and (unless given) type, in its memory order."""
    return ndarray._like(np.empty_like(prototype._host, dtype, order=order))  # type: ignore[call-overload]


def full_like(a: ndarray, fill_value: Any, dtype: Any = None, order: str = "K") -> ndarray:
    """`full` of a's shape and (unless given) type, in its memory order."""
    made = empty_like(a, dtype, order)
    return run("fill", lambda x, value: np.copyto(x, value, casting="unsafe"), made, fill_value, writes=made)


def zeros_like(a: ndarray, dtype: Any = None, order: str = "K") -> ndarray:
    """All 0, in a's memory order."""
    return full_like(a, 0, dtype, order)


def ones_like(a: ndarray, dtype: Any = None, order: str = "K") -> ndarray:
    """All 1, in a's memory order."""
    return full_like(a, 1, dtype, order)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> ndarray:
    """Evenly spaced numbers."""
    first, last = (0, start) if stop is None else (start, stop)
    values: np.ndarray = np.arange(first, last, step, dtype=dtype)
    made = ndarray(values.shape, values.dtype)
    return run("arange", lambda a: np.copyto(a, values), made, writes=made)


# ------------------------------------------------------------------------ others


def asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> np.ndarray:
    """A copy in host memory."""
    if isinstance(a, ndarray):
        return a.get(stream, order, out, blocking)
    return np.asarray(a, order=order)  # type: ignore[call-overload]


def copyto(dst: ndarray, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    """dst = src, only where the condition holds."""
    mask = True if where is None else where
    run("copyto", lambda d, s, w: np.copyto(d, s, casting=casting, where=w), dst, src, mask, writes=dst)  # type: ignore[arg-type]


def put_along_axis(arr: ndarray, indices: ndarray, values: Any, axis: int) -> None:
    """arr = values where take_along_axis would read."""
    run("put_along_axis", lambda a, i, v: np.put_along_axis(a, i, v, axis), arr, indices, values, writes=arr)


def result_type(*arrays_and_dtypes: Any) -> Any:
    """The type that NumPy's rules give."""
    return np.result_type(*(a.dtype if isinstance(a, ndarray) else a for a in arrays_and_dtypes))


def get_array_module(*args: Any) -> Any:
    """This module if any argument is a device array, else NumPy."""
    return sys.modules[__name__] if any(isinstance(a, ndarray) for a in args) else np


def shares_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    """Whether two arrays have an element in common."""
    return np.shares_memory(a._host, b._host)


def may_share_memory(a: ndarray, b: ndarray, max_work: Any = None) -> bool:
    """Whether the memory of two arrays overlaps."""
    return np.may_share_memory(a._host, b._host)


def _as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return run("as_strided", lambda a: np.lib.stride_tricks.as_strided(a, shape, strides), x)


def _erf(x: ndarray) -> ndarray:
    from scipy.special import erf

    return run("erf", erf, x)


def _module(name: str, **values: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(values)
    return made


lib = _module("cupy.lib", stride_tricks=_module("cupy.lib.stride_tricks", as_strided=_as_strided))
cupyx = _module("cupyx", scipy=_module("cupyx.scipy", special=_module("cupyx.scipy.special", erf=_erf)))


def install() -> types.ModuleType:
    """Make `import cupy` give this module, in this process. Raises RuntimeError if a real CuPy is loaded."""
    global installed
    if not installed and "cupy" in sys.modules:
        raise RuntimeError("install: CuPy is loaded already")
    me = sys.modules[__name__]
    sys.modules |= {
        "cupy": me, "cupy.cuda": cuda, "cupyx": cupyx, "cupyx.scipy": cupyx.scipy,
        "cupyx.scipy.special": cupyx.scipy.special,
    }  # fmt: skip
    installed = True
    return me


def uninstall() -> None:
    """Undo `install`."""
    global installed
    for name in ("cupy", "cupy.cuda", "cupyx", "cupyx.scipy", "cupyx.scipy.special") if installed else ():
        del sys.modules[name]
    installed = False
