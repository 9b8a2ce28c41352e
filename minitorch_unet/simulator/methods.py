"""Methods and operators of the stand-in's array, put on the class from the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import capture
from .device_array import ndarray, operand, run
from .tables import COMPARISONS, METHODS, OPERATORS, POSITIONAL_METHODS, SIGNS, bound


def in_place(name: str, function: Callable[..., Any], out: ndarray, *args: Any, **kwargs: Any) -> ndarray:
    """function(*args, out=out, **kwargs) as one operation that writes to `out`."""
    if not isinstance(out, ndarray):
        raise TypeError("Output arguments type must be cupy.ndarray")
    return run(name, lambda o, *a, **k: function(*a, out=o, **k), out, *args, writes=out, **kwargs)


def _binary(function: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    ufunc = getattr(np, function)

    def forward(self: ndarray, other: Any) -> Any:
        return run(function, ufunc, self, other) if operand(other) else NotImplemented

    def reflected(self: ndarray, other: Any) -> Any:
        return run(function, ufunc, other, self) if operand(other) else NotImplemented

    def changing(self: ndarray, other: Any) -> Any:
        return in_place(function, ufunc, self, self, other) if operand(other) else NotImplemented

    return forward, reflected, changing


def _unary(function: str) -> Callable[..., Any]:
    ufunc = getattr(np, function)
    return lambda self: run(function, ufunc, self)


def _listed(name: str, parameters: str) -> Callable[..., Any]:
    """A method that NumPy's array has, with CuPy's parameters."""

    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        named = bound(name, parameters, args, kwargs)
        out = named.pop("out", None)
        if name.startswith("arg"):
            named.pop("dtype", None)
        if name in POSITIONAL_METHODS:
            return run(name, lambda a, *rest: getattr(a, name)(*rest), self, *named.values())
        if out is not None:
            return in_place(name, lambda a, **rest: getattr(a, name)(**rest), out, self, **named)
        return run(name, lambda a, **rest: getattr(a, name)(**rest), self, **named)

    return method


def _matmul(self: ndarray, other: Any) -> Any:
    return run("matmul", np.matmul, self, other) if isinstance(other, ndarray) or operand(other) else NotImplemented


def _reshape(self: ndarray, *shape: Any, order: Any = "C", copy: Any = None) -> ndarray:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    return run("reshape", lambda a: a.reshape(sizes, order=order), self)


def _transpose(self: ndarray, *axes: Any) -> ndarray:
    return run("transpose", lambda a: a.transpose(*axes), self)


def _copy(self: ndarray, order: Any = "C") -> ndarray:
    return run("copy", lambda a: a.copy(order), self, keep_order=order != "C")


def _astype(
    self: ndarray, dtype: Any, order: Any = "K", casting: Any = None, subok: Any = None, copy: Any = True
) -> ndarray:  # fmt: skip
    if casting is not None or subok is not None:
        raise TypeError("astype: casting and subok are not supported yet")
    return run("astype", lambda a: a.astype(dtype, order=order, copy=copy), self, keep_order=order not in ("C", None))


def _view(self: ndarray, dtype: Any = None) -> ndarray:
    return run("view", lambda a: a.view() if dtype is None else a.view(dtype), self)


def _fill(self: ndarray, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.shape:
        raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
    run("fill", lambda a: a.fill(value), self, writes=self)


def _nonzero(self: ndarray) -> tuple[ndarray, ...]:
    capture.synchronised("nonzero")
    found = np.nonzero(self._host)
    return tuple(run("nonzero", lambda a, i=i: found[i].copy(), self) for i in range(self.ndim))


for _name, _parameters in METHODS.items():
    setattr(ndarray, _name, _listed(_name, _parameters))
for _name, _function in OPERATORS.items():
    for _prefix, _method in zip(("", "r", "i"), _binary(_function), strict=True):
        setattr(ndarray, f"__{_prefix}{_name}__", _method)
for _name, _function in COMPARISONS.items():
    setattr(ndarray, f"__{_name}__", _binary(_function)[0])
for _name, _function in SIGNS.items():
    setattr(ndarray, f"__{_name}__", _unary(_function))
for _name, _body in {
    "__matmul__": _matmul, "reshape": _reshape, "transpose": _transpose, "copy": _copy, "astype": _astype,
    "view": _view, "fill": _fill, "nonzero": _nonzero,
}.items():  # fmt: skip
    setattr(ndarray, _name, _body)
