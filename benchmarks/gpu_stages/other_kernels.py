"""The kernels that go once through memory: time, and the bytes they must move, at the size of the first level's maps.

Only what must be read and written is counted, each array once a pass over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gpu_child import Item
from gpu_device import Array, Device, network_of

import minitorch_unet as mt
from minitorch_unet.backend import kernels_of, named_dtype
from minitorch_unet.backend.draws import Draws

from .ladder import launched

DRAWS = Draws((1, 2), (0, 0, 0, 0))
Work = tuple[Callable[[], Any], int]  # the call, and its bytes


def items(settings: dict[str, Any]) -> list[Item]:
    d = Device(settings)
    size, base, depth = network_of(settings)
    found: list[Item] = []
    for name in ("float32", "bfloat16"):
        found += [
            (f"{what}, {name}", lambda make=make, name=name: timed(d, lambda: make(d, size, base, named_dtype(name))))
            for what, make in MAPS.items()
            if (what, name) != ("cross_entropy", "bfloat16")  # losses are computed in float32
        ]
    updates = [(name, lambda name=name: timed(d, lambda: update(d, base, depth, name))) for name in ("SGD", "Adam")]
    return [*found, *updates]


def timed(d: Device, make: Callable[[], Work]) -> dict[str, Any]:
    """{"bytes", "kernels", timing}: as many sets of arrays as do not fit into the cache take turns."""
    works = [make()]
    works += [make() for _ in range(d.copies(works[0][1]) - 1)]
    with launched(kernels_of(d.xp)) as seen:
        works[0][0]()
    row = {"bytes": works[0][1], "kernels": seen, **d.seconds([call for call, _ in works], budget=0.1)}
    d.xp.get_default_memory_pool().free_all_blocks()
    return row


def maps(d: Device, size: int, c: int, dtype: Any, relu: bool = False) -> Array:
    """(1, C, size, size), channels-last in memory."""
    x = d.random((1, size, size, c))
    x = d.xp.maximum(x, 0, out=x) if relu else x
    return x.astype(dtype).transpose(0, 3, 1, 2)


def relu_bias_backward(d: Device, size: int, c: int, dtype: Any) -> Work:
    gy, y = maps(d, size, c, dtype), maps(d, size, c, dtype, relu=True)
    return lambda: kernels_of(d.xp).relu_bias_backward(gy, y), 3 * gy.nbytes


def channel_sums(d: Device, size: int, c: int, dtype: Any) -> Work:
    x = maps(d, size, c, dtype)
    return lambda: kernels_of(d.xp).channel_sums(x), x.nbytes


def join(d: Device, size: int, c: int, dtype: Any) -> Work:
    """The crop and the concatenation that the two-source convolutions save."""
    skip, up = maps(d, size, c, dtype)[:, :, 2:-2, 2:-2], maps(d, size - 4, c, dtype)
    return lambda: kernels_of(d.xp).join((skip, up)), 4 * up.nbytes


def pad(d: Device, size: int, c: int, dtype: Any) -> Work:
    x = maps(d, size, c, dtype)
    return lambda: kernels_of(d.xp).pad(x, 1, 1, 1, 1), 2 * x.nbytes


def dropout(d: Device, size: int, c: int, dtype: Any) -> Work:
    x = maps(d, size, c, dtype)
    return lambda: kernels_of(d.xp).dropout(x, 0.5, DRAWS), 2 * x.nbytes


def cast(d: Device, size: int, c: int, dtype: Any) -> Work:
    """To 16 bits, or from them to float32."""
    x = maps(d, size, c, dtype)
    other = named_dtype("bfloat16" if x.itemsize == 4 else "float32")
    return lambda: kernels_of(d.xp).cast(x, other), x.size * 6


def channel_moments(d: Device, size: int, c: int, dtype: Any) -> Work:
    x = maps(d, size, c, dtype)
    return lambda: kernels_of(d.xp).channel_moments(x), x.nbytes


def scale_shift(d: Device, size: int, c: int, dtype: Any) -> Work:
    x = maps(d, size, c, dtype)
    vectors = [d.random((c,)) for _ in range(3)]
    return lambda: kernels_of(d.xp).scale_shift(x, *vectors, relu=True), 2 * x.nbytes


def batch_norm_backward(d: Device, size: int, c: int, dtype: Any) -> Work:
    """Two passes over x, y and gy, and one result."""
    gy, x, y = maps(d, size, c, dtype), maps(d, size, c, dtype), maps(d, size, c, dtype, relu=True)
    mean, inverse, scale = (d.xp.asarray(np.full(c, value)) for value in (0.0, 1.0, 0.5))
    return lambda: kernels_of(d.xp).batch_norm_backward(gy, x, y, mean, inverse, scale, True), 7 * gy.nbytes


def cross_entropy(d: Device, size: int, c: int, dtype: Any) -> Work:
    """Loss and gradient of the scores; labels of 8 bytes."""
    scores = maps(d, size, 2, dtype)
    labels = d.xp.asarray(np.random.default_rng(0).integers(0, 2, (1, size, size)))
    work = lambda: kernels_of(d.xp).cross_entropy(scores, labels, None, None, -100, True, True)  # noqa: E731
    return work, 2 * scores.nbytes + labels.nbytes


MAPS = {
    "relu_bias_backward": relu_bias_backward, "channel_sums": channel_sums, "join": join, "pad": pad, "cast": cast,
    "dropout": dropout, "channel_moments": channel_moments, "scale_shift": scale_shift,
    "batch_norm_backward": batch_norm_backward, "cross_entropy": cross_entropy,
}  # fmt: skip


def update(d: Device, base: int, depth: int, name: str) -> Work:
    """One update of all parameters: each array read, all but the gradients written."""
    kernels = kernels_of(d.xp)
    shapes = [p.shape for p in mt.UNet(base=base, depth=depth).parameters()]
    columns = [[d.random(shape) for shape in shapes] for _ in range(3 if name == "SGD" else 4)]
    clock = kernels.new_clock(1e-4, 1)
    count = sum(array.size for array in columns[0])
    if name == "SGD":
        return lambda: kernels.sgd_update_all(*columns, clock, 0.99, 0.0, 0.0, False, None), 5 * 4 * count
    columns[3] = [d.xp.absolute(array) for array in columns[3]]
    how = (clock, (0.9, 0.999), 1e-8, 0.0, False, None)
    return lambda: kernels.adam_update_all(*columns, *how), 7 * 4 * count
