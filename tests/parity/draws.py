"""Random calls of the public functions, written once and made by either library.

A call names a function that both libraries have under the same name, and its arguments as NumPy arrays and plain
values; `compare_torch.py` makes it twice. Small whole numbers and halves are drawn where ties and kinks matter, and
about one call in ten is meant to be refused. Not drawn, because the engine is stricter on purpose: losses whose
targets would have to be broadcast, class probabilities as targets, and means over no pixel at all (PyTorch: nan).
Nor group_norm with a bias but no weight, on which PyTorch 2.13 stumbles ("tensor does not have a device"), or with
single values to normalise in each of several images, where the zeros that PyTorch returns are rounding noise.

Symbols: N batch, C channels, K filters, H W rows columns, R S kernel rows columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Random = np.random.Generator
Shape = tuple[int, ...]


class Fixed(NamedTuple):
    """An array of numbers that is passed as a tensor but asks for no gradient."""

    array: np.ndarray


@dataclass
class Call:
    """`function(*args, **kwargs)`; floating-point arrays among the arguments ask for gradients unless `Fixed`."""

    function: str
    args: list[Any]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [_brief(value) for value in self.args]
        parts += [f"{name}={_brief(value)}" for name, value in self.kwargs.items()]
        return f"{self.function}({', '.join(parts)})"


def _brief(value: Any) -> str:
    if isinstance(value, Fixed | np.ndarray):
        array = value.array if isinstance(value, Fixed) else value
        return f"{array.dtype}{list(array.shape)}"
    if isinstance(value, list):
        return f"[{', '.join(map(_brief, value))}]"
    return repr(value)


# ------------------------------------------------------------------------------------------------ small draws


def chance(rng: Random, probability: float) -> bool:
    return bool(rng.random() < probability)


def pick(rng: Random, *options: Any) -> Any:
    return options[rng.integers(len(options))]


def whole(rng: Random, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(rng.integers(low, high + 1))


def one_or_two(rng: Random, low: int, high: int) -> Any:
    """One number for both axes or a pair; small numbers are drawn more often."""
    first, second = (min(whole(rng, low, high), whole(rng, low, high)) for _ in range(2))
    return first if chance(rng, 0.4) else (first, second)


def shape_of(rng: Random, least: int, most: int, largest: int = 5) -> Shape:
    return tuple(whole(rng, 1, largest) for _ in range(whole(rng, least, most)))


def normal(rng: Random, *shape: int) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape))


def stepped(rng: Random, *shape: int) -> np.ndarray:
    """Halves from -2 to 2: zeros, equal values and the edges of kinks come up often."""
    return np.asarray(rng.integers(-4, 5, shape) / 2.0)


def either(rng: Random, *shape: int) -> np.ndarray:
    return pick(rng, normal, stepped)(rng, *shape)


def images(rng: Random, c: int, smallest: int = 3, largest: int = 11) -> np.ndarray:
    """(N, C, H, W), sometimes of small numbers with ties."""
    return either(rng, whole(rng, 1, 3), c, whole(rng, smallest, largest), whole(rng, smallest, largest))


def maybe(rng: Random, array: np.ndarray) -> np.ndarray | None:
    return array if chance(rng, 0.7) else None


def some(rng: Random, **options: Any) -> dict[str, Any]:
    """Each option with probability 0.7; the others keep their defaults."""
    return {name: value for name, value in options.items() if chance(rng, 0.7)}


# ------------------------------------------------------------------------- convolution, pooling, resizing, borders


def conv2d(rng: Random) -> Call:
    groups = pick(rng, 1, 1, 1, 2, 3)
    per_group, k = whole(rng, 1, 3), groups * whole(rng, 1, 3)
    surplus = chance(rng, 0.04)  # one channel more or one filter more than the groups allow: to be refused
    x = images(rng, per_group * groups + surplus)
    weight = either(rng, k, per_group, whole(rng, 1, 4), whole(rng, 1, 4))
    stride, padding = one_or_two(rng, 1, 3), pick(rng, one_or_two(rng, 0, 3), one_or_two(rng, 0, 3), "same", "valid")
    if padding == "same" and chance(rng, 0.8):
        stride = 1
    options = some(rng, stride=stride, dilation=one_or_two(rng, 1, 3)) | {"padding": padding, "groups": groups}
    return Call("conv2d", [x, weight, maybe(rng, normal(rng, k))], options)


def conv_transpose2d(rng: Random) -> Call:
    groups = pick(rng, 1, 1, 1, 2, 3)
    k, per_group = groups * whole(rng, 1, 3), whole(rng, 1, 3)
    x = images(rng, k + chance(rng, 0.04), 1, 7)
    weight = either(rng, k, per_group, whole(rng, 1, 4), whole(rng, 1, 4))
    options = some(
        rng,
        stride=one_or_two(rng, 1, 3),
        padding=one_or_two(rng, 0, 2),
        output_padding=one_or_two(rng, 0, 2),
        dilation=one_or_two(rng, 1, 3),
    )
    bias = maybe(rng, normal(rng, per_group * groups + chance(rng, 0.04)))
    return Call("conv_transpose2d", [x, weight, bias], {**options, "groups": groups})


def max_pool2d(rng: Random) -> Call:
    """Images at least as large as the dilation: where a window holds no pixel, PyTorch 2.13 writes out of bounds."""
    options = some(
        rng, stride=one_or_two(rng, 1, 4), padding=one_or_two(rng, 0, 2), dilation=one_or_two(rng, 1, 3), ceil_mode=True
    )
    return Call("max_pool2d", [images(rng, 2), one_or_two(rng, 1, 4)], {**options, "return_indices": True})


def avg_pool2d(rng: Random) -> Call:
    options = some(
        rng,
        stride=one_or_two(rng, 1, 4),
        padding=one_or_two(rng, 0, 2),
        ceil_mode=True,
        count_include_pad=chance(rng, 0.4),
        divisor_override=pick(rng, None, None, 3, 7, -2, 0),
    )
    return Call("avg_pool2d", [images(rng, 2), one_or_two(rng, 1, 4)], options)


def interpolate(rng: Random) -> Call:
    factor = pick(rng, 0.3, 0.5, 1.7, 2, 2.0, 3, 2.6, (2, 1.5), (0.7, 3.0))
    target: dict[str, Any] = pick(rng, {"size": one_or_two(rng, 1, 17)}, {"scale_factor": factor})
    if chance(rng, 0.04):
        target = pick(rng, {}, {"size": 4, "scale_factor": 2}, {"size": 0}, {"scale_factor": 0.01})
    mode: dict[str, Any] = {"mode": "nearest"}
    if chance(rng, 0.6):
        mode = {"mode": "bilinear", "align_corners": chance(rng, 0.5)}
    return Call("interpolate", [images(rng, 2, 1, 9)], target | mode)


def pad(rng: Random) -> Call:
    mode = pick(rng, "constant", "reflect", "replicate")
    if mode == "constant":
        widths = tuple(whole(rng, -3, 4) for _ in range(pick(rng, 2, 4)))
        return Call("pad", [images(rng, 2, 1, 7), widths], {"mode": mode, "value": pick(rng, 0.0, 1.5, -2.0)})
    return Call("pad", [images(rng, 2, 1, 7), tuple(whole(rng, 0, 4) for _ in range(4))], {"mode": mode})


# ----------------------------------------------------------------------------------------- normalisation, losses


def channelled(rng: Random, c: int, least: int) -> np.ndarray:
    """(N, C, ...) with `least` to 3 axes after the channels; now and then a single value in each channel."""
    if chance(rng, 0.08):
        return normal(rng, 1, c, *([1] * whole(rng, least, 2)))
    return either(rng, whole(rng, 1, 3), c, *shape_of(rng, least, 3))


def batch_norm(rng: Random) -> Call:
    c, training = whole(rng, 1, 4), chance(rng, 0.5)
    x = channelled(rng, c, 0)
    size = c + chance(rng, 0.05)
    running: list[Any] = [Fixed(normal(rng, size)), Fixed(rng.random(c) + 0.1)]
    if chance(rng, 0.3 if training else 0.05):
        running = [None, None]
    affine = {"weight": maybe(rng, normal(rng, c)), "bias": maybe(rng, normal(rng, c))}
    options = some(rng, momentum=pick(rng, 0.1, 0.3, 1.0), eps=pick(rng, 1e-5, 1e-2))
    return Call("batch_norm", [x, *running], {**affine, "training": training, **options})


def group_norm(rng: Random) -> Call:
    groups = whole(rng, 1, 3)
    c = groups * whole(rng, 1, 3) + (groups > 1 and chance(rng, 0.1))
    weight, bias = pick(rng, (None, None), (normal(rng, c), None), (normal(rng, c), normal(rng, c)))
    x = channelled(rng, c, 0)
    if len(x) > 1 and x[0].size == groups:
        x = normal(rng, *x.shape, 2)
    options = some(rng, eps=pick(rng, 1e-5, 1e-2))
    return Call("group_norm", [x, groups], {"weight": weight, "bias": bias, **options})


def instance_norm(rng: Random) -> Call:
    c = whole(rng, 1, 4)
    affine = some(rng, weight=maybe(rng, normal(rng, c)), bias=maybe(rng, normal(rng, c)), eps=pick(rng, 1e-5, 1e-2))
    return Call("instance_norm", [channelled(rng, c, 1)], affine)


def layer_norm(rng: Random) -> Call:
    x = either(rng, *shape_of(rng, 1, 4))
    shape = x.shape[whole(rng, 0, x.ndim - 1) :]
    if chance(rng, 0.08):
        shape = (*shape[:-1], shape[-1] + 1)
    affine = some(rng, weight=maybe(rng, normal(rng, *shape)), bias=maybe(rng, normal(rng, *shape)))
    return Call("layer_norm", [x, shape], {**affine, **some(rng, eps=pick(rng, 1e-5, 1e-2))})


def scores_and_labels(rng: Random) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (N, C, ...), labels (N, ...) of which some are ignored or, rarely, too large, and the ignored label."""
    c, space = whole(rng, 1, 5), shape_of(rng, 0, 3, 4)
    n, ignored = whole(rng, 1, 3), pick(rng, -100, 255, 0, -1)
    labels = rng.integers(0, c, (n, *space))
    labels[rng.random(labels.shape) < pick(rng, 0.0, 0.3)] = ignored
    if ignored == 0 and c > 1:
        labels.flat[0] = 1  # at least one that counts
    elif ignored == 0:
        ignored = -100
    else:
        labels.flat[0] = 0
    if chance(rng, 0.06):
        labels.flat[-1] = pick(rng, c, -2)
    scores = either(rng, n, c, *space) * pick(rng, 1, 1, 30, 1000)
    return scores, labels, ignored


