"""CUDA kernels that update all parameters in one launch, and those of loss scaling. See kernels/cuda/optim.cu."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..reference import Array
from ..updates import Clock, Pair, Scaling
from .base import CudaBase
from .launcher import is_dense
from .streaming import THREADS

TENSORS = 80  # parameters in one launch, as in optim.cu
CHUNK = 1 << 14  # elements that a block serves: a multiple of 4

# The structure Tensors of optim.cu.
TABLE = np.dtype(
    [(name, np.uint64, TENSORS) for name in ("p", "g", "first", "second")]
    + [("size", np.int64, TENSORS), ("begins", np.int32, TENSORS + 1), ("count", np.int32)]
)


class DeviceClock(Clock):
    """A clock in device memory: (lr, steps, and for Adam 1 - beta^steps of both betas) in float64.

    Writing `lr` is queued like a launch; reading `steps` waits for the device.
    """

    def __init__(self, xp: Any, lr: float, steps: int) -> None:
        self._lr = lr
        self.array = xp.asarray(np.array([lr, steps, 1, 1], np.float64))

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        if lr != self._lr:
            self._lr = lr
            self.array[0] = lr

    @property
    def steps(self) -> int:  # type: ignore[override]
        """How many updates were counted."""
        return int(self.array[1])


class OptimKernels(CudaBase):
    """Overrides for float32 parameters; others are updated one by one by CuPy."""

    asynchronous = True

    def new_clock(self, lr: float, steps: int = 0) -> Clock:
        """See Updates.new_clock."""
        return DeviceClock(self.xp, lr, steps)

    def count_step(self, clock: Clock, betas: Pair = (0.0, 0.0), scaling: Scaling | None = None) -> None:
        """See Updates.count_step."""
        skip = None if scaling is None else scaling.state[:1]
        how: dict[str, Any] = {"clock": _array(clock), "beta1": betas[0], "beta2": betas[1], "skip": skip}
        self.launch("optim.cu", "count_step", 1, 1, **how)

    def sgd_update_all(
        self, params: Sequence[Array], gradients: Sequence[Array], velocities: Sequence[Array | None], clock: Clock,
        momentum: float, dampening: float, weight_decay: float, nesterov: bool, scaling: Scaling | None = None,
    ) -> None:  # fmt: skip
        """See Updates.sgd_update_all."""
        ours, others = self._sorted(params, gradients, velocities)
        how: dict[str, Any] = {
            "momentum": momentum, "rest": 1 - dampening, "decay": weight_decay, "nesterov": nesterov,
            "clock": _array(clock), **_scaling_arguments(scaling),
        }  # fmt: skip
        self._launch_all("sgd", ours, **how)
        if others:
            p, g, velocity = map(list, zip(*others, strict=True))
            super().sgd_update_all(p, g, velocity, clock, momentum, dampening, weight_decay, nesterov, scaling)

    def adam_update_all(
        self, params: Sequence[Array], gradients: Sequence[Array], means: Sequence[Array], squares: Sequence[Array],
        clock: Clock, betas: Pair, eps: float, weight_decay: float, decoupled: bool, scaling: Scaling | None = None,
    ) -> None:  # fmt: skip
        """See Updates.adam_update_all."""
        ours, others = self._sorted(params, gradients, means, squares)
        how: dict[str, Any] = {
            "beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled,
            "clock": _array(clock), **_scaling_arguments(scaling),
        }  # fmt: skip
        self._launch_all("adam", ours, **how)
        if others:
            p, g, mean, square = map(list, zip(*others, strict=True))
            super().adam_update_all(p, g, mean, square, clock, betas, eps, weight_decay, decoupled, scaling)

    def check_gradients(self, gradients: Sequence[Array], scaling: Scaling, unscale: bool) -> None:
        """See Updates.check_gradients."""
        ours = [(g,) for g in gradients if _ours(g)]
        how = {"factor": scaling.factors[1:] if unscale else None, "found": scaling.state[:1]}
        self._launch_all("check_gradients", ours, **how)
        for g in (g for g in gradients if not _ours(g)):
            if unscale:
                g *= scaling.factors[1]
            found = ~self.xp.isfinite(g).all()
            scaling.state[:1] |= found.astype(np.int32)

    def adjust_scale(self, scaling: Scaling, growth: float, backoff: float, interval: int) -> None:
        """See Updates.adjust_scale."""
        how: dict[str, Any] = {"growth": growth, "backoff": backoff, "interval": interval}
        self.launch("optim.cu", "adjust_scale", 1, 1, factors=scaling.factors, state=scaling.state, **how)

    def _sorted(self, *columns: Sequence[Array | None]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """The parameters that the kernels serve, all arrays of each in one memory order, and the others."""
        ours, others = [], []
        for p, g, *kept in zip(*columns, strict=True):
            if _ours(p) and g.dtype == np.float32 and all(a is None or _alike(a, p) for a in kept):
                ours.append((p, g if _alike(g, p) else self._laid_out_like(g, p), *kept))
            elif p.size:
                others.append((p, g, *kept))
        return ours, others

    def _laid_out_like(self, g: Array, p: Array) -> Array:
        copy = self.xp.empty_like(p)
        copy[...] = g
        return copy

    def _launch_all(self, kernel: str, rows: list[tuple[Any, ...]], **arguments: Any) -> None:
        """Launch a kernel over arrays of parameters: (p, g, first, second), of which p and g must be there."""
        for table, blocks in _tables(rows):
            self.launch("optim.cu", kernel, blocks, THREADS, tensors=table, chunk=CHUNK, **arguments)


def _tables(rows: list[tuple[Any, ...]]) -> Iterator[tuple[bytes, int]]:
    """(structure, blocks) of launches over rows of at most TENSORS parameters."""
    for start in range(0, len(rows), TENSORS):
        part = rows[start : start + TENSORS]
        table = np.zeros((), TABLE)
        for i, row in enumerate(part):
            for name, array in zip(("p", "g", "first", "second"), row, strict=False):
                table[name][i] = 0 if array is None else array.data.ptr
            table["size"][i] = row[0].size
        begins = [0, *accumulate(-(-row[0].size // CHUNK) for row in part)]
        table["begins"][: len(begins)] = begins
        table["count"] = len(part)
        yield table.tobytes(), begins[-1]


def _ours(p: Array) -> bool:
    return p.dtype == np.float32 and p.size > 0 and is_dense(p)


def _alike(a: Array, p: Array) -> bool:
    """Whether both arrays have their elements in the same places of memory without gaps; p has no gaps."""
    steps = [[s for s, n in zip(x.strides, x.shape, strict=True) if n > 1] for x in (a, p)]
    return a.shape == p.shape and a.dtype == np.float32 and steps[0] == steps[1]


def _array(clock: Clock) -> Array:
    if not isinstance(clock, DeviceClock):
        raise TypeError(f"clock is a {type(clock).__name__}; updates on a GPU need the kernels' own, see new_clock")
    return clock.array


def _scaling_arguments(scaling: Scaling | None) -> dict[str, Array | None]:
    if scaling is None:
        return {"unscale": None, "skip": None}
    return {"unscale": None if scaling.unscaled else scaling.factors[1:], "skip": scaling.state[:1]}
