"""The differentiable operations, each with its forward and backward rule on arrays; OPS lists them by name."""

from . import conv, elementwise, loss, norm, pool, reduce, shape
from .core import OPS, Context, Op, Part, Recipe, array_ops

__all__ = [
    "OPS", "Context", "Op", "Part", "Recipe", "array_ops", "conv", "elementwise", "loss", "norm", "pool",
    "reduce", "shape",
]  # fmt: skip