def cross_entropy(rng: Random) -> Call:
    scores, labels, ignored = scores_and_labels(rng)
    options = some(rng, reduction=pick(rng, "mean", "sum", "none"), label_smoothing=pick(rng, 0.0, 0.1, 0.5, 1.0))
    weight = Fixed(rng.random(scores.shape[1] + chance(rng, 0.04)) + 0.1) if chance(rng, 0.5) else None
    return Call("cross_entropy", [scores, labels], {"weight": weight, "ignore_index": ignored, **options})


def nll_loss(rng: Random) -> Call:
    scores, labels, ignored = scores_and_labels(rng)
    weight = Fixed(rng.random(scores.shape[1]) + 0.1) if chance(rng, 0.5) else None
    options = some(rng, reduction=pick(rng, "mean", "sum", "none"))
    return Call("nll_loss", [scores, labels], {"weight": weight, "ignore_index": ignored, **options})


def binary_cross_entropy_with_logits(rng: Random) -> Call:
    shape = shape_of(rng, 1, 4)
    x = np.asarray(either(rng, *shape) * pick(rng, 1, 1, 20, 1000))
    target = pick(rng, rng.random(shape), rng.integers(0, 2, shape) * 1.0)
    weights = {
        name: Fixed(np.asarray(rng.random(shape[whole(rng, 0, len(shape)) :]))) for name in ("weight", "pos_weight")
    }
    options = some(rng, reduction=pick(rng, "mean", "sum", "none"), **weights)
    return Call("binary_cross_entropy_with_logits", [x, Fixed(target)], options)


