"""Single pixels of the scores: what they see of the image, and the windows of the convolutions they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..backend import kernels_for
from ..pages import png_uri
from ..tensor import Tensor, grad
from ..unet import UNet
from .look import packed
from .stages import Stage, places

Pair = tuple[int, int]
DETAILED = 6  # channels of a window that are shown term by term, those that contribute most; the rest as a sum
SHARES = (0.5, 0.9, 0.99)


def axis_fields(network: UNet, size: int) -> list[tuple[int, int]]:
    """For each row (or column) of the scores: first and last row of the input that it depends on, by arithmetic."""
    sizes = network.sizes
    up = network.config["up"]
    return [sizes.receptive_field(size, index, up) for index in range(sizes.output_size(size))]


def receptive_fields(network: UNet, image: np.ndarray, pixels: Sequence[Pair]) -> list[dict[str, Any]]:
    """For each pixel of the scores of image (C, H, W): |d score / d image|, the score of the class predicted there.

    Measured by a backward pass for each: `box` (first row, first column, last row, last column) of what is not 0,
    `sides` of the squares around the pixel's own place that hold half, 90 % and 99 % of it, and a picture of the box,
    in which grey is the square root of the gradient's size, white its largest value.

    The convolutions are computed directly: minimal filtering (Winograd) leaves rounding errors where the gradient is 0.
    """
    parameters = network.parameters()
    kernels: Any = kernels_for(image)
    usual = getattr(kernels, "algorithm", "")
    for p in parameters:
        p.requires_grad = False
    if usual:
        kernels.algorithm = "direct"
    try:
        return [_receptive_field(network, image, pixel) for pixel in pixels]
    finally:
        if usual:
            kernels.algorithm = usual
        for p in parameters:
            p.requires_grad = True


def _receptive_field(network: UNet, image: np.ndarray, pixel: Pair) -> dict[str, Any]:
    spans = [_enough(network, n, at) for n, at in zip(image.shape[1:], pixel, strict=True)]
    (top, bottom), (left, right) = spans
    source = Tensor(np.ascontiguousarray(image[None, :, top:bottom, left:right]), requires_grad=True)
    scores = network(source)
    row, column = pixel[0] - top, pixel[1] - left
    k = int(scores.data[0, :, row, column].argmax())
    weights = np.zeros(scores.shape, scores.dtype)
    weights[0, k, row, column] = 1
    gradient = cast(Tensor, grad(scores, source, Tensor(weights))[0])
    size = np.zeros(image.shape[1:], np.float32)
    size[top:bottom, left:right] = np.abs(gradient.data[0]).max(axis=0)
    halo = (source.shape[2] - scores.shape[2]) // 2
    k += network.classes - scores.shape[1]  # a single map of scores is that of class 1
    return {"pixel": list(pixel), "class": k, **_measured(size, (pixel[0] + halo, pixel[1] + halo))}


def _enough(network: UNet, size: int, at: int) -> Pair:
    """Rows (or columns) of the input from which the score at `at` comes out the same, in the same phase of poolings.

    All of them where a map's border or its statistics matter: with padding, group and instance normalisation.
    """
    sizes, config = network.sizes, network.config
    if config["padding"] == "same" or config["norm"] in ("group", "instance"):
        return 0, size
    first = at // sizes.grid * sizes.grid
    return first, first + sizes.input_size(at - first + 1)


def _measured(size: np.ndarray, centre: Pair) -> dict[str, Any]:
    """What `receptive_fields` tells of the gradient's size (H, W)."""
    rows, columns = np.flatnonzero(size.any(axis=1)), np.flatnonzero(size.any(axis=0))
    if not rows.size:
        return {"box": None, "largest": 0.0, "sides": None, "src": None}
    top, left, bottom, right = int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])
    part = size[top : bottom + 1, left : right + 1]
    largest = float(part.max())
    return {
        "box": [top, left, bottom, right],
        "largest": largest,
        "sides": [square_holding(size, centre, share) for share in SHARES],
        "src": png_uri(np.rint(255 * np.sqrt(part / largest)).astype(np.uint8)),
    }


