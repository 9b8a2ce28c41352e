"""Arguments of a kernel: each is compared with what the kernel's parameter really is, then laid out in memory.

CUDA itself checks nothing: a float64 array read as float, or a number of another width, gives rubbish without a word.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, NamedTuple

import numpy as np

# C types by kind and size of the NumPy dtypes that are laid out alike. bool is one byte on both sides.
NUMBERS = {
    "float": "float32", "double": "float64", "half": "float16", "bf16": "bfloat16", "bool": "bool",
    "char": "int8", "signed char": "int8", "unsigned char": "uint8", "short int": "int16",
    "short unsigned int": "uint16", "int": "int32", "unsigned int": "uint32", "long int": "int64",
    "long long int": "int64", "long unsigned int": "uint64", "long long unsigned int": "uint64",
}  # fmt: skip
VECTORS = {
    "char": "int8", "uchar": "uint8", "short": "int16", "ushort": "uint16", "int": "int32", "uint": "uint32",
    "longlong": "int64", "ulonglong": "uint64", "float": "float32", "double": "float64",
}  # fmt: skip
# 16-bit storage types may also come as raw bits.
ALSO = {"float16": ("uint16",), "bfloat16": ("uint16",), "bool": ("uint8",), "int8": ("bool",), "uint8": ("bool",)}


class Parameter(NamedTuple):
    """A kernel's parameter. kind: "p" (pointer), "i", "f" (number), "s" (struct); type: its own or its target."""

    name: str
    kind: str
    size: int
    type: str
    type_size: int
    is_const: bool

    @classmethod
    def of(cls, name: str, kind: str, size: int, text: str, type_size: int, is_const: bool) -> Parameter:
        """`text` is the compiler's description of a function template: "... [with T = unsigned char; ...]"."""
        found = re.search(r"\bT = ([^;\]]+)", text)
        return cls(name, kind, size, found[1] if found else "?", type_size, is_const)

    def dtype(self) -> str | None:
        """The NumPy dtype of a pointer's target; None where any will do (void, a struct)."""
        if self.type in NUMBERS:
            return NUMBERS[self.type]
        vector = re.fullmatch(r"([a-z]+)[1-4]", self.type)
        return VECTORS.get(vector[1]) if vector else None


class Argument(NamedTuple):
    """A converted argument. span: (begin, end, name, bytes an element) of an array's memory; kept: what must live."""

    address: int
    span: tuple[int, int, str, int] | None
    kept: Any


def convert(kernel: str, parameter: Parameter, value: Any) -> Argument:
    """Check `value` and give it an address; raises TypeError and ValueError that name kernel and parameter."""
    where = f"{kernel}: argument {parameter.name}"
    if parameter.kind == "p":
        return _pointer(where, parameter, value)
    if parameter.kind == "s":
        return _struct(where, parameter, value)
    if not isinstance(value, np.generic | np.ndarray) or value.ndim:
        raise TypeError(f"{where} is a {type(value).__name__}; it must be a NumPy scalar of {parameter.size} bytes")
    kinds = "f" if parameter.kind == "f" else "iub"
    if value.dtype.kind not in kinds or value.dtype.itemsize != parameter.size:
        raise TypeError(f"{where} is a {value.dtype}; the kernel takes {parameter.type} ({parameter.size} bytes)")
    return _by_value(value.tobytes())


def _pointer(where: str, parameter: Parameter, value: Any) -> Argument:
    if isinstance(value, np.integer) and value.dtype.itemsize == 8:
        return _by_value(value.tobytes())
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where} is a {type(value).__name__}; it must be an array, or np.uintp(0) for a null pointer")
    expected = parameter.dtype()
    if expected and value.dtype.name != expected and value.dtype.name not in ALSO.get(expected, ()):
        raise TypeError(f"{where} has dtype {value.dtype}; the kernel takes {expected} ({parameter.type}*)")
    if not parameter.is_const and not value.flags.writeable:
        raise ValueError(f"{where} is read-only, but the kernel's pointer is not const")
    begin, end = np.lib.array_utils.byte_bounds(value) if value.size else (0, 0)
    span = (begin, end, f"{parameter.name}", value.itemsize)
    address = value.ctypes.data
    return _by_value(address.to_bytes(8, "little"), span if value.size else None, value)


def _struct(where: str, parameter: Parameter, value: Any) -> Argument:
    if isinstance(value, np.void | np.ndarray):
        value = value.tobytes()
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"{where} is a {type(value).__name__}; it must be the struct's bytes")
    if len(value) != parameter.size:
        raise ValueError(f"{where} has {len(value)} bytes; {parameter.type} has {parameter.size}")
    return _by_value(bytes(value))


def _by_value(content: bytes, span: tuple[int, int, str, int] | None = None, kept: Any = None) -> Argument:
    buffer = ctypes.create_string_buffer(len(content) + 64)
    address = -(-ctypes.addressof(buffer) // 64) * 64  # structs may want to be aligned
    ctypes.memmove(address, content, len(content))
    return Argument(address, span, (buffer, kept))
