"""Kernels of one source, built for the processor: launched with NumPy arrays, and checked while they run."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import subprocess
import threading
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import source_folder
from . import traffic
from .arguments import Argument, Parameter, convert
from .build import Source, build, read_source
from .errors import KernelError, Place, locate, with_places
from .settings import seed

LARGEST_GRID = (2**31 - 1, 65535, 65535)
LARGEST_BLOCK = (1024, 1024, 64)
THREADS = 1024
SHARED, MOST_SHARED = 48 << 10, 227 << 10  # bytes of dynamic shared memory: without asking, and at most
COUNTS = ("launches", "switches", "barriers", "collectives")
HOPPER_COUNTS = ("bulk_loads", "bulk_load_bytes", "bulk_stores", "bulk_store_bytes", "wgmmas")

# One launch at a time: all libraries use the same stacks, and static variables as shared memory.
_LAUNCHING = threading.Lock()


_MODULES: list[weakref.ref[Module]] = []


def loaded() -> list[Module]:
    """All modules of this process, in the order in which they were made."""
    return [module for reference in _MODULES if (module := reference()) is not None]


class _Parameter(ctypes.Structure):
    """`Parameter` in launch.h."""

    _fields_ = (
        ("kind", ctypes.c_char), ("size", ctypes.c_int), ("type", ctypes.c_char_p), ("type_size", ctypes.c_int),
        ("is_const", ctypes.c_bool),
    )  # fmt: skip


class Module:
    """The kernels of a .cu source.

    source: a path, or the text itself (it has line breaks).
    mode: "fast", "check" (every access to memory is checked) or "count" (accesses are counted, see `stats`).
    defines: "NAME=VALUE" or "NAME".
    include: folders for `#include "..."`, beside the source's own and that of the package's kernels.
    seed: not 0 for threads and blocks that run in a random order; None: as `settings.seed` says.

    Raises CompilerMissing, CompileError, and ValueError for an unknown mode.
    """

    def __init__(
        self, source: str | os.PathLike[str], mode: str = "fast", defines: Sequence[str] = (),
        include: Sequence[str | os.PathLike[str]] = (), seed: int | None = None,
    ) -> None:  # fmt: skip
        self.mode, self.seed = mode, seed
        self.source: Source = read_source(source, include)
        self.path = build(self.source, mode, tuple(defines))
        self.library = _load(self.path)
        self.base = self.library.cusim_base()
        self.traffic: list[traffic.Row] = []
        _MODULES.append(weakref.ref(self))

    def get_function(self, name: str) -> Function:
        """The kernel called `name`; raises KeyError if there is none, or one without C linkage."""
        kernel = self.library.cusim_find(name.encode())
        if not kernel:
            raise KeyError(f"{Path(self.source.name).name} has no kernel {name!r}")
        if not hasattr(self.library, name):
            raise KeyError(f'kernel {name!r} must be declared extern "C", or a GPU\'s driver would not find it')
        return Function(self, name, kernel)

    def stats(self) -> dict[str, int]:
        """What the launches since the last call did: launches, switches of threads, barriers, warp collectives.

        In mode "count" also the sums of `traffic`, which is then that of the same launches, and what Hopper's engines
        did: boxes that the copy engine moved, the bytes of memory in them (what lies outside of a map is none), and
        products of warpgroups. Neither is an access by a thread, so `traffic` has none of it.
        """
        numbers = (ctypes.c_uint64 * len(COUNTS + HOPPER_COUNTS))()
        self.library.cusim_counts(numbers)
        self.traffic = traffic.read(self.library, self.path, self.base, source_folder() / "simulator")
        found = dict(zip(COUNTS + HOPPER_COUNTS, numbers, strict=True))
        if self.mode != "count":
            return {name: found[name] for name in COUNTS}
        return found | traffic.sums(self.traffic)

    def error(self, kernel: str) -> KernelError:
        """What ended the last launch."""
        library, own = self.library, source_folder() / "simulator"
        where = (ctypes.c_uint * 6)()
        library.cusim_failure_where(where)
        text = with_places(library.cusim_failure_text().decode(errors="replace"), self.path, self.base, own)
        pc = library.cusim_failure_pc()
        chain = locate(self.path, self.base, [pc], own)[0] if pc else []
        callers = ", ".join(str(place) for place in chain[1:])
        text += f" (called from {callers})" if callers else ""
        place = self._found(chain[0]) if chain else None
        kind = library.cusim_failure_kind().decode()
        return KernelError(kernel, kind, text, tuple(where[:3]), tuple(where[3:]), place, self.source.text)

    def _found(self, place: Place) -> Place:
        """With the path of a file that a #line directive named without its folder, and with the text of the line."""
        path = next((f / place.file for f in self.source.folders if (f / place.file).is_file()), None)
        _, directive, text = self.source.text.rpartition(f'#line 1 "{place.file}"\n')
        if path and not directive:
            text = path.read_text(encoding="utf-8")
        lines = text.splitlines()
        code = lines[place.line - 1].strip() if place.line <= len(lines) else ""
        return Place(str(path or place.file), place.line, code)


