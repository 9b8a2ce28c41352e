"""What an operation is: a forward and a backward rule, side by side, on arrays.

An op never sees a Tensor. `forward(ctx, *arrays, **params)` computes and names in `ctx.save(...)` exactly what the
backward rule needs; `backward(ctx, gy)` returns one gradient for each array input (None where there is none).

A backward rule is itself made of ops: of array operators (`gy * ctx.b`) and of `ctx.ops.name(...)`. Called with arrays
it just computes. Called by the graph with recording on, the same `ctx.b` and `gy` are Tensors and `ctx.ops.name`
records: that is how gradients of gradients exist without being written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..backend import Array, Kernels, kernels_for

OPS: dict[str, type[Op]] = {}


class Op:
    """Base of all operations. A subclass registers itself under its name in snake case (Conv2d -> conv2d)."""

    name = ""
    owns_gradients = False  # whether backward returns arrays of its own, which the graph may then add to in place

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        OPS[cls.name] = cls

    @staticmethod
    def forward(ctx: Context, *arrays: Any, **params: Any) -> Array:
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        raise NotImplementedError


class Context:
    """What one call of an op leaves behind for its backward rule.

    `saved` holds the named values; `needs[i]` says whether input i wants a gradient; `ops` calls other ops;
    `kernels` are the heavy array routines for these arrays and `xp` their array library.
    """

    def __init__(self, kernels: Kernels, needs: tuple[bool, ...], ops: Any, remaking: bool = False) -> None:
        self.kernels, self.needs, self.ops = kernels, needs, ops
        self.remaking = remaking  # whether to keep a Recipe rather than a value, see `remade` in tensor.py
        self.saved: dict[str, Any] = {}

    @property
    def xp(self) -> Any:
        return self.kernels.xp

    def save(self, **values: Any) -> None:
        """Keep these values for the backward rule, which reads them as attributes of its ctx."""
        self.saved.update(values)

    def for_backward(self, ops: Any, **replaced: Any) -> Kept:
        """The ctx that a backward rule receives: the saved values, some of them replaced (by Tensors)."""
        return Kept(kernels=self.kernels, xp=self.xp, needs=self.needs, ops=ops, **(self.saved | replaced))


class Recipe:
    """What an op keeps in place of a value that is quickly made again: `make(*arrays)`, its arrays kept anyway.

    An array may itself be a Recipe. `versions`: counters of in-place changes, and what they were.
    """

    def __init__(self, make: Callable[..., Any], *arrays: Any) -> None:
        self._make, self.arrays = make, arrays
        self.versions: list[tuple[list[int], int]] = []

    def make(self) -> Any:
        """The value, bit for bit as it was: the same routine on the same arrays."""
        return self._make(*(a.make() if isinstance(a, Recipe) else a for a in self.arrays))


class Kept(SimpleNamespace):
    """The ctx of a backward rule. A value kept as a Recipe is made each time the rule asks for it, and not before."""

    def __init__(self, **values: Any) -> None:
        self._recipes = {name: value for name, value in values.items() if isinstance(value, Recipe)}
        super().__init__(**{name: value for name, value in values.items() if name not in self._recipes})

    def __getattr__(self, name: str) -> Any:  # called for names that are not found otherwise
        if name == "_recipes" or name not in self._recipes:
            raise AttributeError(name)
        return self._recipes[name].make()


class Part:
    """A gradient that is zero outside `index`, a tuple of slices into `shape`: only what is inside is in memory."""

    def __init__(self, array: Array, index: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        self.array, self.index, self.shape = array, index, shape

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    def whole(self) -> Array:
        """The same gradient with its zeros."""
        return array_ops.setitem_zeros(self.array, shape=self.shape, index=self.index)


class ArrayOps:
    """Calls any op on bare arrays, keeping nothing: `array_ops.sum(a, axis=(0,), keepdims=False)`."""

    def __getattr__(self, name: str) -> Any:
        op = OPS[name]

        def call(*arrays: Any, **params: Any) -> Array:
            kernels = kernels_for(next(a for a in arrays if hasattr(a, "dtype")))
            return op.forward(Context(kernels, (False,) * len(arrays), self), *arrays, **params)

        return call


array_ops = ArrayOps()
