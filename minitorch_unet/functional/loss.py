"""Losses. Class scores ("logits") are (N, C, ...) and class labels (N, ...) integers 0..C-1; `reduction` is "mean",
"sum" or "none". Everything is composed of differentiable operations, so gradients of gradients exist; the usual
`cross_entropy` is one fused operation.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..backend import is_floating, kernels_for, wide
from ..tensor import Tensor, apply
from .activation import softplus
from .elementwise import clamp, exp
from .reduce import log_softmax
from .shape import checked_index

REDUCTIONS = ("mean", "sum", "none")
SQUASHING = ("softmax", "sigmoid")


def cross_entropy(
    input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0, pixel_weight: Any = None,
) -> Tensor:  # fmt: skip
    r"""Softmax and cross-entropy in one, with class weights and a weight map (Ronneberger et al. 2015, equation 1).

    Pixels labelled ignore_index count nothing. "mean" divides by the sum of the weights of the pixels that count, as
    PyTorch does for class weights. With label_smoothing e the target is 1 - e on the label plus e / C on every class.

    "mean" and "sum" without smoothing are one operation over the pixels, described below. It keeps the arguments
    themselves, not copies of them: change none before backward. Otherwise log-probabilities and labels are kept.

    Formula: $E = -\sum_x \omega_x \ln p_{l_x}(x)$, $p = \mathrm{softmax}(\mathrm{input})$ over axis 1, $l$ = target,
        $\omega$ = class weight of the label times pixel weight; with "mean" divided by $\sum_x \omega_x$.
    Shapes: input (N, C, ...), target (N, ...), weight (C), pixel_weight (N, ...) -> one value, or with "none" (N, ...).
    Gradient: $\ln p_l = s_l - \ln \sum_c e^{s_c}$ of the scores $s$, so
        $\partial (-\ln p_l) / \partial s_c = p_c - \delta_{cl}$: what is claimed less what is true.
        $\bar s_c = \bar E\,\omega\,(p_c - \delta_{cl})$, over $\sum \omega$ with "mean".
    Kept: input, target, weight, pixel_weight.
    Cost: `6 n + 11 n / C` forward, `7 n + 8 n / C` backward: the softmax is computed again.
    Errors: ValueError for labels outside 0 to C - 1 (naming those found), for shapes that do not fit, or if nothing
        counts.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing is {label_smoothing}; it must be from 0 to 1")
    input = _scores("cross_entropy", input)
    target = _checked_target("cross_entropy", input, target)
    per_class = _per_class("cross_entropy", input, weight)
    per_pixel = None if pixel_weight is None else _constant(pixel_weight, input)
    if per_pixel is not None and per_pixel.shape != target.shape:
        raise ValueError(
            f"cross_entropy: pixel_weight has shape {per_pixel.shape}; it must be that of target, {target.shape}"
        )
    if reduction in ("mean", "sum") and not label_smoothing:
        how: dict[str, Any] = {"ignore_index": ignore_index, "mean": reduction == "mean"}
        return apply("softmax_cross_entropy", input, target, per_class, per_pixel, **how)
    return _composed_cross_entropy(input, target, per_class, ignore_index, reduction, label_smoothing, per_pixel)


def _composed_cross_entropy(
    input: Tensor, target: Any, weight: Any, ignore_index: int, reduction: str, label_smoothing: float,
    pixel_weight: Any,
) -> Tensor:  # fmt: skip
    """The same in single operations, for arguments that have been checked; also the fused operation's reference."""
    labels, counts = _labels("cross_entropy", input, target, ignore_index)
    weights = 1.0 if weight is None else weight[labels]
    counts = counts if pixel_weight is None else counts * pixel_weight
    logp = log_softmax(_counted(input, counts if label_smoothing else counts * weights), 1)
    energy = -_pick(logp, labels) * (counts * weights)
    if label_smoothing:
        per_class = 1.0 if weight is None else weight.reshape(1, -1, *([1] * (logp.ndim - 2)))
        smooth = -(logp * per_class).sum(1) * counts
        energy = energy * (1 - label_smoothing) + smooth * (label_smoothing / input.shape[1])
    return _reduce_weighted("cross_entropy", energy, counts * weights, reduction)


