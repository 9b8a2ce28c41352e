"""Images written from top to bottom, a strip at a time, for those that do not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minitorch_unet.errors import DataError
from minitorch_unet.files import atomic_write

STRIP_SUFFIXES = (".tif", ".tiff", ".npy")


def write_in_strips(
    paths: Sequence[Path], shape: tuple[int, int], dtype: Any, produce: Callable[[Callable[..., None]], None]
) -> None:
    """Write images (H, W) of the same shape and type to uncompressed TIFF or NPY files, all of them or none.

    `produce(write)` calls `write(*strips)` with one strip (rows, W) for each path, from top to bottom, until all H rows
    are there. A TIFF of 4 GiB or more becomes a BigTIFF. Raises ValueError for another suffix or missing rows,
    DataError where a file cannot be written and where a TIFF needs the extra `tiff`; what `produce` raises passes
    through.
    """
    for path in paths:
        if path.suffix.lower() not in STRIP_SUFFIXES:
            raise ValueError(f"write_in_strips: {path.name!r} must end in {', '.join(STRIP_SUFFIXES)}")
    done = 0

    def fill(streams: list[BinaryIO]) -> None:
        def write(*strips: np.ndarray) -> None:
            nonlocal done
            for stream, strip in zip(streams, strips, strict=True):
                stream.write(np.ascontiguousarray(strip, dtype=dtype).tobytes())
            done += strips[0].shape[0]

        produce(write)
        if done != shape[0]:
            raise ValueError(f"write_in_strips: {done} rows were written, {shape[0]} are expected")

    def nested(rest: Sequence[Path], streams: list[BinaryIO]) -> None:
        if not rest:
            fill(streams)
            return

        def content(stream: BinaryIO) -> None:
            _begin(stream, rest[0], shape, np.dtype(dtype))
            nested(rest[1:], [*streams, stream])

        atomic_write(rest[0], content)

    nested(paths, [])


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
