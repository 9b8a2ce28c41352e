"""What the gradient check is run on, first part: every public function.

A case's name begins with what it covers: `functional.pow`; after a colon follows the variant. Left out are
`functional.manual_seed`, which computes nothing, and `functional.argmax`, whose result is an index without derivative.
Shapes are small on purpose: a check calls the function twice for every input value.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import functional as F
from .backend import to_device
from .tensor import Tensor

Function = Callable[..., Any]
Draw = Callable[[np.random.Generator], np.ndarray]
Built = tuple[Function, list[Tensor]]


@dataclass(frozen=True)
class Case:
    """One entry: `build(rng)` makes the function and its float64 inputs; a `smooth` one is checked twice over.

    smooth is False where the inputs lie on kinks or ties on purpose. mode is that of `testing.gradcheck`. host_only: it
    uses a type that no GPU has. The function brings constants of its own to where its inputs are.
    """

    name: str
    build: Callable[[np.random.Generator], Built]
    smooth: bool = True
    mode: str = "full"
    host_only: bool = False

    @property
    def covers(self) -> str:
        """The function, operation or module that the case is about: its name without the variant."""
        return self.name.partition(":")[0]

    def make(self, device: str = "cpu") -> Built:
        """The function and its inputs, drawn from a seed of the case's own: the same every time."""
        function, inputs = self.build(np.random.default_rng(zlib.crc32(self.name.encode())))
        return function, [t.to(device) for t in inputs]


def beside(x: Tensor, constant: Any) -> Any:
    """A NumPy array or Tensor on x's device."""
    return constant.to(x.device) if isinstance(constant, Tensor) else to_device(constant, x.device)


def normal(*shape: int) -> Draw:
    """Standard normal values."""
    return lambda rng: rng.standard_normal(shape)


def positive(*shape: int) -> Draw:
    """Values from 0.5 to 2."""
    return lambda rng: rng.uniform(0.5, 2, shape)


def given(values: Any) -> Draw:
    """These values."""
    return lambda rng: np.array(values, dtype=np.float64)


def case(name: str, function: Function, *draws: Draw, smooth: bool = True, host_only: bool = False) -> Case:
    """A case whose inputs are drawn independently and all require gradients."""

    def build(rng: np.random.Generator) -> Built:
        return function, [Tensor(draw(rng), requires_grad=True) for draw in draws]

    return Case(name, build, smooth, host_only=host_only)


def function_cases() -> list[Case]:
    """The cases of all public functions, in the order of the table."""
    groups = (_elementwise, _reductions, _shapes, _convolutions, _norms, _losses)
    return [c for group in groups for c in group()]


def _elementwise() -> Iterable[Case]:
    a = normal(2, 3)
    for name in ("add", "sub", "mul", "maximum", "minimum"):
        yield case(f"functional.{name}", _named(name), a, a)
        yield case(f"functional.{name}: broadcast", _named(name), normal(2, 1, 3), normal(2, 1))
    yield case("functional.div", _named("div"), a, positive(2, 3))
    yield case("functional.div: broadcast", _named("div"), normal(3, 2), positive(2, 1, 1))
    for name in ("neg", "exp", "abs", "relu", "sigmoid", "tanh", "softplus", "silu", "gelu", "leaky_relu"):
        yield case(f"functional.{name}", _named(name), normal(3, 4))
    for name in ("log", "sqrt"):
        yield case(f"functional.{name}", _named(name), positive(3, 4))
    yield case("functional.relu: at 0", _named("relu"), given([-1, 0, 1, 2, -2, 3]), smooth=False)
    yield case("functional.abs: at 0", _named("abs"), given([-1, 0, 1, 2, -2, 3]), smooth=False)
    yield case("functional.gelu: tanh", lambda x: F.gelu(x, "tanh"), normal(3, 4))
    yield case("functional.softplus: beta, threshold", lambda x: F.softplus(x, 2.0, 1.0), normal(3, 4))
    yield case("functional.leaky_relu: slope", lambda x: F.leaky_relu(x, 0.3), normal(3, 4))
    yield case("functional.clamp", lambda x: F.clamp(x, -0.5, 0.5), normal(3, 4))
    yield case("functional.clamp: min", lambda x: F.clamp(x, min=0.1), normal(3, 4))
    yield case("functional.clamp: max", lambda x: F.clamp(x, max=0.1), normal(3, 4))
    yield case("functional.clamp: on the edge", lambda x: F.clamp(x, 0, 9), given([-1, 0, 1, 2, 3, 4]), smooth=False)
    yield case("functional.maximum: equal everywhere", lambda x: F.maximum(x, x), normal(2, 3))
    yield case("functional.minimum: equal everywhere", lambda x: F.minimum(x, x * 1), normal(2, 3))
    yield case("functional.pow: number", lambda x: F.pow(x, 3), normal(2, 3))
    yield case("functional.pow: square root", lambda x: F.pow(x, -0.5), positive(2, 3))
    yield case("functional.pow: 0", lambda x: F.pow(x, 0) * x, normal(2, 3))
    yield case("functional.pow: Tensors", _named("pow"), positive(2, 3), normal(3))
    yield case("functional.pow: exponent 0 in a Tensor", _named("pow"), positive(2, 3), given([0, 1, 0]))
    yield case("functional.pow: number to a Tensor", lambda x: F.pow(2.5, x), normal(2, 3))
    mask = np.array([[True, False, True], [False, False, True]])
    yield case("functional.where", lambda x, y: F.where(beside(x, mask), x, y), a, normal(2, 1))
    yield case("functional.where: number", lambda x: F.where(beside(x, mask), x, 0.5), a)


