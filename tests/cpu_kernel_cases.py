"""Random calls of the methods that CpuKernels overrides, and buffers that notice writing beyond their ends.

The parity tests and the sanitizer run (tests/sanitize) make the same calls. Symbols: N batch, C input channels,
K filters, H W input rows columns, P Q output rows columns, R S kernel rows columns.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minitorch_unet.backend.cpu import CpuKernels
from minitorch_unet.backend.reference import Kernels

Pair = tuple[int, int]
Random = np.random.Generator

OVERRIDES = sorted(name for name, value in vars(CpuKernels).items() if callable(value) and not name.startswith("_"))
CONVOLUTIONS = [name for name in OVERRIDES if name.startswith("conv2d")]
IN_PLACE = {"sgd_update": (0, 2), "adam_update": (0, 2, 3)}  # the arguments that are results
LAYOUTS = 8


# ------------------------------------------------------------------ arguments


def image(rng: Random, *shape: int, layout: int | None = None) -> np.ndarray:
    """Normal (N, C, H, W) values, float32, in one of LAYOUTS memory layouts; what lies around a view is NaN."""
    n, c, h, w = shape
    values = rng.standard_normal(shape, dtype=np.float32)
    around = np.full((n, h + 3, w + 4, c + 5), np.nan, np.float32).transpose(0, 3, 1, 2)
    last = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    match rng.integers(LAYOUTS) if layout is None else layout:
        case 0:  # N, C, H, W in memory
            return values
        case 1:
            return np.asfortranarray(values)
        case 2:
            return values[:, :, ::-1, ::-1]
        case 3:  # one value for all pixels: strides of 0
            return np.broadcast_to(values[:, :, :1, :1], shape)
        case 4:  # read-only
            last.flags.writeable = False
            return last
        case 5:  # a crop
            view = around[:, :c, 1 : 1 + h, 2 : 2 + w]
        case 6:  # some of the channels
            view = around[:, 2 : 2 + c, :h, :w]
        case _:
            return last
    view[...] = values
    return view


def filters(rng: Random, *shape: int) -> np.ndarray:
    """Normal (K, C, R, S) values, with the taps first in memory, like parameters, or last."""
    values = rng.standard_normal(shape, dtype=np.float32)
    return values if rng.random() < 0.3 else np.ascontiguousarray(values.transpose(2, 3, 1, 0)).transpose(3, 2, 0, 1)


def vector(rng: Random, size: int) -> np.ndarray | None:
    """`size` normal values, without neighbours in memory now and then, or None."""
    choice = rng.random()
    if choice < 0.3:
        return None
    values = rng.standard_normal(2 * size, dtype=np.float32)
    return values[::2] if choice < 0.5 else values[:size]


class Geometry(NamedTuple):
    """The sizes of a convolution."""

    channels: int
    filters: int
    kernel: Pair
    size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @property
    def out_size(self) -> Pair:
        reach = [self.size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1 for i in (0, 1)]
        return reach[0] // self.stride[0] + 1, reach[1] // self.stride[1] + 1

    @property
    def how(self) -> tuple[Pair, Pair, Pair, int]:
        return self.stride, self.padding, self.dilation, self.groups


def geometry(rng: Random) -> Geometry:
    """Mostly 3x3 of stride 1 and padding 0 to 3; sizes from the smallest legal one on."""

    def pair(low: int, high: int) -> Pair:
        return int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))

    stride = dilation = (1, 1)
    groups = 1
    if rng.random() < 0.75:
        kernel = (3, 3)
        padding = (int(rng.integers(0, 4)),) * 2
    else:
        kernel, stride, dilation, padding = pair(1, 4), pair(1, 3), pair(1, 2), pair(0, 3)
        groups = int(rng.integers(1, 3))
    smallest = [max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) for i in (0, 1)]
    more = pair(0, 15)
    channels, count = pair(1, 40 // groups)
    size = smallest[0] + more[0], smallest[1] + more[1]
    return Geometry(channels * groups, count * groups, kernel, size, stride, padding, dilation, groups)


def sources(rng: Random, n: int, channels: int, size: Pair) -> Any:
    """An array, or a tuple of one to three whose channels follow one another."""
    if rng.random() < 0.5:
        return image(rng, n, channels, *size)
    edges = sorted({0, channels, *rng.integers(0, channels + 1, rng.integers(0, 3)).tolist()})
    return tuple(image(rng, n, last - first, *size) for first, last in pairwise(edges))


def conv2d(rng: Random, n: int) -> tuple[Any, ...]:
    g = geometry(rng)
    weight = filters(rng, g.filters, g.channels // g.groups, *g.kernel)
    relu = bool(rng.random() < 0.5)
    return sources(rng, n, g.channels, g.size), weight, vector(rng, g.filters), *g.how, relu


def conv2d_input_grad(rng: Random, n: int) -> tuple[Any, ...]:
    g = geometry(rng)
    if rng.random() < 0.3:  # an up-convolution
        kernel = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        size = int(rng.integers(1, 9)) * kernel[0], int(rng.integers(1, 9)) * kernel[1]
        g = Geometry(g.channels, g.filters, kernel, size, kernel, (0, 0), (1, 1), 1)
    weight = filters(rng, g.filters, g.channels // g.groups, *g.kernel)
    mask = image(rng, n, g.channels, *g.size) if rng.random() < 0.4 else None
    return image(rng, n, g.filters, *g.out_size), weight, g.size, *g.how, vector(rng, g.channels), mask


def conv2d_weight_grad(rng: Random, n: int) -> tuple[Any, ...]:
    g = geometry(rng)
    return sources(rng, n, g.channels, g.size), image(rng, n, g.filters, *g.out_size), g.kernel, *g.how


def shape(rng: Random, n: int) -> tuple[int, ...]:
    return n, int(rng.integers(1, 41)), int(rng.integers(1, 20)), int(rng.integers(1, 20))


def relu_bias_backward(rng: Random, n: int) -> tuple[Any, ...]:
    sizes = shape(rng, n)
    owned = bool(rng.random() < 0.5)
    return image(rng, *sizes, layout=int(rng.integers(5, LAYOUTS)) if owned else None), image(rng, *sizes), owned


def channel_sums(rng: Random, n: int) -> tuple[Any, ...]:
    return (image(rng, *shape(rng, n)),)


def pad(rng: Random, n: int) -> tuple[Any, ...]:
    x = image(rng, *shape(rng, n))
    # At least one row and one column remain.
    least = [-((size - 1) // 2) for size in x.shape[2:]]
    top, bottom = rng.integers(max(-2, least[0]), 4, 2).tolist()
    left, right = rng.integers(max(-2, least[1]), 4, 2).tolist()
    return x, top, bottom, left, right, float(rng.choice([0, 0, 0, -1.5]))


class Pooling(NamedTuple):
    """The sizes of a pool."""

    x: np.ndarray
    out_size: Pair
    how: tuple[Pair, Pair, Pair, Pair]  # kernel, stride, padding, dilation


def pooling(rng: Random, n: int) -> Pooling:
    """Mostly 2x2 of stride 2; values with many ties."""
    n, c, h, w = shape(rng, n)
    x = image(rng, n, c, h + 3, w + 3)
    if x.flags.writeable:
        np.round(x, out=x)
    if rng.random() < 0.7:
        return Pooling(x, (x.shape[2] // 2, x.shape[3] // 2), ((2, 2), (2, 2), (0, 0), (1, 1)))
    stride = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    out_size = (x.shape[2] + 2 - 3) // stride[0] + 1, (x.shape[3] + 2 - 3) // stride[1] + 1
    return Pooling(x, out_size, ((3, 3), stride, (1, 1), (1, 1)))


def max_pool2d(rng: Random, n: int) -> tuple[Any, ...]:
    pool = pooling(rng, n)
    return pool.x, pool.out_size, *pool.how


def max_pool2d_scatter(rng: Random, n: int) -> tuple[Any, ...]:
    pool = pooling(rng, n)
    y, winners = Kernels(np).max_pool2d(pool.x, pool.out_size, *pool.how)
    return image(rng, *y.shape), winners, pool.x.shape[2:], *pool.how


def channel_moments(rng: Random, n: int) -> tuple[Any, ...]:
    return channel_sums(rng, n)


def scale_shift(rng: Random, n: int) -> tuple[Any, ...]:
    x = image(rng, *shape(rng, n))
    return x, *(rng.standard_normal((3, 2 * x.shape[1]), dtype=np.float32)[:, ::2]), bool(rng.random() < 0.5)


def batch_norm_backward(rng: Random, n: int) -> tuple[Any, ...]:
    gy, y, owned = relu_bias_backward(rng, n)
    c = y.shape[1]
    inverse, scale = rng.uniform(0.5, 2, c), rng.standard_normal(c)
    relu, training = (rng.random(2) < 0.7).tolist()
    return gy, image(rng, *y.shape), y if relu else None, rng.standard_normal(c), inverse, scale, training, owned


def softmax_cross_entropy(rng: Random, n: int) -> tuple[Any, ...]:
    """Scores of images mostly, or of other numbers of axes; labels of all integer types, about a tenth ignored."""
    c = int(rng.choice([1, 2, 2, 3, 4, 5, 21]))
    scores = image(rng, n, c, int(rng.integers(1, 9)), int(rng.integers(1, 40)))
    if rng.random() < 0.3:
        axes = int(rng.integers(2, 6))
        scores = scores[..., None] if axes == 5 else scores[(..., *[0] * (4 - axes))]
    ignored = int(rng.choice([0, 255]))
    labels = rng.integers(0, c, (n, *scores.shape[2:])).astype(rng.choice(["u1", "i8", "i4", "u8"]))
    labels[rng.random(labels.shape) < 0.1] = ignored
    weight = rng.uniform(0.1, 3, c).astype(np.float32) if rng.random() < 0.5 else None
    pixels = rng.uniform(0, 3, labels.shape).astype(np.float32) if rng.random() < 0.5 else None
    return scores, labels, weight, pixels, ignored


def softmax_cross_entropy_backward(rng: Random, n: int) -> tuple[Any, ...]:
    return *softmax_cross_entropy(rng, n), float(rng.standard_normal())


def parameters(rng: Random, count: int) -> list[np.ndarray]:
    """`count` arrays of equal shape, mostly in one memory order, now and then large enough for threads."""
    if count and rng.random() < 0.2:
        return [rng.standard_normal(70_001, dtype=np.float32) for _ in range(count)]
    sizes = rng.integers(1, 6, rng.integers(1, 5))
    order = rng.permutation(len(sizes))
    arrays = [rng.standard_normal(sizes[order], dtype=np.float32).transpose(np.argsort(order)) for _ in range(count)]
    if rng.random() < 0.2:  # one of another layout
        arrays[1] = arrays[1].copy(order="F")
    return arrays


def sgd_update(rng: Random, n: int) -> tuple[Any, ...]:
    p, g, velocity = (a if n else a[:0] for a in parameters(rng, 3))
    momentum, dampening, decay = rng.choice([0, 0.3, 0.9], 3).tolist()
    nesterov, first = (rng.random(2) < 0.5).tolist()
    return p, g, velocity if rng.random() < 0.8 else None, first, 0.1, momentum, dampening, decay, nesterov


def adam_update(rng: Random, n: int) -> tuple[Any, ...]:
    p, g, mean, square = (a if n else a[:0] for a in parameters(rng, 4))
    decay, decoupled = float(rng.choice([0, 0.1])), bool(rng.random() < 0.5)
    return p, g, mean, abs(square), int(rng.integers(1, 50)), 0.1, 0.9, 0.99, 1e-3, decay, decoupled


CASES: dict[str, Callable[[Random, int], tuple[Any, ...]]] = {
    make.__name__: make
    for make in (
        conv2d, conv2d_input_grad, conv2d_weight_grad, relu_bias_backward, channel_sums, pad, max_pool2d,
        max_pool2d_scatter, channel_moments, scale_shift, batch_norm_backward, softmax_cross_entropy,
        softmax_cross_entropy_backward, sgd_update, adam_update,
    )
}  # fmt: skip


def draw(name: str, seed: int, n: int | None = None) -> tuple[Any, ...]:
    """Arguments for the method `name`: the same for the same seed; N is 1 to 3 if it is not given."""
    rng = np.random.default_rng(seed)
    return CASES[name](rng, int(rng.integers(1, 4)) if n is None else n)


# -------------------------------------------------------------------- results


def flat(values: Any) -> list[np.ndarray]:
    """The arrays in nested tuples and lists."""
    if isinstance(values, tuple | list):
        return [array for value in values for array in flat(value)]
    return [values] if isinstance(values, np.ndarray) else []


def converted(values: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The same arguments with `change` applied to every array of floats."""
    if isinstance(values, tuple):
        return tuple(converted(value, change) for value in values)
    return change(values) if isinstance(values, np.ndarray) and values.dtype.kind == "f" else values