class Function:
    """A kernel: call it with grid, block and arguments.

    max_dynamic_shared_size_bytes must be raised before a launch asks for more than 48 KiB, as on the GPU.
    """

    def __init__(self, module: Module, name: str, kernel: int) -> None:
        self.module, self.name, self.kernel = module, name, kernel
        library = module.library
        described = library.cusim_parameters(kernel)
        names = library.cusim_parameter_names(kernel).decode().split(",")
        self.parameters = [
            Parameter.of(names[i], described[i].kind.decode(), described[i].size, described[i].type.decode(),
                         described[i].type_size, described[i].is_const)
            for i in range(library.cusim_parameter_count(kernel))
        ]  # fmt: skip
        self.max_threads = library.cusim_max_threads(kernel) or THREADS
        self.max_dynamic_shared_size_bytes = SHARED

    def __call__(
        self, grid: int | Sequence[int], block: int | Sequence[int], args: Sequence[Any], shared_mem: int = 0,
        reachable: Iterable[np.ndarray] = (),
    ) -> None:  # fmt: skip
        """Run the kernel to its end.

        args: for a pointer an array or np.uintp(0) (null), for a number a NumPy scalar of its type, for a struct its
        bytes. reachable: arrays that the kernel finds by addresses inside other arguments. Raises TypeError and
        ValueError for arguments that do not fit, and KernelError for a mistake of the kernel.
        """
        sizes = self._sizes("grid", grid, LARGEST_GRID), self._sizes("block", block, LARGEST_BLOCK)
        threads = math.prod(sizes[1])
        if threads > self.max_threads:
            legal = f"at most {self.max_threads} are legal"
            raise ValueError(f"{self.name}: block {sizes[1]} has {threads} threads; {legal}")
        if not 0 <= shared_mem <= min(self.max_dynamic_shared_size_bytes, MOST_SHARED):
            raise ValueError(
                f"{self.name}: shared_mem is {shared_mem}; max_dynamic_shared_size_bytes allows "
                f"{self.max_dynamic_shared_size_bytes}, the hardware {MOST_SHARED}"
            )
        if len(args) != len(self.parameters):
            names = ", ".join(parameter.name for parameter in self.parameters)
            raise TypeError(f"{self.name}: takes {len(self.parameters)} arguments ({names}), got {len(args)}")
        arguments = [convert(self.name, p, value) for p, value in zip(self.parameters, args, strict=True)]
        pointers = (ctypes.c_void_p * (len(arguments) + 1))(*(a.address for a in arguments))
        module, library = self.module, self.module.library
        with _LAUNCHING:
            if module.mode == "check":
                self._tell_regions(arguments, reachable)
            numbers = [(ctypes.c_uint * 3)(*size) for size in sizes]
            order = seed() if module.seed is None else module.seed
            if library.cusim_launch(self.kernel, *numbers, shared_mem, pointers, order):
                raise module.error(self.name)

    def _sizes(self, what: str, given: int | Sequence[int], most: tuple[int, int, int]) -> tuple[int, ...]:
        sizes = tuple(map(int, (given,) if isinstance(given, int | np.integer) else given))
        if not 1 <= len(sizes) <= 3 or any(not 1 <= n <= limit for n, limit in zip(sizes, most, strict=False)):
            raise ValueError(f"{self.name}: {what} is {sizes}; legal are 1 to {most}")
        return (*sizes, 1, 1)[:3]

    def _tell_regions(self, arguments: list[Argument], reachable: Iterable[np.ndarray]) -> None:
        """Say which memory the kernel may touch; what several arrays share is one region under all their names."""
        library = self.module.library
        library.cusim_clear_regions()
        spans = [a.span for a in arguments if a.span]
        spans += [(*np.lib.array_utils.byte_bounds(a), "reachable memory", a.itemsize) for a in reachable]
        for begin, end, name, item in _merged(spans):
            library.cusim_add_region(begin, end - begin, name.encode(), item)