def nll_loss(
    input: Tensor, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    r"""The second half of `cross_entropy`, for scores that are log-probabilities already.

    Formula: $E = -\sum_x \omega_x\,s_{l_x}(x)$, with $s$ = input, $l$ = target, $\omega$ the label's class weight;
        "mean" divides by $\sum_x \omega_x$.
    Shapes: input (N, C, ...), target (N, ...), weight (C) -> one value, or with "none" (N, ...).
    Gradient: $\bar s_c = -\bar E\,\omega\,\delta_{cl}$: only the label's score has one.
    Kept: nothing; new `13 n / C` bytes: each pixel's label (int64), weight and whether it counts.
    Cost: `6 n / C` forward, `3 n / C` backward.
    Errors: ValueError for labels outside 0 to C - 1, for shapes that do not fit, or if nothing counts.
    """
    input = _scores("nll_loss", input)
    labels, counts = _labels("nll_loss", input, target, ignore_index)
    weights = counts * _class_weights("nll_loss", input, labels, weight)
    return _reduce_weighted("nll_loss", -_pick(_counted(input, weights), labels) * weights, weights, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    r"""Sigmoid and cross-entropy in one, for targets from 0 to 1 of the same shape as input.

    Computed as $(1 - t)\,x + (1 + (p - 1)\,t)\,\mathrm{softplus}(-x)$, with $p$ = pos_weight, which cannot overflow.

    Formula: $E = -p\,t \ln s(x) - (1 - t) \ln(1 - s(x))$, with $s$ = sigmoid, $t$ = target; then times weight, and
        reduced.
    Shapes: input any, target and weight the same -> one value, or with "none" the same.
    Gradient: $s' = s (1 - s)$, so for $p = 1$ $\bar x = \bar E (s(x) - t)$: what is claimed less what is true; and
        $\bar t = -\bar E x$, if target wants it.
    Kept: nothing; new `9 n` bytes: $1 - t$ and $-x$, and one boolean a value (see `softplus`).
    Cost: `17 n` forward, `10 n` backward.
    Errors: ValueError for a target of another shape or outside 0..1 (on a GPU the values are not looked at), or another
        reduction, or a mean over nothing. Warns of an input that is the result of sigmoid or softmax.
    """
    _warn_of_probabilities("binary_cross_entropy_with_logits", input)
    input = input.to(wide(input.dtype))
    t = _same_shape("binary_cross_entropy_with_logits", input, target)
    if t.size and not kernels_for(t).asynchronous and not (t.min() >= 0 and t.max() <= 1):
        raise ValueError(
            f"binary_cross_entropy_with_logits: target holds values {t.min():g}..{t.max():g}; legal are 0..1"
        )
    if isinstance(target, Tensor) and target.requires_grad:
        t = target.to(input.dtype)
    scale = 1 if pos_weight is None else 1 + t * (_constant(pos_weight, input) - 1)
    energy = (1 - t) * input + scale * softplus(-input, threshold=math.inf)
    if weight is not None:
        energy = energy * _constant(weight, input)
    return _reduce("binary_cross_entropy_with_logits", energy, reduction)


def mse_loss(input: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    r"""Squared error.

    Formula: $E = \frac 1 n \sum_i (x_i - t_i)^2$, with $x$ = input and $t$ = target; "sum" does not divide, "none" does
        not sum.
    Shapes: input any, target the same -> one value, or with "none" the same.
    Gradient: $\bar x_i = \bar E\,\frac 2 n (x_i - t_i)$, $\bar t_i = -\bar x_i$.
    Kept: nothing; new `4 n` bytes: the difference.
    Cost: `3 n` forward, `4 n` backward.
    Errors: ValueError for a target of another shape, another reduction, or a mean over nothing.
    """
    if isinstance(target, Tensor) and target.shape != input.shape:
        raise ValueError(f"mse_loss: target has shape {target.shape}, input {input.shape}; they must be equal")
    input = input.to(wide(input.dtype))
    difference = input - (target if isinstance(target, Tensor) else _same_shape("mse_loss", input, target))
    return _reduce("mse_loss", difference * difference, reduction)


def focal_loss(
    input: Tensor, target: Any, gamma: float = 2.0, weight: Any = None, ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    r"""Cross-entropy in which pixels that are right already count less (Lin et al. 2017).

    Formula: $E = -\sum_x \omega_x (1 - p)^\gamma \ln p$, with $p$ the label's softmax, $\omega$ its class weight;
        "mean" divides by $\sum_x \omega_x$.
    Shapes: input (N, C, ...), target (N, ...), weight (C) -> one value, or with "none" (N, ...).
    Gradient: $\partial E / \partial \ln p = \omega ((1-p)^{\gamma - 1} \gamma\,p \ln p - (1 - p)^\gamma)$, and from
        there to the scores as in `log_softmax`. For $\gamma = 0$ that of `cross_entropy`.
    Kept: nothing; new `4 n + 30 n / C` bytes: log-probabilities; of each pixel label (int64), weight, four factors, and
        whether it counts and $p < 1$.
    Cost: `5 n + 13 n / C` forward, `4 n + 12 n / C` backward.
    Errors: ValueError for gamma below 0, for labels outside 0 to C - 1, for shapes that do not fit, or if nothing
        counts.
    """
    if not gamma >= 0:
        raise ValueError(f"focal_loss: gamma is {gamma}; it must be at least 0")
    input = _scores("focal_loss", input)
    labels, counts = _labels("focal_loss", input, target, ignore_index)
    weights = counts * _class_weights("focal_loss", input, labels, weight)
    picked = _pick(log_softmax(_counted(input, weights), 1), labels)
    # Of p = 1 the smallest miss that the type can tell from it: for gamma < 1 the slope of 0^gamma is infinite.
    miss = clamp(1 - exp(picked), min=float(np.finfo(input.dtype).epsneg))
    return _reduce_weighted("focal_loss", -(miss**gamma) * picked * weights, weights, reduction)


def _scores(name: str, input: Tensor, inside: int = 1) -> Tensor:
    """Checked class scores; 16-bit ones in float32, in which losses are computed. inside: as below."""
    if input.ndim < 2 or not is_floating(input.dtype):
        raise ValueError(
            f"{name}: input has shape {input.shape} and type {input.dtype}; it must be floating-point (N, C, ...)"
        )
    _warn_of_probabilities(name, input, 1 + inside)
    return input.to(wide(input.dtype))


def _warn_of_probabilities(name: str, input: Tensor, inside: int = 1) -> None:
    """Warn where the history of scores says that they went through softmax or sigmoid at last.

    inside: how many functions of this package lie between this one and the caller's line.
    """
    made_by = "" if input.node is None else input.node.op.name
    if made_by in SQUASHING:
        wants = "log_softmax in its place" if name == "nll_loss" else f"the scores from before the {made_by}"
        does = "takes logarithms" if name == "nll_loss" else "applies softmax or sigmoid itself"
        text = f"{name}: input is the result of {made_by}, but this loss {does}; give it {wants}"
        warnings.warn(text, stacklevel=2 + inside)


def _labels(name: str, input: Tensor, target: Any, ignore_index: int) -> tuple[Any, Any]:
    """(labels with ignored pixels set to 0; 1 for pixels that count, 0 for ignored ones), both (N, ...); checked."""
    labels = _checked_target(name, input, target)
    counts = labels != ignore_index
    labels = kernels_for(input.data).xp.where(counts, labels, 0)
    checked_index(f"{name}: target", labels, input.shape[1], input)
    return labels, counts.astype(input.dtype)


def _counted(scores: Tensor, shares: Any) -> Tensor:
    """The scores, 0 at pixels of share 0: what stood there, be it NaN, has no effect (NaN * 0 would) nor gradient."""
    return apply("where", (shares != 0)[:, None], scores, 0)


def _checked_target(name: str, input: Tensor, target: Any) -> Any:
    """The array of labels, its shape and type checked, its values not."""
    labels = target.data if isinstance(target, Tensor) else kernels_for(input.data).xp.asarray(target)
    expected = (input.shape[0], *input.shape[2:])
    if labels.shape != expected:
        hint = "; of one-hot labels take the class numbers, argmax(1)" if labels.shape == input.shape else ""
        raise ValueError(
            f"{name}: target has shape {labels.shape}; for input {input.shape} it must be {expected}{hint}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: target must hold whole class numbers, found type {labels.dtype}")
    return labels


def _class_weights(name: str, scores: Tensor, labels: Any, weight: Any) -> Any:
    """The class weight of every pixel's label, (N, ...); 1 without class weights."""
    per_class = _per_class(name, scores, weight)
    return 1.0 if per_class is None else per_class[labels]


def _per_class(name: str, scores: Tensor, weight: Any) -> Any:
    """The class weights (C) as an array of the scores' type, checked; None without."""
    if weight is None:
        return None
    per_class = _constant(weight, scores)
    if per_class.shape != (scores.shape[1],):
        raise ValueError(
            f"{name}: weight has shape {per_class.shape}; with {scores.shape[1]} classes: ({scores.shape[1]},)"
        )
    return per_class


def _pick(scores: Tensor, labels: Any) -> Tensor:
    """scores[n, label, ...] of every pixel, (N, ...)."""
    return apply("take_along_dim", scores, labels[:, None], axis=1).reshape(labels.shape)


def _constant(value: Any, like: Tensor) -> Any:
    """A number, array or Tensor as an array of like's type and library, without history."""
    value = value.data if isinstance(value, Tensor) else value
    return kernels_for(like.data).xp.asarray(value, dtype=like.dtype)


def _same_shape(name: str, input: Tensor, target: Any) -> Any:
    array = _constant(target, input)
    if array.shape != input.shape:
        raise ValueError(f"{name}: target has shape {array.shape}, input {input.shape}; they must be equal")
    return array


def _reduce(name: str, energy: Tensor, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction is {reduction!r}; legal are {', '.join(map(repr, REDUCTIONS))}")
    if reduction == "mean" and not energy.size:
        raise ValueError(f"{name}: input has shape {energy.shape}: no value to take the mean of; use reduction='sum'")
    return energy if reduction == "none" else energy.sum() if reduction == "sum" else energy.mean()


def _reduce_weighted(name: str, energy: Tensor, shares: Any, reduction: str) -> Tensor:
    if reduction != "mean":
        return _reduce(name, energy, reduction)
    total = float(shares.sum(dtype=np.float64))
    if total == 0:
        raise ValueError(
            f"{name}: no pixel counts (all are ignored or have weight 0); use reduction='sum' or check the labels"
        )
    return energy.sum() * (1 / total)