def _named(name: str) -> Function:
    """The public function of that name, looked up at each call."""
    return lambda *tensors: getattr(F, name)(*tensors)


def _reductions() -> Iterable[Case]:
    a = normal(2, 3, 2)
    for name in ("sum", "mean", "var", "std", "amax", "amin", "logsumexp"):
        yield case(f"functional.{name}", _named(name), a)
        yield case(f"functional.{name}: dim", lambda x, n=name: getattr(F, n)(x, dim=(0, -1)), a)
        yield case(f"functional.{name}: keepdim", lambda x, n=name: getattr(F, n)(x, dim=1, keepdim=True), a)
    for name in ("max", "min"):
        yield case(f"functional.{name}", _named(name), a)
        yield case(f"functional.{name}: dim", lambda x, n=name: getattr(F, n)(x, 1).values, a)
        yield case(f"functional.{name}: keepdim", lambda x, n=name: getattr(F, n)(x, -1, True).values, a)
    for name in ("softmax", "log_softmax"):
        yield case(f"functional.{name}", lambda x, n=name: getattr(F, n)(x, 1), a)
        yield case(f"functional.{name}: last", lambda x, n=name: getattr(F, n)(x, -1), a)
    yield case("functional.var: correction 0", lambda x: F.var(x, (0, 2), correction=0), a)
    yield case("functional.amax: all equal", lambda x: F.amax(F.stack([x, x, x * 1]), 0), normal(2, 3))
    yield case("functional.amin: all equal", lambda x: F.amin(F.stack([x, x]), 0), normal(2, 3))
    yield case("functional.max: all equal", lambda x: F.max(F.stack([x, x]), 0).values, normal(2, 3))
    yield case(
        "functional.amax: tie", lambda x: F.amax(x, 1), given([[1, 2, 2, 0, -1, 1.5, 1, 0, 0, -2]]), smooth=False
    )


def _shapes() -> Iterable[Case]:
    a = normal(2, 3, 2)
    image = normal(1, 2, 3, 4)
    yield case("functional.reshape", lambda x: F.reshape(x, (3, -1)), a)
    yield case("functional.permute", lambda x: F.permute(x, (2, 0, 1)), a)
    yield case("functional.transpose", lambda x: F.transpose(x, 0, -1), a)
    yield case("functional.flip", lambda x: F.flip(x, (0, 2)), a)
    yield case("functional.roll", lambda x: F.roll(x, (1, -2), (0, 1)), a)
    yield case("functional.roll: flat", lambda x: F.roll(x, 5), a)
    yield case("functional.broadcast_to", lambda x: F.broadcast_to(x, (2, 2, 3)), normal(2, 1, 3))
    yield case("functional.broadcast_to: new axes", lambda x: F.broadcast_to(x, (2, 2, 3)), normal(1))
    yield case("functional.cat", lambda *t: F.cat(t, 1), a, normal(2, 1, 2), normal(2, 2, 2))
    yield case("functional.stack", lambda *t: F.stack(t, -1), a, a)
    yield case("functional.index_select", lambda x: F.index_select(x, 1, [2, 0, 2, 2]), a)
    index = np.array([[[1, 0], [0, 0], [1, 1]], [[0, 0], [1, 0], [1, 1]], [[0, 1], [0, 0], [0, 1]]])
    yield case("functional.gather", lambda x: F.gather(x, 0, index), a)
    yield case("functional.pad", lambda x: F.pad(x, (1, 2, 0, 1), value=0.5), image)
    yield case("functional.pad: crop", lambda x: F.pad(x, (-1, 2, 1, -1)), image)
    yield case("functional.pad: reflect", lambda x: F.pad(x, (3, 2, 1, 2), "reflect"), image)
    yield case("functional.pad: replicate", lambda x: F.pad(x, (3, 2, 0, 2), "replicate"), image)
    yield case("functional.crop", lambda x: F.crop(x, (2, 2)), image)
    yield case("functional.matmul", _named("matmul"), normal(2, 3), normal(3, 2))
    yield case("functional.matmul: broadcast", _named("matmul"), normal(2, 1, 2, 3), normal(2, 3, 2))
    yield case("functional.matmul: vector, matrix", _named("matmul"), normal(3), normal(2, 3, 2))
    yield case("functional.matmul: matrix, vector", _named("matmul"), normal(2, 3), normal(3))
    yield case("functional.matmul: vectors", _named("matmul"), normal(3), normal(3))
    yield case("functional.linear", _named("linear"), normal(2, 2, 3), normal(4, 3), normal(4))


