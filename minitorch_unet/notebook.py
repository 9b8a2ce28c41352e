"""How Tensors and modules show themselves in a notebook: small HTML, whatever they hold. C channels, H W rows columns.

Only a sample of a large Tensor is looked at, and of one on a GPU only that sample is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .backend import is_floating, to_numpy
from .pages import escape, grey8, png_uri
from .shades import SIGNED, signed8

_SIDE, _PLANES, _SAMPLE, _VALUES = 96, 4, 4096, 12
_ROWS = 60  # of a module's table, at most
_CELL = 'style="padding:1px 10px 1px 0;text-align:left;border:0"'
_NAME = _CELL[:-1] + ';white-space:nowrap"'
_NUMBER = 'style="padding:1px 10px 1px 0;text-align:right;border:0;font-variant-numeric:tabular-nums"'


def tensor_html(tensor: Any) -> str:
    """Shape, type, device and history of a Tensor, the range of its values, and a picture of what has two axes."""
    values = _sample(tensor.data)
    facts = [("shape", tensor.shape), ("dtype", tensor.dtype), ("device", tensor.device)]
    if tensor.node is not None:
        facts.append(("computed by", tensor.node.op.name))
    elif tensor.requires_grad:
        facts.append(("requires_grad", "True" + ("" if tensor.grad is None else ", .grad is there")))
    facts += _range(values, tensor.size)
    text = ", ".join(f"{name} <b>{escape(value)}</b>" for name, value in facts)
    return f'<div style="font:13px/1.5 monospace">{type(tensor).__name__}: {text}{_picture(tensor.data, values)}</div>'


def _sample(data: Any) -> np.ndarray:
    """At most about _SAMPLE values, evenly spread over the axes, in host memory."""
    if data.size <= _SAMPLE:
        return to_numpy(data)
    left, steps = _SAMPLE, []
    for axis, size in enumerate(data.shape):
        wanted = max(1, round(left ** (1 / (data.ndim - axis))))
        steps.append(max(1, -(-size // wanted)))
        left = max(1, left // -(-size // steps[-1]))
    return to_numpy(data[tuple(slice(None, None, step) for step in steps)])


def _is_number(dtype: Any) -> bool:
    return is_floating(dtype) or dtype.kind in "iub"


def _range(values: np.ndarray, size: int) -> list[tuple[str, object]]:
    of = f" (of a sample of {values.size:,} from {size:,} values)" if values.size < size else ""
    if values.size == 1:
        return [("value", values.item())]
    if not values.size or not _is_number(values.dtype):
        return []
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    found = f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else "none finite"
    missing = numbers.size - finite.size
    return [("values", found + (f", {missing} of them not finite" if missing else "") + of)]


def _picture(data: Any, values: np.ndarray) -> str:
    """The last two axes as up to _PLANES pictures, or the values themselves where they are few."""
    if data.size <= _VALUES:
        return f"<br>{escape(np.array2string(values, precision=4, separator=', '))}" if values.size > 1 else ""
    if data.ndim < 2 or not _is_number(data.dtype) or min(data.shape[-2:]) < 2:
        return ""
    rows, columns = data.shape[-2:]
    step = max(1, -(-max(rows, columns) // _SIDE))
    first = data[(0,) * (data.ndim - 3)] if data.ndim > 3 else data.reshape(-1, rows, columns)
    planes = to_numpy(first[:_PLANES, ::step, ::step]).astype(np.float64)
    planes = np.where(np.isfinite(planes), planes, 0)
    colour = data.ndim in (3, 4) and data.shape[-3] == 3 and planes.min() >= 0 and planes.max() <= 1
    shown = [np.moveaxis(np.rint(255 * planes).astype(np.uint8), 0, -1)] if colour else list(_shades(planes))
    count = 1 if colour else len(first)
    zoom = max(1, _SIDE // max(planes.shape[1:]))
    size = f"width:{zoom * planes.shape[2]}px;height:{zoom * planes.shape[1]}px"
    images = "".join(
        f'<img src="{png_uri(picture)}" alt="" style="{size};image-rendering:pixelated;margin:4px 4px 0 0">'
        for picture in shown
    )
    more = f"{count - len(shown)} more planes; " if count > len(shown) else ""
    key = "in colour" if colour else "blue below 0, orange above" if planes.min() < 0 else "black 0, white the largest"
    every = f"; one row and column in {step}" if step > 1 else ""
    return f'<br>{images}<br><span style="opacity:0.7">{more}{key}{every}</span>'


def _shades(planes: np.ndarray) -> np.ndarray:
    """Grey from 0 up, or with negative values blue - white - orange, the same length either way; one scale for all."""
    top = float(np.abs(planes).max()) or 1.0
    if planes.min() >= 0:
        return grey8(planes, 0.0, top)
    return SIGNED[signed8(planes, top)]


def module_html(module: Any) -> str:
    """The tree of a module as a table: name, kind, shapes of its own parameters, number of trained values."""
    rows = list(_rows(module, type(module).__name__, module.describe(), 0))
    body = "".join(
        f"<tr><td {_NAME}>{'&emsp;' * depth}{escape(name)}</td><td {_CELL}>{escape(kind)}</td>"
        f"<td {_CELL}>{escape(shapes)}</td><td {_NUMBER}>{count:,}</td></tr>"
        for depth, name, kind, shapes, count in rows[:_ROWS]
    )
    if len(rows) > _ROWS:
        body += f'<tr><td {_CELL} colspan="4">and {len(rows) - _ROWS} more modules</td></tr>'
    head = "".join(f"<th {_CELL}>{text}</th>" for text in ("module", "what it is", "its own tensors", "parameters"))
    return f'<table style="font:13px/1.5 monospace;border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def _rows(module: Any, name: str, kind: str, depth: int) -> Iterator[tuple[int, str, str, str, int]]:
    own = [f"{n} {tuple(t.shape)}" for n, t in vars(module).items() if hasattr(t, "requires_grad")]
    yield depth, name, kind, ", ".join(own), module.parameter_count()
    for child_name, child in module.named_children():
        yield from _rows(child, child_name, child.describe(), depth + 1)
