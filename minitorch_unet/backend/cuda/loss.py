"""CUDA kernels of softmax and cross-entropy, which tell the host nothing unless it asks. See kernels/cuda/loss.cu.

Illegal labels, and losses over no pixels, cannot be raised where they happen, because the host does not wait for the
device. The kernels count them in device memory, and `check` raises for what was counted: whenever the host reads a
value anyway (Tensor.item, Tensor.numpy), or when somebody calls it. Until then such a label has counted as one to be
ignored, and such a loss is NaN with a gradient of 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..cross_entropy import Array, illegal_labels, no_weight
from .base import CudaBase
from .launcher import Strided
from .streaming import MOST_PIXELS, THREADS

BLOCKS = 512  # at most, of the pass over the pixels
NOTHING_WRONG = (0, 2**63 - 1, -(2**63), 0, 0)  # illegal labels, smallest, largest, classes; losses without weight


class _Scores(NamedTuple):
    """What the kernels are told of scores (N, C, ...), labels and weights, and the number of pixels."""

    arguments: dict[str, Any]
    pixels: int


class LossKernels(CudaBase):
    """Overrides for float32 scores; others fall back to CuPy."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self._faults: dict[int, Array] = {}  # by the number of the device

    def softmax_cross_entropy(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int
    ) -> Array:
        """See Kernels.softmax_cross_entropy."""
        given = self._scores(scores, labels, weight, pixel_weight, ignore_index)
        if given is None:
            return super().softmax_cross_entropy(scores, labels, weight, pixel_weight, ignore_index)
        sums = self.xp.empty(3, np.float64)
        self._finish(self._pass(given), mean=False, sums=sums, share=None, loss=None, faults=None)
        return sums

    def softmax_cross_entropy_backward(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int,
        factor: Any,
    ) -> Array:  # fmt: skip
        """See Kernels.softmax_cross_entropy_backward. The result is channels-last; factor may be a device array."""
        given = self._scores(scores, labels, weight, pixel_weight, ignore_index)
        if given is None:
            return super().softmax_cross_entropy_backward(scores, labels, weight, pixel_weight, ignore_index, factor)
        gradient = self._gradient_like(scores)
        on_device = isinstance(factor, self.xp.ndarray)
        how = {"device_scale": factor.astype(np.float64).reshape(1)} if on_device else {"scale": float(factor)}
        self._pass(given, sums=False, gradient=gradient, **how)
        return gradient

    def cross_entropy(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int,
        mean: bool, gradient: bool,
    ) -> tuple[Array, Any, Array | None]:  # fmt: skip
        """See Kernels.cross_entropy. With `gradient` the pass over the scores also writes theirs, but for `share`."""
        given = self._scores(scores, labels, weight, pixel_weight, ignore_index)
        if given is None:
            return super().cross_entropy(scores, labels, weight, pixel_weight, ignore_index, mean, gradient)
        made = self._gradient_like(scores) if gradient else None
        faults = self._faults_of(scores)
        parts = self._pass(given, gradient=made, faults=faults)
        share, loss = self.xp.empty((), np.float64), self.xp.empty((), np.float32)
        sums = self.xp.empty(3, np.float64)
        self._finish(parts, mean=mean, sums=sums, share=share, loss=loss, faults=faults)
        return loss, share, made

    def cross_entropy_backward(
        self, gy: Array, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None,
        ignore_index: int, share: Any, gradient: Array | None,
    ) -> Array:  # fmt: skip
        """See Kernels.cross_entropy_backward."""
        if gradient is None or gy.dtype != np.float32:
            return super().cross_entropy_backward(
                gy, scores, labels, weight, pixel_weight, ignore_index, share, gradient
            )
        out = self._gradient_like(scores)
        grid = -(-gradient.size // (4 * THREADS))
        how: dict[str, Any] = {"size": gradient.size, "share": share, "gy": gy}
        self.launch("loss.cu", "scale_gradient", grid, THREADS, gradient=gradient, out=out, **how)
        return out

    def check(self) -> None:
        """See Kernels.check."""
        for faults in self._faults.values():
            illegal, smallest, largest, classes, without_weight = faults.tolist()
            if illegal or without_weight:
                faults[...] = self.xp.asarray(np.array(NOTHING_WRONG, np.int64))
            if illegal:
                raise illegal_labels(smallest, largest, classes)
            if without_weight:
                raise no_weight()

    # ---------------------------------------------------------------- launches

    def _pass(
        self, given: _Scores, sums: bool = True, gradient: Array | None = None, scale: float = 1.0,
        device_scale: Array | None = None, faults: Array | None = None,
    ) -> Array | None:  # fmt: skip
        """The pass over the pixels; returns the sums of its blocks."""
        blocks = min(BLOCKS, -(-given.pixels // THREADS)) if sums else -(-given.pixels // THREADS)
        parts = self.xp.empty((blocks, 3), np.float64) if sums else None
        how: dict[str, Any] = {"scale": scale, "device_scale": device_scale, "gradient": gradient, "faults": faults}
        self.launch("loss.cu", "softmax_cross_entropy", blocks, THREADS, **given.arguments, parts=parts, **how)
        return parts

    def _finish(self, parts: Array | None, **arguments: Any) -> None:
        count = 0 if parts is None else parts.shape[0]
        self.launch("loss.cu", "finish_cross_entropy", 1, THREADS, parts=parts, count=count, **arguments)

    def _gradient_like(self, scores: Array) -> Array:
        """A new array (N, C, ...) whose classes are neighbours in memory."""
        n, c, *rest = scores.shape
        made = self.xp.empty((n, *rest, c), np.float32)
        return made.transpose(0, made.ndim - 1, *range(1, made.ndim - 1))

    def _scores(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int
    ) -> _Scores | None:
        """The kernels' arguments for such a call; None if the reference must serve it."""
        arrays = [a for a in (scores, weight, pixel_weight) if a is not None]
        whole = labels.dtype.kind in "iu" and np.can_cast(labels.dtype, np.int64)
        if any(a.dtype != np.float32 for a in arrays) or not whole or not 0 < labels.size <= MOST_PIXELS:
            return None
        if scores.size == 0:
            return None
        n, c = scores.shape[:2]
        rows = scores.reshape(n, c, -1) if scores.ndim > 2 else scores.T[None]  # (N, C, P); an image of N pixels
        image, channel, pixel = (stride // rows.itemsize for stride in rows.strides)
        labels = self.xp.ascontiguousarray(labels)
        as_bytes = labels.dtype == np.uint8
        wide = None if as_bytes else labels.astype(np.int64, copy=False)
        weight, pixel_weight = (None if a is None else self.xp.ascontiguousarray(a) for a in (weight, pixel_weight))
        return _Scores({
            "scores": Strided(rows), "image": image, "channel": channel, "pixel": pixel,
            "byte_labels": labels if as_bytes else None, "labels": wide, "weight": weight,
            "pixel_weight": pixel_weight, "classes": c, "pixels": rows.shape[2], "count": labels.size,
            "ignored": ignore_index,
        }, labels.size)  # fmt: skip

    def _faults_of(self, scores: Array) -> Array:
        """The device's counters of what went wrong."""
        number = scores.device.id
        if number not in self._faults:
            self._faults[number] = self.xp.asarray(np.array(NOTHING_WRONG, np.int64))
        return self._faults[number]
