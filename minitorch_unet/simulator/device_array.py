"""An array in "device memory": what the stand-in gives for cupy.ndarray.

It knows what CuPy's array knows and the project uses, and refuses the rest: NumPy arrays as operands, implicit
conversion to NumPy, NumPy's own functions. Every operation goes through `run`, which counts it, imitates CuPy's
results (always new memory in C order, 0-d arrays instead of numbers) and records it while a stream is captured.

Where the stand-in is stricter than CuPy, so that slips show: NumPy functions called on its arrays are refused (CuPy
would carry them out), and an index out of range is an IndexError (CuPy would silently wrap it around).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import capture, stats
from .indices import index_of
from .memory import MemoryPointer, allocate, poison, shape_of

SCALARS = (bool, int, float, complex, np.generic)


class Flags:
    """The flags that CuPy has."""

    def __init__(self, array: ndarray) -> None:
        self.c_contiguous = array._host.flags.c_contiguous
        self.f_contiguous = array._host.flags.f_contiguous
        self.forc = self.c_contiguous or self.f_contiguous
        self.fnc = self.f_contiguous and not self.c_contiguous
        self.owndata = array.base is None


class ndarray:
    """See the module."""

    __slots__ = ("__weakref__", "_host", "base")
    __array_ufunc__ = None  # so `numpy_array + device_array` comes to __radd__ here, which refuses it
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, shape: Any, dtype: Any = float, order: str = "C") -> None:
        self._host = allocate(shape_of(shape), dtype, order)
        self.base: ndarray | None = None
        if not capture.state.dry:
            poison(self._host, capture.state.recording is not None)

    @classmethod
    def _of(cls, host: np.ndarray, base: ndarray | None = None) -> ndarray:
        array = cls.__new__(cls)
        array._host, array.base = host, base
        return array

    @classmethod
    def _like(cls, layout: np.ndarray) -> ndarray:
        """A new array laid out like a NumPy array, whose values do not matter."""
        array = cls._of(_memory_like(layout))
        if not capture.state.dry:
            poison(array._host, capture.state.recording is not None)
        return array

    # ------------------------------------------------------------- attributes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self._host.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        return self._host.strides

    @property
    def dtype(self) -> Any:
        """Type of the elements."""
        return self._host.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._host.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._host.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self._host.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._host.nbytes

    @property
    def flags(self) -> Flags:
        """How the elements lie in memory."""
        return Flags(self)

    @property
    def data(self) -> MemoryPointer:
        """Where the first element lies."""
        return MemoryPointer(self._host)

    @property
    def device(self) -> Any:
        """The device: there is one."""
        from .cuda_api import Device

        return Device(0)

    @property
    def T(self) -> ndarray:
        """Axes in reverse order."""
        return run("transpose", lambda a: a.T, self)

    # ------------------------------------------------------ refused conversions

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
            "explicitly."
        )

    def __array_function__(self, function: Any, *args: Any) -> Any:
        raise TypeError(f"stand-in: numpy.{function.__name__} on a device array; use the array's own module")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 12, 0  # "extension device": no other library may take the memory for a GPU's

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """A capsule with a copy in host memory, if one was asked for."""
        if dl_device != (1, 0) or copy is False:
            raise BufferError("stand-in: simulated device memory goes to other libraries as a copy on the CPU only")
        return self.get().__dlpack__()

    # --------------------------------------------------------- to and from host

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        """A copy in host memory."""
        capture.synchronised("get")
        capture.transferred("download", "get", self.nbytes)
        if out is not None:
            out[...] = self._host
            return out
        return np.array(self._host, order=order, copy=True)  # type: ignore[call-overload]

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copy from host memory."""
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"set: needs a NumPy array of shape {self.shape} and type {self.dtype}")
        capture.transferred("upload", "set", self.nbytes)
        self._host[...] = arr

    def item(self) -> Any:
        """The only element as a Python number."""
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self._value("item").item()

    def tolist(self) -> Any:
        """The elements as nested lists."""
        return self._value("tolist").tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        """The elements' bytes."""
        return self._value("tobytes").tobytes(order)

    def _value(self, name: str) -> np.ndarray:
        """The elements on the host: a transfer that waits for the device."""
        capture.synchronised(name)
        capture.transferred("download", name, self.nbytes)
        return self._host

    def __float__(self) -> float:
        return float(self._value("float"))

    def __int__(self) -> int:
        return int(self._value("int"))

    def __bool__(self) -> bool:
        return bool(self._value("bool"))

    def __index__(self) -> int:
        return self._value("index").__index__()

    def __repr__(self) -> str:
        return repr(self._value("repr"))

    def __str__(self) -> str:
        return str(self._value("str"))

    # ----------------------------------------------------------------- indexing

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[ndarray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> ndarray:
        key = index_of(index)
        return run("getitem", lambda a: a[key], self)

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(value, (ndarray, *SCALARS)):
            raise ValueError(f"stand-in: a {type(value).__name__} cannot be assigned to a part of a device array")
        key = index_of(index)
        run("setitem", lambda a, v: a.__setitem__(key, v), self, value, writes=self)


# ------------------------------------------------------------------- operations


def host(value: Any, name: str, given: list[ndarray]) -> Any:
    """`value` with device arrays replaced by their memory, and they put into `given`; NumPy arrays are refused."""
    if isinstance(value, ndarray):
        given.append(value)
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> in {name}")
    if isinstance(value, list | tuple):
        return type(value)(host(item, name, given) for item in value)
    return value


def run(
    name: str, function: Callable[..., Any], *args: Any, writes: ndarray | None = None, keep_order: bool = False,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """One operation of the array library: function(*args, **kwargs) on the arrays' memory.

    writes: the array that it changes in place, which is then the result. Otherwise the result is a view, if NumPy
    gives one, or new memory, in C order unless keep_order.
    """
    given: list[ndarray] = []
    values = [host(value, name, given) for value in args]
    named = {key: host(value, name, given) for key, value in kwargs.items()}
    recording = capture.capturing(name)

    def compute() -> Any:
        with np.errstate(all="ignore"):
            return function(*values, **named)

    if writes is not None:
        if recording is not None:
            recording.add(name, compute)
        elif not capture.state.dry:
            compute()
            if writes.size:
                stats.note("launches", name)
        return writes
    found = compute()
    if isinstance(found, tuple):
        raise NotImplementedError(f"stand-in: {name} gives several arrays")
    found = np.asarray(found)
    for array in given:
        if found is array._host:
            return array
        if np.may_share_memory(found, array._host):
            return ndarray._of(found, array if array.base is None else array.base)
    made = _memory_like(found) if keep_order else allocate(found.shape, found.dtype)
    if recording is not None:
        poison(made, capturing=True)
        recording.add(name, lambda: np.copyto(made, compute()))
    elif not capture.state.dry:
        made[...] = found
        if made.size:
            stats.note("launches", name)
    return ndarray._of(made)


def _memory_like(array: np.ndarray) -> np.ndarray:
    """New memory with the axes in the array's memory order."""
    order = sorted(range(array.ndim), key=lambda i: (-abs(array.strides[i]), i))
    laid_out = allocate(tuple(array.shape[i] for i in order), array.dtype)
    return laid_out.transpose([order.index(i) for i in range(array.ndim)])


def operand(value: Any) -> bool:
    """Whether the value may meet a device array in an operator; a NumPy array is refused with TypeError."""
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return isinstance(value, (ndarray, *SCALARS))
