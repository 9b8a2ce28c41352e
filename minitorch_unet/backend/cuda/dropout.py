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
    """Where the random numbers of a recorded step begin: in device memory, to be changed before it is played again."""

    def __init__(self, kernels: DropoutKernels, start: Draws) -> None:
        self.kernels, self.start = kernels, start
        self.state = kernels.xp.zeros(6, np.uint64)
        self.set(start)

    def set(self, draws: Draws) -> None:
        """Let the next play's numbers begin here; queued like a launch."""
        words: dict[str, Any] = _words(draws.key, draws.counter)
        self.kernels.launch("dropout.cu", "set_state", 1, 1, {"T": "float"}, state=self.state, **words)


class DropoutKernels(CudaBase):
    """Overrides for float32, float16 and bfloat16; other arrays get their numbers from the host."""

    _recorded: RecordedDraws | None = None

    def dropout(self, x: Array, p: float, draws: Draws) -> Array:
        """See Kernels.dropout. Raises ValueError in a recorded step for a generator other than the engine's own."""
        kind = type_name(x)
        if kind is None or x.size == 0:
            return super().dropout(x, p, draws)
        if x.ndim == 4:
            x = self.channels_last(x)
            y = self.empty_channels_last(x.shape, x.dtype)
        else:
            x = self.xp.ascontiguousarray(x)
            y = self.xp.empty(x.shape, x.dtype)
        state, counter = None, draws.counter
        if self._recorded is not None:
            state, start = self._recorded.state, self._recorded.start
            if draws.key != start.key:
                raise ValueError("dropout: a recorded step draws from the engine's own generator; give none to dropout")
            counter = (draws.blocks_after(start), 0, 0, 0)
        how: dict[str, Any] = {
            "size": x.size, "p": p, "scale": float(x.dtype.type(1 / (1 - p))), "wide": x.data.ptr % 16 == 0,
            "state": state, **_words(draws.key, counter),
        }  # fmt: skip
        grid = -(-x.size // (THREADS * NUMBERS_PER_BLOCK))
        self.launch("dropout.cu", "dropout", grid, THREADS, {"T": kind}, x=x, y=y, **how)
        return y

    @contextlib.contextmanager
    def record_draws(self, start: Draws) -> Iterator[RecordedDraws]:
        """See Kernels.record_draws."""
        before, self._recorded = self._recorded, RecordedDraws(self, start)
        try:
            yield self._recorded
        finally:
            self._recorded = before


def _words(key: tuple[int, ...], counter: tuple[int, ...]) -> dict[str, int]:
    """The kernels' arguments for a key and a counter."""
    return {f"key{i}": word for i, word in enumerate(key)} | {f"counter{i}": word for i, word in enumerate(counter)}
