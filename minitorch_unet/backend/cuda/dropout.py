"""The CUDA kernel of dropout, which draws its random numbers itself. See kernels/cuda/dropout.cu."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..draws import NUMBERS_PER_BLOCK, Draws
from ..reference import Array
from .base import CudaBase, type_name
from .streaming import THREADS


class RecordedDraws:
    """A place in device memory for the state of a generator: of a recorded step, which is played again with other ones.

    The step is recorded within `DropoutKernels.drawing_from(this)`; before it is played, `set` says where its numbers
    begin. Copying that is the only thing the host does.
    """

    def __init__(self, xp: Any, start: Draws) -> None:
        self.start = start
        self.array = xp.zeros(6, np.uint64)
        self.set(start)

    def set(self, draws: Draws) -> None:
        """Let the next play's numbers begin here."""
        self.array.set(np.array([*draws.key, *draws.counter], np.uint64))


class DropoutKernels(CudaBase):
    """Overrides for float32, float16 and bfloat16; other arrays get their numbers from the host."""

    _recorded: RecordedDraws | None = None

    def dropout(self, x: Array, p: float, draws: Draws) -> Array:
        """See Kernels.dropout."""
        kind = type_name(x)
        if kind is None or x.size == 0:
            return super().dropout(x, p, draws)
        if x.ndim == 4:
            x = self.channels_last(x)
            y = self.empty_channels_last(x.shape, x.dtype)
        else:
            x = self.xp.ascontiguousarray(x)
            y = self.xp.empty(x.shape, x.dtype)
        words: dict[str, Any] = {f"key{i}": word for i, word in enumerate(draws.key)}
        counter: tuple[int, ...] = draws.counter
        if self._recorded is not None:
            counter = (draws.blocks_after(self._recorded.start), 0, 0, 0)
        words |= {f"counter{i}": word for i, word in enumerate(counter)}
        how: dict[str, Any] = {
            "size": x.size, "p": p, "scale": float(x.dtype.type(1 / (1 - p))), "wide": x.data.ptr % 16 == 0,
            "state": None if self._recorded is None else self._recorded.array,
        }  # fmt: skip
        grid = -(-x.size // (THREADS * NUMBERS_PER_BLOCK))
        self.launch("dropout.cu", "dropout", grid, THREADS, {"T": kind}, x=x, y=y, **how, **words)
        return y

    @contextlib.contextmanager
    def drawing_from(self, recorded: RecordedDraws) -> Iterator[None]:
        """Within it dropout reads where its numbers begin from there, relative to the state it was made with."""
        before, self._recorded = self._recorded, recorded
        try:
            yield
        finally:
            self._recorded = before
