"""What the gradient check is run on, second part: operators, operations, modules and whole narrow U-Nets.

Names as in `gradcheck_cases`: `tensor.__getitem__`, `ops.index_add`, `nn.Conv2d`, `unet.UNet`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from . import nn
from .gradcheck_cases import Built, Case, beside, case, normal, positive
from .tensor import Tensor, apply
from .unet import UNet


def module_cases() -> list[Case]:
    """The cases of operators, operations, modules and U-Nets, in the order of the table."""
    groups = (_operators, _operations, _modules, _unets)
    return [c for group in groups for c in group()]


def _operators() -> Iterable[Case]:
    a, p = normal(2, 3), positive(2, 3)
    yield case("tensor.__add__", lambda x, y: x + y, a, a)
    yield case("tensor.__radd__", lambda x: beside(x, np.arange(3.0)) + x, a)
    yield case("tensor.__sub__", lambda x, y: x - y, a, normal(3))
    yield case("tensor.__rsub__", lambda x: 2 - x, a)
    yield case("tensor.__mul__", lambda x, y: x * y, a, normal(2, 1))
    yield case("tensor.__mul__: twice the same", lambda x: x * x, a)
    yield case("tensor.__rmul__", lambda x: 2 * x, a)
    yield case("tensor.__truediv__", lambda x, y: x / y, a, p)
    yield case("tensor.__rtruediv__", lambda x: 2 / x, p)
    yield case("tensor.__neg__", lambda x: -x, a)
    yield case("tensor.__pow__", lambda x: x**3, a)
    yield case("tensor.__pow__: Tensor", lambda x, y: x**y, p, a)
    yield case("tensor.__matmul__", lambda x, y: x @ y, a, normal(3, 2))
    for variant, index in {
        "slices": np.s_[1:, ::-1, ::2],
        "integer": np.s_[1],
        "ellipsis, None": np.s_[..., None, -1],
        "boolean": np.array([True, False]),
        "boolean, whole": np.arange(12).reshape(2, 3, 2) % 3 == 0,
        "repeated integers": np.s_[:, [0, 2, 0, -3]],
        "two index arrays": np.s_[np.array([0, 1, 0]), np.array([2, 2, 2])],
    }.items():
        yield case(f"tensor.__getitem__: {variant}", lambda x, index=index: x[index], normal(2, 3, 2))
    yield case("tensor.sum", lambda x: x.sum(0), a)
    yield case("tensor.mean", lambda x: x.mean((0, -1)), a)
    yield case("tensor.reshape", lambda x: x.reshape(3, 2), a)
    yield case("tensor.permute", lambda x: x.permute(1, 0), a)
    yield case("tensor.swapaxes", lambda x: x.swapaxes(0, 1), a)
    wider = np.longdouble
    yield case("tensor.to: wider and back", lambda x: (x.to(wider) * x).to(np.float64), a, host_only=True)
    yield case("tensor.to: a device", lambda x: x.to(x.device) * 2, a)


def _operations() -> Iterable[Case]:
    """Operations that appear first in backward rules; all others run inside the functions above."""
    how = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    x, gy, w = normal(1, 4, 4, 5), normal(1, 2, 2, 3), normal(2, 2, 3, 2)
    yield case("ops.conv2d_input_grad", lambda g, w: apply("conv2d_input_grad", g, w, input_size=(4, 5), **how), gy, w)
    yield case("ops.conv2d_weight_grad", lambda x, g: apply("conv2d_weight_grad", x, g, kernel=(3, 2), **how), x, gy)
    window = {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 0)}
    winners = np.array([[[[2, 5], [3, 0]], [[4, 4], [1, 3]]]])
    pool = {**window, "dilation": (1, 1)}
    yield case(
        "ops.max_pool2d_scatter",
        lambda g: apply("max_pool2d_scatter", g, winners=beside(g, winners), input_size=(2, 4), **pool),
        normal(1, 2, 2, 2),
    )
    yield case(
        "ops.max_pool2d_gather",
        lambda x: apply("max_pool2d_gather", x, winners=beside(x, winners), **pool),
        normal(1, 2, 2, 4),
    )
    yield case("ops.sum_pool2d", lambda x: apply("sum_pool2d", x, out_size=(2, 2), **window), normal(1, 2, 2, 4))
    yield case(
        "ops.sum_pool2d_scatter",
        lambda g: apply("sum_pool2d_scatter", g, input_size=(2, 4), **window),
        normal(1, 2, 2, 2),
    )
    yield case("ops.sum_to", lambda x: apply("sum_to", x, shape=(3, 1)), normal(2, 3, 2))
    yield case(
        "ops.setitem_zeros", lambda x: apply("setitem_zeros", x, shape=(3, 4), index=np.s_[::2, 1:3]), normal(2, 2)
    )
    yield case(
        "ops.setitem_zeros: repeated", lambda x: apply("setitem_zeros", x, shape=(3,), index=[2, 0, 2]), normal(3)
    )
    index, rows = np.array([[0, 2, 1], [0, 1, 1]]), np.array([1, 1, 3])
    yield case(
        "ops.put_along_dim", lambda x: apply("put_along_dim", x, beside(x, index), shape=(3, 3), axis=0), normal(2, 3)
    )
    yield case("ops.index_add", lambda x: apply("index_add", x, beside(x, rows), axis=1, size=4), normal(2, 3))
    wider = np.longdouble
    yield case("ops.cast", lambda x: apply("cast", x, dtype=wider).to(np.float64), normal(2, 3), host_only=True)
    yield case("ops.erf", lambda x: apply("erf", x), normal(2, 3))


def module_case(name: str, make: Callable[[], nn.Module], *shape: int, mode: str = "full") -> Case:
    """A case that calls a module on one input; its parameters, drawn anew, are inputs of the check as well."""

    def build(rng: np.random.Generator) -> Built:
        module = make()
        owned = [
            (owner, attribute)
            for _, owner in module.named_modules()
            for attribute, value in vars(owner).items()
            if isinstance(value, nn.Parameter)
        ]

        def call(x: Tensor, *parameters: Tensor) -> Tensor:
            for (owner, attribute), parameter in zip(owned, parameters, strict=True):
                setattr(owner, attribute, parameter)
            for _, buffer in module.named_buffers():
                buffer.data = beside(x, buffer.data)
            return module(x)

        arrays = [rng.standard_normal(shape)]
        arrays += [0.5 * rng.standard_normal(getattr(owner, attribute).shape) for owner, attribute in owned]
        return call, [Tensor(array, requires_grad=True) for array in arrays]

    return Case(name, build, mode=mode)


def _modules() -> Iterable[Case]:
    f8 = np.float64
    image = (1, 2, 3, 4)
    yield module_case("nn.Linear", lambda: nn.Linear(3, 2, dtype=f8), 2, 3)
    yield module_case("nn.Conv2d", lambda: nn.Conv2d(2, 2, 3, padding=1, stride=2, dtype=f8), *image)
    yield module_case("nn.ConvTranspose2d", lambda: nn.ConvTranspose2d(2, 2, 2, 2, dtype=f8), 1, 2, 2, 2)
    yield module_case("nn.MaxPool2d", lambda: nn.MaxPool2d(2, ceil_mode=True), *image)
    yield module_case("nn.AvgPool2d", lambda: nn.AvgPool2d(3, 1, 1), *image)
    yield module_case("nn.Upsample", lambda: nn.Upsample(2), *image)
    yield module_case("nn.Upsample: bilinear", lambda: nn.Upsample(1.5, "bilinear"), *image)
    yield module_case("nn.BatchNorm2d", lambda: nn.BatchNorm2d(2, dtype=f8), *image)
    yield module_case("nn.BatchNorm2d: eval", lambda: nn.BatchNorm2d(2, dtype=f8).eval(), *image)
    yield module_case("nn.GroupNorm", lambda: nn.GroupNorm(1, 2, dtype=f8), *image)
    yield module_case("nn.InstanceNorm2d", lambda: nn.InstanceNorm2d(2, affine=True, dtype=f8), *image)
    yield module_case("nn.LayerNorm", lambda: nn.LayerNorm((3, 4), dtype=f8), *image)
    yield module_case("nn.Dropout", lambda: nn.Dropout(0.5, _Repeating()), *image)
    for name in ("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "SiLU", "GELU"):
        yield module_case(f"nn.{name}", getattr(nn, name), 2, 3)
    yield module_case("nn.Sequential", lambda: nn.Sequential(nn.Linear(3, 2, dtype=f8), nn.Tanh()), 2, 3)


class _Repeating(np.random.Generator):
    """A generator that gives the same numbers at every call, so that a dropout can be checked."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(1))

    def integers(self, *args: Any, **kwargs: Any) -> Any:
        """As NumPy's, but always from the start."""
        return np.random.default_rng(1).integers(*args, **kwargs)


def _unets() -> Iterable[Case]:
    f8 = np.float64
    yield module_case("unet.UNet: valid, depth 1", lambda: UNet(1, 2, 2, 1, dtype=f8), 1, 1, 18, 18, mode="projection")
    yield module_case("unet.UNet: valid, depth 2", lambda: UNet(1, 2, 2, 2, dtype=f8), 1, 1, 44, 44, mode="projection")
    yield module_case(
        "unet.UNet: same, batch norm, nearest",
        lambda: UNet(1, 2, 2, 1, "same", "nearest", "batch", dtype=f8), 1, 1, 8, 8, mode="projection",
    )  # fmt: skip