def _convolutions() -> Iterable[Case]:
    x, w, b = normal(1, 2, 5, 4), normal(2, 2, 3, 2), normal(2)
    for variant, how in {
        "": {},
        ": stride": {"stride": (2, 1)},
        ": padding": {"padding": (1, 2)},
        ": dilation": {"dilation": (1, 2)},
        ": same": {"padding": "same"},
        ": stride, padding, dilation": {"stride": (2, 3), "padding": (2, 1), "dilation": (2, 1)},
    }.items():
        yield case(f"functional.conv2d{variant}", lambda x, w, b, how=how: F.conv2d(x, w, b, **how), x, w, b)
    yield case(
        "functional.conv2d: groups", lambda x, w: F.conv2d(x, w, groups=2), normal(1, 4, 3, 3), normal(2, 2, 2, 2)
    )
    yield case("functional.conv2d_relu", lambda x, w, b: F.conv2d_relu(x, w, b, padding=1), x, w, b)
    yield case(
        "functional.conv2d_relu: two sources",
        lambda x, y, w, b: F.conv2d_relu((F.crop(x, (3, 4)), y), w, b),
        normal(1, 2, 5, 6), normal(1, 1, 3, 4), normal(2, 3, 2, 3), normal(2),
    )  # fmt: skip
    for recompute in (False, True):
        yield case(
            f"functional.double_conv2d_relu{': recompute' if recompute else ''}",
            lambda x, y, w1, b1, w2, b2, r=recompute: F.double_conv2d_relu((x, y), w1, b1, w2, b2, 1, r),
            normal(1, 1, 3, 4), normal(1, 1, 3, 4), normal(2, 2, 2, 2), normal(2), normal(3, 2, 2, 2), normal(3),
        )  # fmt: skip
    up_x, up_w = normal(1, 2, 2, 3), normal(2, 2, 3, 2)
    for variant, how in {
        "": {},
        ": stride": {"stride": 2},
        ": output_padding": {"stride": (3, 2), "output_padding": (2, 1)},
        ": padding, dilation": {"padding": (1, 1), "dilation": (1, 2)},
        ": everything": {"stride": 2, "padding": 1, "output_padding": (0, 1), "dilation": (2, 1)},
    }.items():
        yield case(
            f"functional.conv_transpose2d{variant}",
            lambda x, w, b, how=how: F.conv_transpose2d(x, w, b, **how),
            up_x,
            up_w,
            b,
        )
    yield case(
        "functional.conv_transpose2d: groups", lambda x, w: F.conv_transpose2d(x, w, stride=2, groups=2),
        normal(1, 4, 2, 2), normal(4, 1, 2, 2),
    )  # fmt: skip
    image = normal(1, 2, 4, 5)
    yield case("functional.max_pool2d", lambda x: F.max_pool2d(x, 2), image)
    yield case("functional.max_pool2d: overlapping", lambda x: F.max_pool2d(x, 3, 1, 1), image)
    yield case("functional.max_pool2d: ceil", lambda x: F.max_pool2d(x, (3, 2), 2, ceil_mode=True), image)
    yield case("functional.max_pool2d: dilation", lambda x: F.max_pool2d(x, 2, 1, 1, (2, 1)), image)
    yield case(
        "functional.max_pool2d: all equal",
        lambda x: F.max_pool2d(F.interpolate(x, scale_factor=2), 2),
        normal(1, 1, 2, 3),
    )
    yield case("functional.avg_pool2d", lambda x: F.avg_pool2d(x, 2), image)
    yield case("functional.avg_pool2d: overlapping", lambda x: F.avg_pool2d(x, 3, 1, 1), image)
    yield case("functional.avg_pool2d: ceil", lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), image)
    yield case("functional.avg_pool2d: divisor", lambda x: F.avg_pool2d(x, 2, divisor_override=3), image)
    small = normal(1, 2, 3, 2)
    yield case("functional.interpolate", lambda x: F.interpolate(x, (5, 3)), small)
    yield case("functional.interpolate: factor", lambda x: F.interpolate(x, scale_factor=2), small)
    yield case("functional.interpolate: bilinear", lambda x: F.interpolate(x, (5, 3), mode="bilinear"), small)
    yield case(
        "functional.interpolate: corners",
        lambda x: F.interpolate(x, (2, 5), mode="bilinear", align_corners=True),
        small,
    )


