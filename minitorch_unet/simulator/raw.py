"""The stand-in's RawModule and RawKernel: sources of CUDA C++ built for the processor and launched in the simulator.

CuPy checks no argument. This one refuses what would go wrong on the device: Python numbers (CuPy would pass 8 bytes),
NumPy arrays (by value), None, a grid or block that the device cannot have, more shared memory than is allowed.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from . import capture, memory, mode, stats
from .build import CompileError
from .cuda_api import CompileException, CUDADriverError, get_current_stream, properties
from .device_array import ndarray
from .module import Function, Module

STATIC_LIMIT = 48 << 10  # bytes of dynamic shared memory that a kernel gets without asking


class RawModule:
    """A source with kernels. `options` may hold -D, -I and what only NVRTC needs."""

    def __init__(
        self, code: str | None = None, *, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc", name_expressions: Any = None,
    ) -> None:  # fmt: skip
        if code is None or path is not None:
            raise TypeError("stand-in: RawModule needs `code`; compiled files cannot run on the processor")
        if name_expressions:
            raise TypeError("stand-in: RawModule: templates are no entry points; use extern \"C\" and -D options")
        self.code, self.options, self.backend = code, tuple(options), backend

    def compile(self, log_stream: Any = None) -> None:
        """Build it now rather than at the first launch."""
        if not capture.state.dry:
            _module(self.code, self.options, mode())

    def get_function(self, name: str) -> RawKernel:
        """The kernel called `name`."""
        if not capture.state.dry:
            _function(self.code, self.options, name, mode())
        return RawKernel(self.code, name, self.options)


class RawKernel:
    """One kernel: call it with grid, block and arguments (device arrays and NumPy scalars)."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        self.code, self.name, self.options, self.backend = code, name, tuple(options), backend
        self._shared_limit = STATIC_LIMIT

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """The most dynamic shared memory that a launch may ask for; more than 48 KiB must be set first."""
        return self._shared_limit

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        if not 0 <= size <= properties["sharedMemPerBlockOptin"]:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {self.name}: max_dynamic_shared_size_bytes {size}; the device allows "
                f"{properties['sharedMemPerBlockOptin']}"
            )
        self._shared_limit = size

    def compile(self, log_stream: Any = None) -> None:
        """Build it now rather than at the first launch."""
        _module(self.code, self.options, mode())

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0, stream: Any = None
    ) -> None:
        """Launch `grid` blocks of `block` threads."""
        if stream is not None and stream != get_current_stream():
            raise TypeError("stand-in: launch on a stream by `with stream:`")
        self._check(grid, block, shared_mem)
        values = tuple(self._argument(i, value) for i, value in enumerate(args))
        if capture.state.dry:
            return
        function = _function(self.code, self.options, self.name, mode())
        recording = capture.capturing(self.name)

        def launch() -> None:
            function.max_dynamic_shared_size_bytes = max(STATIC_LIMIT, shared_mem)
            reachable = memory.found_in(values) if mode() == "check" else ()
            function(grid, block, values, shared_mem=shared_mem, reachable=reachable)

        if recording is not None:
            recording.add(self.name, launch)
            return
        launch()
        stats.note("raw_launches", self.name)

    def _check(self, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
        for what, sizes, most in (("grid", grid, (2**31 - 1, 65535, 65535)), ("block", block, (1024, 1024, 64))):
            if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3:
                raise TypeError(f"{self.name}: {what} is {sizes!r}; it must be a tuple of one to three whole numbers")
            if any(not 1 <= n <= limit for n, limit in zip(sizes, most, strict=False)):
                raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {self.name}: {what} {sizes}; legal are 1 to {most}")
        if np.prod(block) > 1024:
            raise CUDADriverError(f"CUDA_ERROR_INVALID_VALUE: {self.name}: a block of {block} has over 1024 threads")
        if shared > self._shared_limit:
            raise CUDADriverError(
                f"CUDA_ERROR_INVALID_VALUE: {self.name}: {shared} bytes of shared memory, but "
                f"max_dynamic_shared_size_bytes is {self._shared_limit}"
            )

    def _argument(self, position: int, value: Any) -> Any:
        if isinstance(value, ndarray):
            return value._host
        if isinstance(value, np.ndarray) and value.dtype.kind == "V" and value.size == 1:
            return value.tobytes()  # a struct, passed by value
        if isinstance(value, np.generic):
            return value
        raise TypeError(
            f"{self.name}: argument {position} is a {type(value).__name__}; it must be a device array, a NumPy scalar "
            "of the parameter's type or a NumPy record"
        )


@functools.cache
def _module(code: str, options: tuple[str, ...], build_mode: str) -> Module:
    """The built source; the same for the same text, options and mode."""
    defines = tuple(option[2:] for option in options if option.startswith("-D"))
    include = tuple(Path(option[2:]) for option in options if option.startswith("-I"))
    try:
        return Module(code + "\n", mode=build_mode, defines=defines, include=include)
    except CompileError as error:
        raise CompileException(str(error)) from None


@functools.cache
def _function(code: str, options: tuple[str, ...], name: str, build_mode: str) -> Function:
    try:
        return _module(code, options, build_mode).get_function(name)
    except KeyError as error:
        raise CUDADriverError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {error.args[0]}") from None