def mse_loss(rng: Random) -> Call:
    shape = shape_of(rng, 0, 4)
    reduction = pick(rng, "mean", "sum", "none", "mean", "average")
    return Call("mse_loss", [either(rng, *shape), either(rng, *shape)], {"reduction": reduction})


# --------------------------------------------------------------------------- elementwise, reductions, matrices


def unary(rng: Random) -> Call:
    name = pick(rng, "neg", "exp", "log", "sqrt", "abs", "relu", "sigmoid", "tanh", "silu")
    return Call(name, [np.asarray(either(rng, *shape_of(rng, 0, 3)) * pick(rng, 1, 1, 40))])


def unary_with_options(rng: Random) -> Call:
    x = np.asarray(either(rng, *shape_of(rng, 0, 3)) * pick(rng, 1, 1, 10))
    name = pick(rng, "leaky_relu", "softplus", "gelu", "clamp")
    if name == "leaky_relu":
        return Call(name, [x], {"negative_slope": pick(rng, 0.01, 0.3, 0.0, -0.5)})
    if name == "softplus":
        return Call(name, [x], some(rng, beta=pick(rng, 0.5, 1, 3), threshold=pick(rng, 20, 2, 1.5)))
    if name == "gelu":
        return Call(name, [x], {"approximate": pick(rng, "none", "none", "tanh", "tanh", "sigmoid")})
    return Call(name, [x], some(rng, min=pick(rng, -1.0, 0.5, -1), max=pick(rng, 1.0, 0.5, -1.5)))