def _norms() -> Iterable[Case]:
    x, scale, shift = normal(2, 4, 2, 2), positive(4), normal(4)
    yield case(
        "functional.batch_norm: training", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), x, scale, shift
    )
    running = Tensor(np.linspace(0.5, 2, 4))
    yield case(
        "functional.batch_norm: prediction",
        lambda x, w, b: F.batch_norm(x, beside(x, running), beside(x, running), w, b), x, scale, shift,
    )  # fmt: skip
    yield case("functional.batch_norm: without weight", lambda x: F.batch_norm(x, None, None, training=True), x)
    yield case("functional.batch_norm: no images", lambda x, b: F.batch_norm(x, None, None, None, b, True),
               normal(6, 4), shift)
    for training in (False, True):
        yield case(
            f"functional.batch_norm: relu, {'training' if training else 'prediction'}",
            lambda x, w, b, t=training: F.batch_norm(
                x, beside(x, running), beside(x, running), w, b, t, 0.0, relu=True
            ),
            x, scale, shift,
        )  # fmt: skip
    yield case("functional.group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), x, scale, shift)
    yield case("functional.instance_norm", lambda x, w, b: F.instance_norm(x, w, b), x, scale, shift)
    yield case("functional.layer_norm", lambda x, w, b: F.layer_norm(x, (2, 2), w, b), x, positive(2, 2), normal(2, 2))
    yield case("functional.dropout", lambda x: F.dropout(x, 0.4, generator=np.random.default_rng(3)), x)
    yield case("functional.dropout: everything", lambda x: F.dropout(x, 1.0) + x, normal(3))


def _losses() -> Iterable[Case]:
    logits, labels = normal(2, 3, 2, 2), np.array([[[0, 1], [2, 1]], [[1, 0], [0, 2]]])
    ignoring = np.where(labels == 0, -100, labels)
    weight, pixels = np.array([0.5, 1.0, 2.0]), np.linspace(0.2, 3, 8).reshape(2, 2, 2)
    for variant, target, how in (
        ("", labels, {}),
        (": none", labels, {"reduction": "none"}),
        (": weights, ignored", ignoring, {"weight": weight, "pixel_weight": pixels}),
        (": smoothing", ignoring, {"weight": weight, "label_smoothing": 0.2}),
        (": sum", labels, {"reduction": "sum", "pixel_weight": pixels}),
        (": small labels", labels.astype(np.uint8), {"weight": weight, "ignore_index": 2}),
    ):
        yield case(
            f"functional.cross_entropy{variant}", lambda x, t=target, how=how: F.cross_entropy(x, t, **how), logits
        )
    yield case("functional.cross_entropy: no images", lambda x: F.cross_entropy(x, [3, 0, 1]), normal(3, 5))
    yield case("functional.nll_loss", lambda x: F.nll_loss(x, ignoring, weight), logits)
    yield case("functional.focal_loss", lambda x: F.focal_loss(x, ignoring, weight=weight), logits)
    yield case("functional.dice_loss", lambda x: F.dice_loss(x, ignoring), logits)
    yield case("functional.dice_loss: foreground", lambda x: F.dice_loss(x, labels, include_background=False), logits)
    yield case("functional.tversky_loss", lambda x: F.tversky_loss(x, ignoring), logits)
    truth = np.array([[0.0, 1.0, 0.3], [1.0, 0.0, 1.0]])
    bce = F.binary_cross_entropy_with_logits.__name__
    yield case(f"functional.{bce}", lambda x: getattr(F, bce)(x, truth), normal(2, 3))
    yield case(
        f"functional.{bce}: weights",
        lambda x: getattr(F, bce)(x, truth, truth + 1, "sum", pos_weight=3.0),
        normal(2, 3),
    )
    yield case(f"functional.{bce}: smooth at 0", lambda x: getattr(F, bce)(x, truth), given(np.zeros((2, 3))))
    yield case("functional.mse_loss", _named("mse_loss"), normal(2, 3), normal(2, 3))
