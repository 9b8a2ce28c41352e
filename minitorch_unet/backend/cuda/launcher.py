"""The one way to a CUDA kernel: compile its source once, check every argument, launch.

CuPy checks nothing: a Python float would travel as 8 bytes, an array of another type or with gaps as its bare pointer,
and the kernel would read rubbish. Here every argument is given by name and compared with the kernel's own declaration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...kernels import source_folder
from .sources import Parameter, directive, kernels_in, options, program, resolved, source

DTYPES = {
    "float": "float32", "double": "float64", "half": "float16", "bf16": "bfloat16", "bool": "bool",
    "int": "int32", "unsigned": "uint32", "unsigned int": "uint32", "long long": "int64",
    "unsigned long long": "uint64", "char": "int8", "signed char": "int8", "unsigned char": "uint8",
    "short": "int16", "unsigned short": "uint16",
}  # fmt: skip
TYPE_NAMES = {"float32": "float", "float16": "half", "bfloat16": "bf16", "float64": "double"}

LARGEST_GRID = (2**31 - 1, 65535, 65535)
LARGEST_BLOCK = (1024, 1024, 64)
THREADS = 1024
STATIC_SHARED = 48 << 10  # bytes a kernel may have without asking for more


class Strided(NamedTuple):
    """Marks an array with gaps as meant: the kernel is given its strides."""

    array: Any


class KernelLaunchError(RuntimeError):
    """A kernel that could not be compiled or started."""


class _Function(NamedTuple):
    """A compiled kernel with its parameters, types resolved."""

    raw: Any
    parameters: tuple[Parameter, ...]


class Launcher:
    """Compiles and launches kernels for one array library: CuPy, or the simulator's stand-in for it."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._modules: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}
        self._functions: dict[tuple[str, str, tuple[tuple[str, str], ...]], _Function] = {}

    def launch(
        self, file: str, kernel: str, grid: int | Sequence[int], block: int | Sequence[int],
        defines: Mapping[str, str] | None = None, shared: int = 0, align: int = 1, **arguments: Any,
    ) -> None:  # fmt: skip
        """Start `kernel` of kernels/cuda/`file` with `grid` blocks of `block` threads; returns at once.

        `defines` compile a variant of the source; `shared` bytes of dynamic shared memory; `align`: what the addresses
        of all arrays must be a multiple of. Arguments by their names in the kernel: arrays (or None: a null pointer)
        for pointers, numbers for the rest, bytes for a struct. With an empty grid nothing is launched.
        Raises TypeError (missing, unknown, of another type), ValueError (out of range, with gaps and not marked
        `Strided`, not aligned), KernelLaunchError (does not compile or start).
        """
        grid, block = _triple(grid), _triple(block)
        if 0 in grid:
            return
        function = self.function(file, kernel, defines or {})
        _check_sizes(kernel, grid, block)
        if len(arguments) != len(function.parameters):
            _complain_about_names(kernel, function.parameters, arguments)
        values = []
        for parameter in function.parameters:
            if parameter.name not in arguments:
                _complain_about_names(kernel, function.parameters, arguments)
            convert = self._pointer if parameter.pointer else _scalar
            values.append(convert(kernel, parameter, arguments[parameter.name], align))
        if shared > STATIC_SHARED:
            self._ask_for_shared_memory(kernel, function.raw, shared)
        try:
            function.raw(grid, block, tuple(values), shared_mem=shared)
        except self._launch_errors() as error:
            raise KernelLaunchError(f"{kernel}: launching {grid} blocks of {block} threads failed: {error}") from error

    def function(self, file: str, kernel: str, defines: Mapping[str, str]) -> _Function:
        """The compiled kernel; compiles its source (this variant of it) on first use."""
        variant = tuple(sorted(defines.items()))
        key = (file, kernel, variant)
        if key not in self._functions:
            known = kernels_in(file)
            if kernel not in known:
                raise KernelLaunchError(f"{file} has no kernel {kernel!r}; it has {', '.join(known)}")
            parameters = tuple(p._replace(type=resolved(p.type, defines)) for p in known[kernel])
            self._functions[key] = _Function(self._module(file, variant).get_function(kernel), parameters)
        return self._functions[key]

    def _module(self, file: str, variant: tuple[tuple[str, str], ...]) -> Any:
        if (file, variant) not in self._modules:
            architectures = directive(source(file), "architectures")
            # Instructions of one family only, as wgmma's sm_90a, must be asked for.
            family = [f"-arch={architectures}"] if architectures and " " not in architectures else []
            text = program(source_folder() / "cuda" / file, dict(variant))
            module = self.xp.RawModule(code=text, options=(*options(), *family))
            try:
                module.compile()
            except self._launch_errors() as error:
                raise KernelLaunchError(f"{file} ({dict(variant)}) does not compile: {error}") from error
            self._modules[file, variant] = module
        return self._modules[file, variant]

    def _pointer(self, kernel: str, parameter: Parameter, value: Any, align: int) -> Any:
        if value is None:
            return np.uintp(0)
        array = value.array if isinstance(value, Strided) else value
        where = f"{kernel}: argument {parameter.name}"
        if not isinstance(array, self.xp.ndarray):
            raise TypeError(f"{where} is a {type(array).__module__}.{type(array).__name__}; it must be a device array")
        expected = DTYPES.get(parameter.type)
        if array.dtype.name != expected:
            raise TypeError(f"{where} has dtype {array.dtype.name}; the kernel takes {expected} ({parameter.type}*)")
        if array is value and not is_dense(array):
            raise ValueError(
                f"{where} of shape {array.shape} has gaps in memory (strides {array.strides}); give a contiguous copy"
            )
        if align > 1 and array.size and array.data.ptr % align:
            offset = array.data.ptr % align
            raise ValueError(f"{where} starts {offset} bytes past a multiple of {align}, which its address must be")
        return array

    def _ask_for_shared_memory(self, kernel: str, raw: Any, shared: int) -> None:
        if raw.max_dynamic_shared_size_bytes >= shared:
            return
        limit = self.xp.cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"]
        if shared > limit:
            raise ValueError(f"{kernel}: needs {shared} bytes of shared memory a block; this device has {limit}")
        raw.max_dynamic_shared_size_bytes = shared

    def _launch_errors(self) -> tuple[type[BaseException], ...]:
        cuda = self.xp.cuda
        names = ((cuda.runtime, "CUDARuntimeError"), (cuda.driver, "CUDADriverError"),
                 (cuda.compiler, "CompileException"))  # fmt: skip
        return tuple(getattr(module, name) for module, name in names if hasattr(module, name))