def _merged(spans: Iterable[tuple[int, int, str, int]]) -> list[tuple[int, int, str, int]]:
    merged: list[tuple[int, int, str, int]] = []
    for begin, end, name, item in sorted(spans, key=lambda span: span[:2]):
        if merged and begin < merged[-1][1]:
            last = merged[-1]
            merged[-1] = (last[0], max(end, last[1]), f"{last[2]} and {name}", math.gcd(item, last[3]))
        else:
            merged.append((begin, end, name, item))
    return merged


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    for name, result, arguments in (
        ("find", pointer, [text]),
        ("parameter_count", ctypes.c_int, [pointer]),
        ("parameters", ctypes.POINTER(_Parameter), [pointer]),
        ("parameter_names", text, [pointer]),
        ("max_threads", ctypes.c_int, [pointer]),
        ("stack_bytes", size, []),
        ("set_stacks", None, [pointer]),
        ("base", pointer, []),
        ("counts", None, [pointer]),
        ("failure_kind", text, []),
        ("failure_text", text, []),
        ("failure_pc", pointer, []),
        ("failure_where", None, [pointer]),
        ("launch", ctypes.c_int, [pointer, pointer, pointer, size, pointer, ctypes.c_uint64]),
        ("clear_regions", None, []),
        ("add_region", None, [pointer, size, text, ctypes.c_int]),
        ("add_shared_array", None, [pointer, size, text, text]),
        ("add_variable", None, [pointer, size]),
        ("count_rows", size, [pointer, size]),
    ):
        function = getattr(library, f"cusim_{name}")
        function.restype, function.argtypes = result, arguments
    library.cusim_set_stacks(_stacks(library.cusim_stack_bytes()))
    base = library.cusim_base()
    for offset, length, name, function in variables(path):
        if function:
            library.cusim_add_shared_array(base + offset, length, name.encode(), function.encode())
        elif name != "cusim_shared_window":
            library.cusim_add_variable(base + offset, length)
    return library


def variables(library: Path) -> list[tuple[int, int, str, str]]:
    """(offset, bytes, name, function) of a library's variables; function "" for those that are not in shared memory.

    Arrays in shared memory have become static local variables, of which CUDA knows no others.
    """
    rows = [line.split() for line in _output(["nm", "-S", "--defined-only", str(library)]).splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[2] in "bBdDvVu"]
    names = _output(["c++filt", *(row[3] for row in rows)]).splitlines()
    found = []
    for (offset, length, _, mangled), name in zip(rows, names, strict=True):
        function, _, short = name.rpartition("::")
        local = mangled.startswith("_ZZ") and not function.startswith(("cusim::", "primitives::", "std::"))
        found.append((int(offset, 16), int(length, 16), short, function if local else ""))
    return found


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache
def _stacks(size: int) -> int:
    """The stacks of the simulated threads, shared by all libraries: address space, of which little is ever touched."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    _KEPT.append(memory)
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


_KEPT: list[mmap.mmap] = []