def outcome(kernels: Kernels, name: str, arguments: tuple[Any, ...]) -> list[np.ndarray]:
    """The arrays that a call gives back, or the arguments that it changed."""
    result = getattr(kernels, name)(*arguments)
    return flat([arguments[i] for i in IN_PLACE[name]] if name in IN_PLACE else result)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def relative_error(name: str, seed: int, found: list[np.ndarray]) -> float:
    """The rms error of `found`, from the arguments of this seed, over the rms of what their magnitudes give.

    The truth is the reference in float64. Sums of magnitudes are the unit, because rounding errors grow with them
    and not with a sum that may cancel. The worst result counts.
    """
    arguments = draw(name, seed)
    truth = outcome(Kernels(np), name, converted(arguments, np.float64))
    unit = outcome(Kernels(np), name, converted(arguments, lambda a: abs(a).astype(np.float64)))
    assert [(a.shape, a.dtype.kind) for a in found] == [(a.shape, a.dtype.kind) for a in truth]
    worst = 0.0
    for mine, right, scale in zip(found, truth, unit, strict=True):
        error = rms(mine.astype(np.float64) - right)
        if right.dtype.kind != "f" or rms(scale) == 0:
            assert error == 0
        else:
            worst = max(worst, error / rms(scale)) if error == error else np.nan
    return worst


