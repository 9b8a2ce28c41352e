"""The loss of the U-Net as one operation."""

from __future__ import annotations

from typing import Any

from .core import Context, Op, array_ops


class SoftmaxCrossEntropy(Op):
    """E = sum over the pixels of -w log p_label, p = softmax(scores) over axis 1; with `mean`, E / sum of w.

    scores (N, C, ...), labels (N, ...) integers, weight (C) per class or None, pixel_weight (N, ...) or None ->
    one value. w = weight[label] pixel_weight, and 0 for pixels labelled ignore_index. dE / dscores = w (p - one-hot).
    Keeps its inputs and nothing else: backward computes the softmax again, which costs less than to write it and to
    read it back. Raises ValueError for labels outside 0..C-1, and with `mean` if the weights sum to 0.
    """

    owns_gradients = True

    @staticmethod
    def forward(
        ctx: Context, scores: Any, labels: Any, weight: Any, pixel_weight: Any, ignore_index: int, mean: bool
    ) -> Any:
        sums = ctx.kernels.softmax_cross_entropy(scores, labels, weight, pixel_weight, ignore_index)
        energy, total, illegal = sums.tolist()
        if illegal:
            counted = labels[labels != ignore_index]
            raise ValueError(
                f"cross_entropy: target: index holds values {int(counted.min())}..{int(counted.max())}; "
                f"legal are 0..{scores.shape[1] - 1}"
            )
        if mean and total == 0:
            raise ValueError(
                "cross_entropy: no pixel counts (all are ignored or have weight 0); use reduction='sum' or check the "
                "labels"
            )
        share = 1 / total if mean else 1.0
        ctx.save(scores=scores, given=(labels, weight, pixel_weight, ignore_index), share=share)
        return ctx.xp.asarray(energy * share, scores.dtype)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        if ctx.ops is array_ops:
            gx = ctx.kernels.softmax_cross_entropy_backward(ctx.scores, *ctx.given, gy * ctx.share)
        else:
            p = ctx.ops.softmax(ctx.scores, axis=(1,))
            hot, w, _ = ctx.kernels.label_weights(p.data, *ctx.given)
            gx = (p - hot.astype(w.dtype)) * (w * ctx.share)[:, None] * gy
        return gx, None, None, None