def binary(rng: Random) -> Call:
    """Two tensors whose shapes broadcast (rarely do not), or a tensor and a number."""
    name = pick(rng, "add", "sub", "mul", "div", "maximum", "minimum", "pow")
    shape = shape_of(rng, 0, 3, 4)
    other = tuple(
        1 if chance(rng, 0.3) else n + (n > 1 and chance(rng, 0.03)) for n in shape[whole(rng, 0, len(shape)) :]
    )
    a, b = either(rng, *shape), either(rng, *other)
    if name == "pow" and chance(rng, 0.4):
        return Call(name, pick(rng, [a, pick(rng, 0, 1, 2, 3, -1, 0.5, -2.0)], [pick(rng, 0.0, 2, 0.5), b]))
    if name not in ("maximum", "minimum") and chance(rng, 0.2):
        return Call(name, [a, pick(rng, 2, -0.5, 3.0)])
    return Call(name, pick(rng, [a, b], [b, a]))


def where(rng: Random) -> Call:
    shape = shape_of(rng, 0, 3)
    condition = np.asarray(rng.random(shape[whole(rng, 0, len(shape)) :]) < 0.5)
    return Call("where", [condition, normal(rng, *shape), normal(rng, *shape[len(shape) // 2 :])])


def _dim(rng: Random, ndim: int) -> int:
    """An axis, negative or not; rarely one that does not exist."""
    return ndim if chance(rng, 0.04) else whole(rng, -ndim, ndim - 1)


def reduction(rng: Random) -> Call:
    name = pick(rng, "sum", "mean", "var", "std", "amax", "amin", "max", "min", "argmax", "logsumexp")
    x = either(rng, *shape_of(rng, 1, 4))
    if name in ("var", "std"):
        x = normal(rng, *(n + 2 for n in x.shape))  # more values than the correction, and not all equal
    if name == "argmax":
        return Call(name, [x], some(rng, dim=_dim(rng, x.ndim)))
    options: dict[str, Any] = {"correction": pick(rng, 0, 1)} if name in ("var", "std") else {}
    if name != "logsumexp" and chance(rng, 0.25):
        return Call(name, [x], options)
    dim: Any = _dim(rng, x.ndim)
    if name not in ("max", "min") and chance(rng, 0.4):
        dim = tuple(int(i) for i in rng.permutation(x.ndim)[: whole(rng, 1, x.ndim)])
    return Call(name, [x], {"dim": dim, "keepdim": chance(rng, 0.5), **options})


def softmax(rng: Random) -> Call:
    x = either(rng, *shape_of(rng, 1, 4)) * pick(rng, 1, 1, 1e3) + pick(rng, 0, 0, 1e6)
    if x.size > 1 and chance(rng, 0.2):
        x[rng.random(x.shape) < 0.2] = -np.inf
        x[..., -1] = 0.0  # along every axis but the last a row may still be all -inf: nan on both sides
    return Call(pick(rng, "softmax", "log_softmax"), [x, _dim(rng, x.ndim)])


def matrices(rng: Random) -> Call:
    k, m, n = (whole(rng, 1, 4) for _ in range(3))
    lead, wrong = shape_of(rng, 0, 2, 3), chance(rng, 0.06)
    if chance(rng, 0.4):
        return Call("linear", [normal(rng, *lead, k + wrong), normal(rng, m, k), maybe(rng, normal(rng, m))])
    left = normal(rng, k) if chance(rng, 0.2) else normal(rng, *lead, m, k)
    right = normal(rng, k + wrong) if chance(rng, 0.2) else normal(rng, *lead[whole(rng, 0, len(lead)) :], k + wrong, n)
    return Call("matmul", [left, right])


def selection(rng: Random) -> Call:
    x = normal(rng, *shape_of(rng, 1, 4, 4))
    dim = _dim(rng, x.ndim)
    name = pick(rng, "flip", "roll", "cat", "stack", "index_select", "gather")
    if name == "flip":
        return Call(name, [x, (dim,)])
    if name == "roll":
        return Call(name, [x, whole(rng, -5, 5)], some(rng, dims=dim))
    if name in ("cat", "stack"):
        second = normal(rng, *(n + chance(rng, 0.05) for n in x.shape))
        return Call(name, [[x, second, x[...]], dim])
    size = x.shape[min(dim, x.ndim - 1)]
    index = rng.integers(0, size + chance(rng, 0.05), x.shape if name == "gather" else whole(rng, 1, 5))
    return Call(name, [x, dim, index])


# How many of every 100 calls each drawing function makes. The first group is what the engine's main job stands on.
CORE: dict[Callable[[Random], Call], int] = {
    conv2d: 12, conv_transpose2d: 10, max_pool2d: 9, avg_pool2d: 7, batch_norm: 5, group_norm: 4, instance_norm: 4,
    layer_norm: 4, cross_entropy: 11, nll_loss: 4, binary_cross_entropy_with_logits: 5, mse_loss: 3,
}  # fmt: skip
OTHERS: dict[Callable[[Random], Call], int] = {
    interpolate: 6, pad: 5, unary: 8, unary_with_options: 6, binary: 9, where: 2, reduction: 12, softmax: 5,
    matrices: 5, selection: 6,
}  # fmt: skip
