"""Cases of the kernels that go once through maps: pointwise work, pooling, normalisation, loss, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_kernel_cases import Placed, Random, Results, case, flag, image, shape, values

from minitorch_unet.backend import Draws, named_dtype
from minitorch_unet.backend.reference import Kernels

FLOAT32 = 2.0**-23


def type_of(rng: Random) -> str:
    return str(rng.choice(["float32", "float16", "bfloat16"]))


# ------------------------------------------------------------------ pointwise


@case(absolute=FLOAT32)
def relu_bias_backward(rng: Random) -> tuple[Any, ...]:
    sizes, dtype = shape(rng), type_of(rng)
    owned = flag(rng)
    layout = str(rng.choice(["last", "cropped", "some channels"])) if owned else None
    return image(rng, *sizes, dtype=dtype, layout=layout), image(rng, *sizes, dtype=dtype), owned


@case(absolute=FLOAT32)
def channel_sums(rng: Random) -> tuple[Any, ...]:
    return (image(rng, *shape(rng)),)


def call_add_into(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    kernels.add_into(*arguments)
    return [arguments[0]]


@case(relative=FLOAT32, run=call_add_into)
def add_into(rng: Random) -> tuple[Any, ...]:
    sizes, dtype = shape(rng), type_of(rng)
    layout = str(rng.choice(["last", "cropped", "crop aligned", "some channels"]))
    return image(rng, *sizes, dtype=dtype, layout=layout), image(rng, *sizes, dtype=dtype)


@case()
def pad(rng: Random) -> tuple[Any, ...]:
    x = image(rng, *shape(rng))
    least = [-((size - 1) // 2) for size in x.values.shape[2:]]  # at least one row and one column remain
    widths = [int(rng.integers(max(-2, least[i // 2]), 4)) for i in range(4)]
    widths[int(rng.integers(4))] = 2
    return x, *widths, float(rng.choice([0, -1.5, -np.inf]))


@case()
def join(rng: Random) -> tuple[Any, ...]:
    n, c, h, w = shape(rng)
    dtype = type_of(rng)
    channels = [c, *(int(rng.choice([1, 4, 8, 13])) for _ in range(rng.integers(1, 3)))]
    return (tuple(image(rng, n, c, h, w, dtype=dtype) for c in channels),)


def anything(rng: Random, dtype: str) -> Placed:
    """A map mostly, or a vector or a matrix."""
    if rng.random() < 0.7:
        return image(rng, *shape(rng), dtype=dtype)
    return Placed(values(rng, *rng.integers(1, 40, rng.integers(1, 3)).tolist(), dtype=dtype), "first")


@case()
def relu(rng: Random) -> tuple[Any, ...]:
    return (anything(rng, type_of(rng)),)


def call_cast(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    x, dtype = arguments
    found = kernels.cast(x, x.dtype if x.dtype == np.float64 else dtype)
    assert x.dtype == np.float64 or found.dtype == dtype
    return [found]


@case(run=call_cast)
def cast(rng: Random) -> tuple[Any, ...]:
    given = type_of(rng)
    wanted = str(rng.choice(["float16", "bfloat16"])) if given == "float32" else "float32"
    return anything(rng, given), named_dtype(wanted)


# -------------------------------------------------------------------- pooling


def pooling(rng: Random) -> tuple[Placed, tuple[Any, ...]]:
    """A map with many ties, and (out_size, kernel, stride, padding, dilation): often 2x2 of stride 2."""
    n, c, h, w = shape(rng)
    x = image(rng, n, c, h + 3, w + 3)
    x = x._replace(values=np.round(x.values.astype(np.float32)).astype(x.values.dtype))
    h, w = h + 3, w + 3
    if rng.random() < 0.6:
        rest = rng.random() < 0.3  # rows and columns that no window reaches
        return x, ((h // 2 - rest, w // 2), (2, 2), (2, 2), (0, 0), (1, 1))
    kernel = tuple(rng.integers(1, 4, 2).tolist())
    stride, dilation = (tuple(rng.integers(1, 3, 2).tolist()) for _ in range(2))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    reach = [(h, w)[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1 for i in (0, 1)]
    out = tuple(max(1, r // s + 1) for r, s in zip(reach, stride, strict=True))
    return x, (out, kernel, stride, padding, dilation)


@case()
def max_pool2d(rng: Random) -> tuple[Any, ...]:
    x, how = pooling(rng)
    return x, *how


def winners(x: Placed, how: tuple[Any, ...]) -> Placed:
    return Placed(Kernels(np).max_pool2d(x.values.astype(np.float64), *how)[1])


@case(absolute=FLOAT32)
def max_pool2d_scatter(rng: Random) -> tuple[Any, ...]:
    x, how = pooling(rng)
    gy = image(rng, *x.values.shape[:2], *how[0], dtype=x.values.dtype.name)
    size = x.values.shape[2:]
    if rng.random() < 0.5 and how[1:] == ((2, 2), (2, 2), (0, 0), (1, 1)):
        size = (2 * how[0][0], 2 * how[0][1])
    return gy, winners(x, how), size, *how[1:]


@case()
def max_pool2d_gather(rng: Random) -> tuple[Any, ...]:
    x, how = pooling(rng)
    return x, winners(x, how), *how[1:]


# -------------------------------------------------------------- normalisation


@case(relative=1e-9, absolute=1e-12)
def channel_moments(rng: Random) -> tuple[Any, ...]:
    x = image(rng, *shape(rng))
    if rng.random() < 0.3:
        x = x._replace(values=(x.values.astype(np.float32) + np.float32(1000)).astype(x.values.dtype))
    return (x,)


@case(absolute=2 * FLOAT32)
def scale_shift(rng: Random) -> tuple[Any, ...]:
    x = image(rng, *shape(rng))
    vectors = (Placed(values(rng, x.values.shape[1], dtype="float32"), "first") for _ in range(3))
    return x, *vectors, flag(rng)


@case(absolute=4 * FLOAT32)
def batch_norm_backward(rng: Random) -> tuple[Any, ...]:
    sizes, dtype = shape(rng), type_of(rng)
    owned = flag(rng)
    gy = image(rng, *sizes, dtype=dtype, layout=str(rng.choice(["last", "cropped"])) if owned else None)
    y = image(rng, *sizes, dtype=dtype) if flag(rng) else None
    mean, inverse, scale = (Placed(rng.uniform(0.5, 2, sizes[1]), "first") for _ in range(3))
    return gy, image(rng, *sizes, dtype=dtype), y, mean, inverse, scale, flag(rng), owned


# ----------------------------------------------------------------------- loss


def pixels(rng: Random) -> tuple[Any, ...]:
    """scores, labels, weight, pixel_weight, ignore_index: of images mostly, or of other numbers of axes."""
    n, c = int(rng.integers(1, 4)), int(rng.choice([1, 2, 2, 3, 5, 21]))
    size = rng.integers(1, 20, rng.choice([0, 1, 2, 2, 2, 3])).tolist()
    layout = str(rng.choice(["last", "first", "cropped", "some channels"])) if len(size) == 2 else "last"
    scores = Placed(3 * values(rng, n, c, *size, dtype="float32"), layout)
    ignored = int(rng.choice([0, 255]))
    labels = rng.integers(0, c, (n, *size)).astype(rng.choice(["u1", "i8", "i4"]))
    labels[rng.random(labels.shape) < 0.1] = min(ignored, 255)
    weight = Placed(rng.uniform(0.1, 3, c).astype(np.float32), "first") if flag(rng) else None
    pixel_weight = Placed(rng.uniform(0, 3, labels.shape).astype(np.float32), "first") if flag(rng) else None
    return scores, Placed(labels, "first"), weight, pixel_weight, ignored


@case(relative=1e-6, absolute=1e-6)
def softmax_cross_entropy(rng: Random) -> tuple[Any, ...]:
    return pixels(rng)


@case(relative=4e-6, absolute=1e-6)
def softmax_cross_entropy_backward(rng: Random) -> tuple[Any, ...]:
    return *pixels(rng), float(rng.standard_normal())


@case(relative=2e-6, absolute=1e-6, run=lambda kernels, arguments: [kernels.cross_entropy(*arguments)[0]])
def cross_entropy(rng: Random) -> tuple[Any, ...]:
    scores, labels, *rest = pixels(rng)
    labels.values.flat[0] = scores.values.shape[1] - 1  # one pixel that counts at least
    rest[2] = 255
    return scores, labels, *rest, flag(rng), flag(rng)


def call_cross_entropy_backward(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    *given, gy = arguments
    loss, share, made = kernels.cross_entropy(*given)
    gy = kernels.xp.asarray(np.array(gy, loss.dtype))
    return [kernels.cross_entropy_backward(gy, *given[:5], share, made)]


@case(relative=4e-6, absolute=1e-6, run=call_cross_entropy_backward)
def cross_entropy_backward(rng: Random) -> tuple[Any, ...]:
    return *cross_entropy(rng)[:-1], True, float(rng.standard_normal())


# -------------------------------------------------------------------- dropout


@case(relative=2.0**-8)  # 1 / (1 - p) is rounded, too; test_cuda_dropout.py compares bits
def dropout(rng: Random) -> tuple[Any, ...]:
    words = rng.integers(0, 2**64, 6, dtype=np.uint64).tolist()
    words[2:] = [2**64 - 2, words[3], 0, 0] if flag(rng) else words[2:]
    p = float(rng.choice([0.1, 0.5, 0.75]))
    return anything(rng, type_of(rng)), p, Draws(tuple(words[:2]), tuple(words[2:]))