def square_holding(size: np.ndarray, centre: Pair, share: float) -> int:
    """Side of the smallest square of odd size around `centre` that holds `share` of the sum of an array (H, W)."""
    rows, columns = (np.abs(np.arange(n) - at) for n, at in zip(size.shape, centre, strict=True))
    rings = np.bincount(np.maximum(rows[:, None], columns).ravel(), weights=size.ravel())
    inside = np.cumsum(rings)
    return 2 * int(np.searchsorted(inside, share * inside[-1] * (1 - 1e-12))) + 1


class Windows:
    """Gathers, while the network runs, the inputs and the result of each convolution at the places of some pixels."""

    def __init__(self, network: UNet, stages: Sequence[Stage], shape: Pair, pixels: Sequence[Pair]) -> None:
        self.stages = [stage for stage in stages if stage.kind in ("conv", "scores")]
        self.places = [places(network, shape, pixel) for pixel in pixels]
        self._inputs: dict[str, list[tuple[str, list[np.ndarray]]]] = {stage.name: [] for stage in self.stages}
        self._results: dict[str, list[np.ndarray]] = {}

    def seen(self, name: str, maps: np.ndarray) -> None:
        """A stage has given its maps (C, H, W): take what is needed of them."""
        for stage in self.stages:
            if stage.name == name:
                self._results[name] = [maps[:, r, c].copy() for r, c in (at[name] for at in self.places)]
            if name in stage.inputs:
                cuts = [_cut(maps, at[stage.name], stage.conv) for at in self.places]
                self._inputs[stage.name].append((name, cuts))

    def found(self) -> dict[str, Any]:
        """For each stage, a window for each pixel, see `_worked`."""
        return {stage.name: [self._worked(stage, i) for i in range(len(self.places))] for stage in self.stages}

    def _worked(self, stage: Stage, i: int) -> dict[str, Any]:
        """The window of pixel number i: of the filter whose result is largest there, its terms, channel by channel.

        `channels` are shown term by term, x and w (n, R, S), unless they add 0; the others' products add up to `rest`.
        """
        seen = dict(self._inputs[stage.name])
        x = np.concatenate([seen[name][i] for name in stage.inputs])
        result = self._results[stage.name][i]
        k = int(result.argmax())
        w = stage.conv.weight.data[k]
        sums = (x.astype(np.float64) * w).sum(axis=(1, 2))
        order = np.argsort(-np.abs(sums), kind="stable")
        shown = sorted(order[: min(DETAILED, max(1, np.count_nonzero(sums)))].tolist())
        others = np.ones(len(sums), bool)
        others[shown] = False
        names = [f"{name} channel {c}" for name in stage.inputs for c in range(len(seen[name][i]))]
        return {
            "place": list(self.places[i][stage.name]),
            "filter": k,
            "channels": [names[c] for c in shown],
            "x": packed(x[shown]),
            "w": packed(w[shown]),
            "rest": float(sums[others].sum()),
            "rest_count": int(others.sum()),
            "bias": 0.0 if stage.conv.bias is None else float(stage.conv.bias.data[k]),
            "norm": _norm_of(stage.norm, k),
            "relu": stage.relu,
            "result": float(result[k]),
        }


def _cut(maps: np.ndarray, place: Pair, conv: Any) -> np.ndarray:
    """The window (C, R, S) from which a convolution computes its result at `place`; beyond the map there are zeros."""
    kernel = conv.weight.shape[2:]
    border = conv.padding if isinstance(conv.padding, int) else 0
    window = np.zeros((len(maps), *kernel), maps.dtype)
    spans = []
    for axis in (0, 1):
        first = place[axis] - border
        low, high = max(first, 0), min(first + kernel[axis], maps.shape[1 + axis])
        spans.append((slice(low, high), slice(low - first, high - first)))
    (rows, into_rows), (columns, into_columns) = spans
    window[:, into_rows, into_columns] = maps[:, rows, columns]
    return window


def _norm_of(norm: Any, k: int) -> dict[str, Any] | None:
    """How channel k is normalised: with its constants for batch normalisation; of the others, whose statistics are
    those of the map itself, just the kind."""
    if norm is None:
        return None
    kind = type(norm).__name__
    if kind != "BatchNorm2d":
        return {"kind": kind}
    values = {"mean": norm.running_mean, "var": norm.running_var, "weight": norm.weight, "bias": norm.bias}
    return {"kind": kind, "eps": norm.eps, **{name: float(t.data[k]) for name, t in values.items()}}
