"""Losses of how well areas cover each other. Class scores are (N, C, ...), class labels (N, ...), as in loss.py."""

from __future__ import annotations

from typing import Any

from ..backend import kernels_for
from ..tensor import Tensor
from .loss import _counted, _labels, _scores
from .reduce import softmax


def dice_loss(
    input: Tensor, target: Any, smooth: float = 1.0, ignore_index: int = -100, include_background: bool = True
) -> Tensor:
    r"""One less the soft Dice score of the classes (Milletari et al. 2016).

    An absent class that is not predicted costs nothing, also with smooth = 0.

    Sums run over the whole batch; ignored pixels are left out; without include_background, class 0 is not averaged in.

    Formula: $E = 1 - \frac 1 C \sum_c \frac{2 \sum_x p_c t_c + \epsilon}{\sum_x p_c + \sum_x t_c + \epsilon}$, with $p$
        = softmax(input), $t$ the labels as 0 and 1, $\epsilon$ = smooth.
    Shapes: input (N, C, ...), target (N, ...) -> one value.
    Gradient: of a class's score $a / b$, with $a = 2 \sum p t + \epsilon$:
        $\partial (a/b) / \partial p_c(x) = (2 t_c(x) - a / b) / b$; then through the softmax. A pixel's gradient
        depends on all others, by $a$ and $b$.
    Kept: nothing; new `8 n + 5 n / C` bytes: $p$, $t$ and which pixels count, as number and as boolean.
    Cost: `11 n + n / C` forward, `7 n` backward.
    Errors: ValueError for labels outside 0 to C - 1, shapes that do not fit, or no class but the background where that
        is not included.
    """
    p, t = _probabilities_and_truth("dice_loss", input, target, ignore_index)
    if not include_background and input.shape[1] < 2:
        raise ValueError(f"dice_loss: input has shape {input.shape}: include_background=False leaves no class")
    axes = (0, *range(2, input.ndim))
    score = _ratio(2 * (p * t).sum(axes) + smooth, p.sum(axes) + t.sum(axes) + smooth)
    return 1 - (score if include_background else score[1:]).mean()


def tversky_loss(
    input: Tensor, target: Any, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0, ignore_index: int = -100
) -> Tensor:
    r"""Like `dice_loss`, with false alarms and misses weighted by alpha and beta (Salehi et al. 2017).

    Formula: $E = 1 - \frac 1 C \sum_c \frac{T_c + \epsilon}{T_c + \alpha F_c + \beta M_c + \epsilon}$, with soft counts
        $T_c = \sum_x p_c t_c$ (hits), $F_c = \sum_x p_c - T_c$ (false alarms), $M_c = \sum_x t_c - T_c$ (misses),
        $\epsilon$ = smooth.
    Shapes: input (N, C, ...), target (N, ...) -> one value.
    Gradient: of a class's score $a / b$, with $a = T_c + \epsilon$: $\partial (a/b) / \partial p_c(x) = (t_c - \frac a
        b (t_c + \alpha (1 - t_c) - \beta t_c)) / b$; then through the softmax. $\alpha = \beta = 1/2$ is Dice with
        twice the smoothing.
    Kept: nothing; new `8 n + 5 n / C` bytes: $p$, $t$ and which pixels count, as number and as boolean.
    Cost: `11 n + n / C` forward, `7 n` backward.
    Errors: ValueError for labels outside 0 to C - 1, or shapes that do not fit.
    """
    p, t = _probabilities_and_truth("tversky_loss", input, target, ignore_index)
    axes = (0, *range(2, input.ndim))
    hit = (p * t).sum(axes)
    score = _ratio(hit + smooth, hit + alpha * (p.sum(axes) - hit) + beta * (t.sum(axes) - hit) + smooth)
    return 1 - score.mean()


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b of each class, and 1 where b = 0: neither there nor predicted, and not smoothed."""
    empty = (b.data == 0).astype(b.dtype)
    return (a + empty) / (b + empty)


def _probabilities_and_truth(name: str, input: Tensor, target: Any, ignore_index: int) -> tuple[Tensor, Any]:
    """softmax(input) and the one-hot target, both (N, C, ...), both 0 where the pixel is ignored."""
    input = _scores(name, input, 2)
    labels, counts = _labels(name, input, target, ignore_index)
    xp = kernels_for(input.data).xp
    classes = xp.arange(input.shape[1]).reshape(1, -1, *([1] * (input.ndim - 2)))
    mask = counts[:, None]
    return softmax(_counted(input, counts), 1) * mask, (labels[:, None] == classes) * mask
