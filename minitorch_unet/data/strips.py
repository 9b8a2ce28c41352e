"""Images written from top to bottom, a strip at a time, for those that do not fit into memory."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minitorch_unet.errors import DataError
from minitorch_unet.files import atomic_write

STRIP_SUFFIXES = (".tif", ".tiff", ".npy")


def write_in_strips(
    paths: Sequence[Path],
    shape: tuple[int, int],
    dtype: Any,
    produce: Callable[[Callable[..., None], int], None],
    origin: str = "",
) -> None:
    """Write images (H, W) of the same shape and type to uncompressed TIFF or NPY files, all of them or none.

    `produce(write, done)` calls `write(*strips)` with one strip (rows, W) for each path, from row `done` to the bottom.
    A TIFF of 4 GiB or more becomes a BigTIFF.

    Until all rows are there they stand in `.NAME.unfinished`, beside a journal of how many there are. An interrupt or a
    kill leaves both, and a call with the same paths, shape, type and `origin` (what the pixels are made from) goes on
    at row `done`; any other begins anew at 0, and any other exception removes them.

    Raises ValueError for another suffix or missing rows, DataError where a file cannot be written and where a TIFF
    needs the extra `tiff`; what `produce` raises passes through.
    """
    for path in paths:
        if path.suffix.lower() not in STRIP_SUFFIXES:
            raise ValueError(f"write_in_strips: {path.name!r} must end in {', '.join(STRIP_SUFFIXES)}")
    parts = [unfinished(path) for path in paths]
    journal = parts[0].with_name(parts[0].name + ".json")
    what = [origin, [path.name for path in paths], list(shape), np.dtype(dtype).str]
    try:
        with contextlib.ExitStack() as stack:
            streams, starts, done = _opened(stack, parts, paths, shape, np.dtype(dtype), _journal(journal, what))

            def write(*strips: np.ndarray) -> None:
                nonlocal done
                for stream, strip in zip(streams, strips, strict=True):
                    stream.write(np.ascontiguousarray(strip, dtype=dtype).tobytes())
                    stream.flush()
                    os.fsync(stream.fileno())
                done += strips[0].shape[0]
                atomic_write(journal, json.dumps({"what": what, "starts": starts, "rows": done}).encode())

            if done < shape[0]:  # else only the renaming is left
                produce(write, done)
            if done != shape[0]:
                raise ValueError(f"write_in_strips: {done} rows were written, {shape[0]} are expected")
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
        journal.unlink()
    except Exception as error:
        for path in (*parts, journal):
            path.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DataError):
            raise DataError(f"cannot write {paths[0]}: {error.strerror or type(error).__name__}") from error
        raise


def unfinished(path: Path) -> Path:
    """Where the rows of `path` stand until all are there."""
    return path.with_name(f".{path.name}.unfinished")


def _journal(journal: Path, what: list[Any]) -> tuple[list[int], int]:
    """From the journal of an interrupted call for the same: where each file's pixels begin, and rows written; or 0."""
    try:
        found = json.loads(journal.read_bytes())
        return (found["starts"], found["rows"]) if found["what"] == what else ([], 0)
    except (OSError, ValueError, TypeError, KeyError):
        return [], 0


def _opened(
    stack: contextlib.ExitStack,
    parts: Sequence[Path],
    paths: Sequence[Path],
    shape: tuple[int, int],
    dtype: np.dtype,
    before: tuple[list[int], int],
) -> tuple[list[BinaryIO], list[int], int]:
    """The unfinished files, open behind the rows they have; where their pixels begin; and how many rows there are."""
    starts, rows = before
    size = rows * shape[1] * dtype.itemsize
    if rows and all(p.is_file() and p.stat().st_size >= at + size for p, at in zip(parts, starts, strict=True)):
        streams: list[BinaryIO] = [stack.enter_context(part.open("r+b")) for part in parts]
        for stream, start in zip(streams, starts, strict=True):
            stream.truncate(start + size)
            stream.seek(0, os.SEEK_END)
        return streams, starts, rows
    streams = [stack.enter_context(part.open("w+b")) for part in parts]
    for stream, path in zip(streams, paths, strict=True):
        _begin(stream, path, shape, dtype)
    return streams, [stream.tell() for stream in streams], 0


def _begin(stream: BinaryIO, path: Path, shape: tuple[int, int], dtype: np.dtype) -> None:
    """Write all that precedes the pixels."""
    if path.suffix.lower() == ".npy":
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        return
    try:
        import tifffile
    except ImportError:
        raise DataError(f"{path}: writing a TIFF in strips needs the extra `tiff`; install it, or write NPY") from None
    rows = max(1, (1 << 18) // (shape[1] * dtype.itemsize))
    offset, _ = tifffile.imwrite(
        stream, None, shape=shape, dtype=dtype, photometric="minisblack", rowsperstrip=rows, metadata=None,
        returnoffset=True,
    ) or (0, 0)  # fmt: skip
    stream.seek(offset)