class Guards:
    """Buffers that begin as NaN, between two bands of memory that must stay as they are."""

    BAND = 256  # bytes, a multiple of the 64 to which scratch memory is aligned

    def __init__(self) -> None:
        self.buffers: list[np.ndarray] = []

    def empty(self, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + 2 * self.BAND + 64, 255, np.uint8)  # bytes of 255 are NaN in every float type
        raw = raw[-raw.ctypes.data % 64 :][: size + 2 * self.BAND]
        self.buffers.append(raw)
        return raw[self.BAND : self.BAND + size].view(dtype).reshape(shape)

    def scratch(self, purpose: str, size: int) -> np.ndarray:
        """In the place of backend.cpu.scratch."""
        return self.empty(size)

    def check(self) -> None:
        """Raise AssertionError if a band has changed, and forget all buffers."""
        for raw in self.buffers:
            assert (raw[: self.BAND] == 255).all()
            assert (raw[-self.BAND :] == 255).all()
        self.buffers.clear()


class GuardedKernels(CpuKernels):
    """CpuKernels that write their results between guards."""

    def __init__(self, guards: Guards) -> None:
        super().__init__()
        self.guards = guards

    def empty_channels_last(self, shape: tuple[int, ...], dtype: Any, zero: bool = False) -> np.ndarray:
        n, c, h, w = shape
        made = self.guards.empty((n, h, w, c), dtype)
        if zero:
            made[...] = 0
        return made.transpose(0, 3, 1, 2)
