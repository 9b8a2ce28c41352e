"""Softmax and cross-entropy, like the rest of the reference in plain NumPy/CuPy.

Symbols: N batch, C classes, H W rows columns. Where the probability of a label is nearly 1, energies and gradients are
formed from what is missing to 1, so that they keep their digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


class CrossEntropy:
    """A part of `Kernels`."""

    xp: Any

    def softmax_cross_entropy(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int
    ) -> Array:
        """(sum of -w log p_label, sum of w, number of illegal labels) as three float64: over all pixels, p = softmax.

        scores (N, C, ...), labels (N, ...) integers, weight (C), pixel_weight (N, ...); w is the product of the class
        weight of the pixel's label and its pixel weight, and 0 for labels ignore_index and for illegal ones.
        """
        xp = self.xp
        hot, w, illegal = self.label_weights(scores, labels, weight, pixel_weight, ignore_index)
        mine, others, margin = self._softmax_parts(scores, hot)[1:]
        energy = xp.where(w != 0, w * (xp.log1p(others + (mine - 1)) + margin), 0)
        return xp.stack([xp.sum(energy, dtype=np.float64), xp.sum(w, dtype=np.float64), illegal])

    def softmax_cross_entropy_backward(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int,
        factor: Any,
    ) -> Array:  # fmt: skip
        """factor times the gradient of that energy: factor w (p - [class is the label]), (N, C, ...). Labels legal."""
        xp = self.xp
        hot, w, _ = self.label_weights(scores, labels, weight, pixel_weight, ignore_index)
        e, mine, others, _ = self._softmax_parts(scores, hot)
        xp.copyto(e, -others[:, None], where=hot)  # in place, to keep the scores' memory order
        e *= (w * factor / (others + mine)).astype(scores.dtype)[:, None]
        xp.copyto(e, 0, where=w[:, None] == 0)
        return e

    def cross_entropy(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int,
        mean: bool, gradient: bool,
    ) -> tuple[Array, Any, Array | None]:  # fmt: skip
        """(loss, share, made): loss = energy share, one value of scores' type; share = 1, or with `mean` 1 / sum of w.

        With `gradient` a backend may also make what its `cross_entropy_backward` is then given. Raises ValueError for
        illegal labels, and with `mean` if the weights sum to 0; where that would make the host wait, `check` does.
        """
        sums = self.softmax_cross_entropy(scores, labels, weight, pixel_weight, ignore_index)
        energy, total, illegal = sums.tolist()
        if illegal:
            counted = labels[labels != ignore_index]
            raise illegal_labels(int(counted.min()), int(counted.max()), scores.shape[1])
        if mean and total == 0:
            raise no_weight()
        share = 1 / total if mean else 1.0
        return self.xp.asarray(energy * share, scores.dtype), share, None

    def cross_entropy_backward(
        self, gy: Array, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None,
        ignore_index: int, share: Any, gradient: Array | None,
    ) -> Array:  # fmt: skip
        """gy times the gradient of that loss, (N, C, ...); share and gradient as `cross_entropy` gave them."""
        return self.softmax_cross_entropy_backward(scores, labels, weight, pixel_weight, ignore_index, gy * share)

    def check(self) -> None:
        """Raise ValueError for what kernels have found wrong and could not say at once; here they always can."""

    def label_weights(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int
    ) -> tuple[Array, Array, Array]:
        """(one-hot labels (N, C, ...) as booleans, weights (N, ...) of scores' type, number of illegal labels)."""
        xp, classes = self.xp, scores.shape[1]
        counted = labels != ignore_index
        legal = counted & (labels >= 0) & (labels < classes)
        index = xp.where(legal, labels, 0).astype(np.intp)
        w = xp.ones(labels.shape, scores.dtype) if weight is None else weight[index]
        if pixel_weight is not None:
            w = w * pixel_weight
        hot = index[:, None] == xp.arange(classes).reshape(-1, *([1] * (labels.ndim - 1)))
        return hot, xp.where(legal, w, 0).astype(scores.dtype), xp.sum(counted & ~legal, dtype=np.float64)

    def _softmax_parts(self, scores: Array, hot: Array) -> tuple[Array, Array, Array, Array]:
        """e = exp(scores - their maximum); of it the label's, and the sum of all others'; maximum - label's score.

        Where the label's probability is nearly 1 the sum over the others has all digits of what is missing to 1.
        """
        xp = self.xp
        with np.errstate(invalid="ignore"):  # infinite scores: the pixel may be one that does not count
            below = scores - scores.max(axis=1, keepdims=True)
        e = xp.exp(below)
        mine, margin = (xp.where(hot, a, 0).sum(axis=1) for a in (e, below))
        return e, mine, xp.where(hot, 0, e).sum(axis=1), -margin


def illegal_labels(smallest: int, largest: int, classes: int) -> ValueError:
    """The error for labels that are none of the classes."""
    hint = "; if 255 is the foreground, make it 1; if it means unknown, pass ignore_index=255" if largest == 255 else ""
    return ValueError(
        f"cross_entropy: target: index holds values {smallest}..{largest}; legal are 0..{classes - 1}{hint}"
    )


def no_weight() -> ValueError:
    """The error for a mean over nothing."""
    return ValueError(
        "cross_entropy: no pixel counts (all are ignored or have weight 0); use reduction='sum' or check the labels"
    )