def is_dense(array: Any) -> bool:
    """Whether the elements fill a stretch of memory without gaps or overlaps, in any order of the axes."""
    if array.flags.c_contiguous:
        return True
    size = array.itemsize
    for stride, length in sorted((s, n) for s, n in zip(array.strides, array.shape, strict=True) if n != 1):
        if stride != size:
            return False
        size *= length
    return True


def _triple(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, int) else tuple(size)
    x, y, z = (*map(int, sizes), 1, 1, 1)[:3]
    return x, y, z


def _check_sizes(kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int]) -> None:
    for what, sizes, largest in (("grid", grid, LARGEST_GRID), ("block", block, LARGEST_BLOCK)):
        if any(not 0 < n <= most for n, most in zip(sizes, largest, strict=True)):
            raise ValueError(f"{kernel}: {what} is {sizes}; legal are 1 to {largest}")
    if math.prod(block) > THREADS:
        raise ValueError(f"{kernel}: block {block} has {math.prod(block)} threads; at most {THREADS} are legal")


def _complain_about_names(kernel: str, parameters: Sequence[Parameter], arguments: Mapping[str, Any]) -> None:
    names = [parameter.name for parameter in parameters]
    missing = [name for name in names if name not in arguments]
    unknown = [name for name in arguments if name not in names]
    raise TypeError(f"{kernel}: arguments missing: {missing}, unknown: {unknown}; it takes {names}")


def _scalar(kernel: str, parameter: Parameter, value: Any, align: int) -> Any:
    where = f"{kernel}: argument {parameter.name}"
    if isinstance(value, bytes) != (parameter.type not in DTYPES):
        expected = "a number" if parameter.type in DTYPES else f"the bytes of a {parameter.type}"
        raise TypeError(f"{where} is a {type(value).__name__}; it must be {expected}")
    if isinstance(value, bytes):  # a struct; CuPy passes a NumPy array of one element by value
        return np.frombuffer(value, dtype=f"V{len(value)}")
    dtype = np.dtype(DTYPES[parameter.type])
    if not isinstance(value, bool | int | float | np.generic):
        raise TypeError(f"{where} is a {type(value).__name__}; it must be a number")
    if dtype.kind in "iu":
        if value != int(value):
            raise TypeError(f"{where} is {value!r}; it must be a whole number")
        limits = np.iinfo(dtype)
        if not limits.min <= int(value) <= limits.max:
            raise ValueError(f"{where} is {value}; {parameter.type} holds {limits.min} to {limits.max}")
        return dtype.type(int(value))
    return dtype.type(value)
