"""Norms of the gradients, layer by layer, noted while a backward pass runs: none is kept, changed or waited for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .amp import GradScaler
from .backend import Array, kernels_for
from .nn import Module
from .tensor import Tensor


class GradientNorms:
    """Within `with`, and while `watching`: the norm of each layer's gradient in the network's last backward pass.

    A layer is a module with parameters of its own; its norm is sqrt(sum g^2) over all of them, before clipping and
    without the scale of a `GradScaler`. The sums stay on the network's device until `read` fetches all in one transfer.
    In a step that is recorded as a CUDA graph they are part of it: `watching` must then be on from the first step.
    """

    def __init__(self, network: Module, scaler: GradScaler | None = None) -> None:
        self.watching = False
        self._network, self._scaler = network, scaler
        self._squares: dict[str, Any] = {}
        self._removers: list[Callable[[], None]] = []

    def __enter__(self) -> GradientNorms:
        for name, p in self._network.named_parameters():
            self._removers.append(p.register_hook(functools.partial(self._note, name)))
        return self

    def __exit__(self, *error: Any) -> None:
        for remove in self._removers:
            remove()
        self._removers.clear()

    def _note(self, name: str, gradient: Tensor) -> None:
        if self.watching:
            square = _square_sum(gradient.data)
            if self._scaler is not None:
                square = square * self._scaler.inverse_scale(gradient) ** 2
            self._squares[name] = square

    def read(self) -> dict[str, float | None]:
        """Layer -> norm, in the network's order, four digits; None for one that is not finite. A GPU is waited for."""
        names = [name for name, _ in self._network.named_parameters() if name in self._squares]
        if not names:
            return {}
        squares = [self._squares[name] for name in names]
        values = kernels_for(self._network.parameters()[0].data).xp.stack(squares).tolist()
        layers: dict[str, float] = {}
        for name, value in zip(names, values, strict=True):
            layer = name.rpartition(".")[0] or name
            layers[layer] = layers.get(layer, 0.0) + value
        return {layer: float(f"{math.sqrt(v):.4g}") if math.isfinite(v) else None for layer, v in layers.items()}


def _square_sum(g: Array) -> Any:
    kernels = kernels_for(g)
    if kernels.asynchronous:
        return kernels.xp.square(g).sum(dtype=np.float64)
    values = g.ravel(order="K")  # a view, whatever the memory order; and no array of squares
    return values.dot(values)
