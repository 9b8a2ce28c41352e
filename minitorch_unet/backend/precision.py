"""How exactly matrix products are computed: in the maps' own type, with shorter factors, or in 16 bits.

Two settings, both named as PyTorch's. `set_float32_matmul_precision` says what a product of float32 arrays may do;
`autocast` lets convolutions turn float32 maps into 16-bit ones, while weights, sums and gradients of weights stay
float32 ("mixed precision", Micikevicius et al. 2018).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

FLOAT32_PRECISIONS = ("highest", "high")
AUTOCAST_TYPES = ("float16", "bfloat16")


class _Settings(threading.local):
    def __init__(self) -> None:
        self.autocast: np.dtype[Any] | None = None


_settings = _Settings()
_float32_precision = "highest"


def bfloat16() -> np.dtype[Any]:
    """The dtype bfloat16 (float32's range, 8 bits of precision), which NumPy and CuPy know through ml_dtypes."""
    try:
        import ml_dtypes
    except ImportError as error:
        raise ValueError("bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from error
    return np.dtype(ml_dtypes.bfloat16)


def is_floating(dtype: Any) -> bool:
    """Whether a dtype holds real numbers, bfloat16 among them (whose NumPy kind is "V", as of any foreign type)."""
    dtype = np.dtype(dtype)
    return dtype.kind == "f" or dtype.name == "bfloat16"


def is_short(dtype: Any) -> bool:
    """Whether it is one of the 16-bit floating-point types, float16 and bfloat16."""
    return np.dtype(dtype).itemsize == 2 and is_floating(dtype)


def wide(dtype: Any) -> np.dtype[Any]:
    """The type in which sums over arrays of `dtype` are kept: float32 for the 16-bit types, else the type itself."""
    return np.dtype(np.float32) if is_short(dtype) else np.dtype(dtype)


def named_dtype(name: str) -> np.dtype[Any]:
    """The dtype of a name; "bfloat16" included."""
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def set_float32_matmul_precision(precision: str) -> None:
    """Choose how products of float32 arrays are computed on a GPU: "highest" in float32 accuracy, "high" in TF32.

    TF32 keeps float32's range and rounds the factors (not the sums) to 11 bits: a relative error of about 5e-4 a
    factor, at several times the speed. On a CPU both are float32. Raises ValueError for other names.
    """
    global _float32_precision
    if precision not in FLOAT32_PRECISIONS:
        legal = ", ".join(map(repr, FLOAT32_PRECISIONS))
        raise ValueError(f"set_float32_matmul_precision: precision is {precision!r}; legal are {legal}")
    _float32_precision = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was last given; "highest" at first."""
    return _float32_precision


@contextlib.contextmanager
def autocast(dtype: Any = "bfloat16", enabled: bool = True) -> Iterator[None]:
    """Inside, convolutions turn float32 maps into `dtype` ("bfloat16" or "float16") and give maps of that type.

    Weights stay float32 (their gradients too), sums are kept in float32, and losses turn scores into float32 first.
    Of this thread only; the innermost counts. float16 has a small range: train it with a `GradScaler`.
    Raises ValueError for other types, and where bfloat16 is not installed.
    """
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in AUTOCAST_TYPES:
        raise ValueError(f"autocast: dtype is {name!r}; legal are {', '.join(map(repr, AUTOCAST_TYPES))}")
    before = _settings.autocast
    _settings.autocast = named_dtype(name) if enabled else None
    try:
        yield
    finally:
        _settings.autocast = before


def autocast_dtype() -> np.dtype[Any] | None:
    """The type convolutions compute in just now, by `autocast`; None: that of their arrays."""
    return _settings.autocast
