"""The loss of the U-Net as one operation."""

from __future__ import annotations

from typing import Any

from .core import Context, Op, array_ops


class SoftmaxCrossEntropy(Op):
    """E = sum over the pixels of -w log p_label, p = softmax(scores) over axis 1; with `mean`, E / sum of w.

    scores (N, C, ...), labels (N, ...) integers, weight (C) per class or None, pixel_weight (N, ...) or None ->
    one value. w = weight[label] pixel_weight, and 0 for pixels labelled ignore_index. dE / dscores = w (p - one-hot).
    Keeps its inputs. On a CPU backward computes the softmax again, which costs less than to write it and to read it
    back; on a GPU, where reading labels and weights once more costs as much, the forward pass leaves the gradient but
    for its factor. Raises ValueError for labels outside 0..C-1, and with `mean` if the weights sum to 0: on a GPU as
    soon as the host reads a value, see `Kernels.check`.
    """

    owns_gradients = True

    @staticmethod
    def forward(
        ctx: Context, scores: Any, labels: Any, weight: Any, pixel_weight: Any, ignore_index: int, mean: bool
    ) -> Any:
        given = (labels, weight, pixel_weight, ignore_index)
        loss, share, gradient = ctx.kernels.cross_entropy(scores, *given, mean, ctx.needs[0])
        ctx.save(scores=scores, given=given, share=share, gradient=gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        if ctx.ops is array_ops:
            gx = ctx.kernels.cross_entropy_backward(gy, ctx.scores, *ctx.given, ctx.share, ctx.gradient)
        else:
            p = ctx.ops.softmax(ctx.scores, axis=(1,))
            hot, w, _ = ctx.kernels.label_weights(p.data, *ctx.given)
            gx = (p - hot.astype(w.dtype)) * (w * ctx.share).astype(w.dtype)[:, None] * gy
        return gx, None, None, None
