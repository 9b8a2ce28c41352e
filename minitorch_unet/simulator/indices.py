"""Indices of the stand-in's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import capture


def index_of(index: Any) -> Any:
    """The index as NumPy takes it. Refuses what CuPy does; counts what costs it a transfer or a wait."""
    parts = list(index) if isinstance(index, tuple) else [index]
    masks = arrays = 0
    for i, part in enumerate(parts):
        if isinstance(part, list | np.ndarray):
            part = np.asarray(part) if len(part) else np.zeros(0, np.int32)
            capture.transferred("upload", "index from the host", part.nbytes)
            parts[i] = part
        elif hasattr(part, "_host"):  # a device array
            parts[i] = part = part._host
        else:
            continue
        if part.dtype.kind not in "biu":
            raise IndexError(f"arrays used as indices must be of integer or boolean type. (actual: {part.dtype.type})")
        arrays += 1
        masks += part.dtype.kind == "b"
    if masks:
        if arrays > 1:
            raise ValueError("currently, CuPy only supports slices that consist of one boolean array.")
        capture.synchronised("boolean index")
    elif not arrays and not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)  # a full index gives a 0-d view, not a number
    return tuple(parts)
