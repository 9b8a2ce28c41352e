"""The U-Net of Ronneberger, Fischer and Brox (2015), and the algebra of its sizes.

    input -> [2 convs] -------------------------- crop ----> cat [2 convs] -> 1x1 conv -> scores
               pool 2 -> [2 convs] ------- crop ---> cat [2 convs] -> up-conv
                           pool 2 -> ... [2 convs] ... -> up-conv

Convolutions are valid by default: each trims its input's border by one pixel on every side, so the scores of a
572 x 572 input cover its central 388 x 388 pixels, and every one of them was computed from real image content.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from . import functional as F
from . import nn
from .backend import kernels_for
from .tensor import Tensor, remade

PADDINGS = ("valid", "same")
UPS = ("transpose", "nearest")
NORMS = ("none", "batch", "group", "instance")

# What is made again rather than kept, without and with `recompute`: levels of the contracting and of the expanding path
# at which this is the map between a block's convolutions, and levels at which it is the upsampled map. They give most
# memory for their time: with the pooled maps, 4 % of a step's time for 40 % of all maps, and 8 % for half of them. Not
# the last block's map: it is still in use when memory is at its fullest. On a GPU, whose time is dear and whose memory
# is large, nothing is made again without `recompute`.
REMADE = {False: ((0, 1), (), (0, 1, 2)), True: ((0, 1, 2, 3), (1,), (0, 1, 2, 3))}
NOTHING: tuple[Any, ...] = ((), (), ())


@dataclasses.dataclass(frozen=True)
class UNetSizes:
    """Sizes through a U-Net of `depth` poolings with two 3x3 convolutions a block; `padding` "valid" or "same"."""

    depth: int = 4
    padding: str = "valid"

    @property
    def grid(self) -> int:
        """Pixels by which an input must move for the output to move alike: 2^depth, the pooling grid."""
        return 2**self.depth

    @property
    def _trim(self) -> int:
        """Pixels (both sides together) that a block of two convolutions takes off."""
        return 4 if self.padding == "valid" else 0

    def trace(self, size: int) -> list[tuple[str, int]]:
        """(stage, map size after it) from the input to the scores. Raises ValueError for an illegal size.

        The message names the stage that gives an odd or vanishing size, the one that cannot take it, and the nearest
        legal sizes.
        """
        stages, problem = self._trace(size)
        if problem:
            raise ValueError(
                f"UNet: size {size} is not legal with depth {self.depth} and {self.padding} convolutions: {problem}; "
                f"nearest legal sizes: {', '.join(map(str, self.nearest_legal(size)))}"
            )
        return stages

    def _trace(self, size: int) -> tuple[list[tuple[str, int]], str]:
        """The stages as far as they go, and what is wrong ('' if nothing)."""
        stages = [("input", size)]
        for level in range(self.depth + 1):
            if level:
                name, n = stages[-1]
                if n % 2:
                    return stages, f"'{name}' gives maps of odd size {n}, which 'pool {level}' cannot halve"
                stages.append((f"pool {level}", n // 2))
            name, n = stages[-1]
            if n - self._trim < 1:
                return stages, f"'{name}' gives maps of size {n}, too small for the convolutions of 'down {level}'"
            stages.append((f"down {level}", n - self._trim))
        for level in reversed(range(self.depth)):
            stages.append((f"up {level}", stages[-1][1] * 2))
            name, n = stages[-1]
            if n - self._trim < 1:
                return stages, f"'{name}' gives maps of size {n}, too small for the convolutions of 'merge {level}'"
            stages.append((f"merge {level}", n - self._trim))
        return stages, ""

    def is_legal(self, size: int) -> bool:
        """Whether every pooling meets an even size and no map vanishes."""
        return size > 0 and not self._trace(size)[1]

    def output_size(self, size: int) -> int:
        """Size of the score map for a legal input size (572 -> 388 for the paper's network)."""
        return self.trace(size)[-1][1]

    def input_size(self, output: int) -> int:
        """Smallest legal input size whose score map is at least `output` (388 -> 572)."""
        size = max(1, output)
        while not self.is_legal(size) or self.output_size(size) < output:
            size += 1
        return size

    def nearest_legal(self, size: int) -> list[int]:
        """The nearest legal size below (if there is one) and above."""
        below = next((n for n in range(size, max(0, size - 2 * self.grid), -1) if self.is_legal(n)), None)
        above = next(n for n in range(max(1, size), max(1, size) + 60 * self.grid) if self.is_legal(n))
        return [n for n in (below, above) if n is not None]

    @property
    def halo(self) -> int:
        """Pixels between the border of the input and that of the score map, on each side (92 for the paper's)."""
        size = self.nearest_legal(1)[0]
        return (size - self.output_size(size)) // 2

    def crop_offsets(self, size: int) -> list[int]:
        """Pixels cut off each side of the skip maps, from the deepest level to the shallowest (4, 16, 40, 88)."""
        n = dict(self.trace(size))
        return [(n[f"down {level}"] - n[f"up {level}"]) // 2 for level in reversed(range(self.depth))]

    def receptive_field(self, size: int, index: int, up: str = "transpose") -> tuple[int, int]:
        """First and last input pixel (along one axis) that output pixel `index` depends on, for input size `size`.

        Found by carrying the interval back through both routes, skip and up-convolution, at every level; `up`
        "nearest" is followed by a 2x2 convolution, which reads one pixel more. What normalisation over whole maps
        (group, instance) adds to it is left out.
        """
        n = dict(self.trace(size))
        crops = dict(zip(reversed(range(self.depth)), self.crop_offsets(size), strict=True))

        def before_convs(interval: tuple[int, int], length: int) -> tuple[int, int]:
            reach = (0, 4) if self.padding == "valid" else (-2, 2)
            return max(0, interval[0] + reach[0]), min(length - 1, interval[1] + reach[1])

        def down(level: int, interval: tuple[int, int]) -> tuple[int, int]:
            """From a range of 'down level' maps to the range of input pixels."""
            source = "input" if level == 0 else f"pool {level}"
            lo, hi = before_convs(interval, n[source])
            return (lo, hi) if level == 0 else down(level - 1, (2 * lo, 2 * hi + 1))

        def merge(level: int, interval: tuple[int, int]) -> tuple[int, int]:
            if level == self.depth:
                return down(level, interval)
            lo, hi = before_convs(interval, n[f"up {level}"])
            skip = down(level, (lo + crops[level], hi + crops[level]))
            above = min(hi + 1, n[f"up {level}"] - 1) if up == "nearest" else hi
            low = merge(level + 1, (lo // 2, above // 2))
            return min(skip[0], low[0]), max(skip[1], low[1])

        return merge(0, (index, index))


class TwoConvs(nn.Module):
    """A block of the U-Net: (3x3 convolution, optional normalisation, ReLU) twice."""

    def __init__(self, in_channels: int, out_channels: int, padding: str, norm: str, dtype: Any) -> None:
        self.border = border = 0 if padding == "valid" else 1
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=border, dtype=dtype)
        self.norm1 = _norm(norm, out_channels, dtype)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=border, dtype=dtype)
        self.norm2 = _norm(norm, out_channels, dtype)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], recompute: bool = False) -> Tensor:
        """(N, in, H, W) -> (N, out, H - 4, W - 4), or the same size with "same" padding; x may come in two parts.

        With `recompute` (and no normalisation) the map between the convolutions is made again rather than kept.
        """
        if self.norm1 is None or self.norm2 is None:
            weights = (self.conv1.weight, self.conv1.bias, self.conv2.weight, self.conv2.bias)
            return F.double_conv2d_relu(x, *weights, self.border, recompute)
        x = F.cat(x, 1) if isinstance(x, tuple) else x
        x = _relu(self.norm1, self.conv1(x))
        return _relu(self.norm2, self.conv2(x))


def _relu(norm: nn.Module, x: Tensor) -> Tensor:
    """relu(norm(x)); batch normalisation has the ReLU in it."""
    return norm(x) if isinstance(norm, nn.BatchNorm2d) else F.relu(norm(x))


def _norm(kind: str, channels: int, dtype: Any) -> nn.Module | None:
    if kind == "none":
        return None
    if kind == "batch":
        return nn.BatchNorm2d(channels, dtype=dtype, relu=True)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=True, dtype=dtype)
    groups = next(g for g in (8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, dtype=dtype)


class UNet(nn.Module):
    """Figure 1 of the paper by default: 1 channel in, 2 classes out, 64..1024 channels, 31,030,658 parameters.

    in_channels, num_classes: of image and scores; 1 class: a single map, for a sigmoid. base: channels of the first
    block, doubled at each of `depth` poolings. padding: "valid" (paper) or "same". up: "transpose" (2x2 up-convolution,
    paper) or "nearest" (doubling, then a zero-padded 2x2 convolution; with "same" only). norm: "none" (paper), "batch",
    "group" or "instance". dropout: probability on the last maps of the two deepest blocks of the contracting path, in
    training.
    recompute: save memory in training by computing more of the blocks' first convolutions twice (see REMADE; without
    normalisation).
    up_relu, wide_last_up, up_first: the three ways in which the authors' released network differs: a ReLU after each
    up-convolution, the last of which keeps its channels, and the upsampled maps before the skip's. See `presets`.
    forward: (N, in_channels, H, W) -> scores (N, num_classes, P, Q); see `sizes` for which sizes are legal.
    """

    def __init__(
        self, in_channels: int = 1, num_classes: int = 2, base: int = 64, depth: int = 4, padding: str = "valid",
        up: str = "transpose", norm: str = "none", dropout: float = 0.0, up_relu: bool = False,
        wide_last_up: bool = False, up_first: bool = False, recompute: bool = False, dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        counts = {"in_channels": in_channels, "num_classes": num_classes, "base": base, "depth": depth}
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"UNet: {name} is {value!r}; it must be a whole number of at least 1")
        for name, text, legal in (("padding", padding, PADDINGS), ("up", up, UPS), ("norm", norm, NORMS)):
            if text not in legal:
                raise ValueError(f"UNet: {name} is {text!r}; legal are {', '.join(map(repr, legal))}")
        if up == "nearest" and padding == "valid":
            raise ValueError(
                "UNet: up='nearest' needs padding='same': its 2x2 convolution pads with zeros, and a valid network "
                "reads nothing but the image"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"UNet: dropout is {dropout}; it must be at least 0 and below 1")
        self.config: dict[str, Any] = {
            "in_channels": in_channels, "num_classes": num_classes, "base": base, "depth": depth, "padding": padding,
            "up": up, "norm": norm, "dropout": dropout, "up_relu": up_relu, "wide_last_up": wide_last_up,
            "up_first": up_first, "recompute": recompute,
        }  # fmt: skip
        self.sizes = UNetSizes(depth, padding)
        self.up_relu, self.up_first = up_relu, up_first
        width = [base * 2**level for level in range(depth + 1)]
        self.down = [
            TwoConvs(width[level - 1] if level else in_channels, width[level], padding, norm, dtype)
            for level in range(depth + 1)
        ]
        self.dropout = nn.Dropout(dropout)
        self.up, self.merge = [], []
        for level in reversed(range(depth)):
            upsampled = width[1] if wide_last_up and level == 0 else width[level]
            self.up.append(_up(up, width[level + 1], upsampled, dtype))
            self.merge.append(TwoConvs(width[level] + upsampled, width[level], padding, norm, dtype))
        self.head = nn.Conv2d(base, num_classes, 1, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, num_classes, P, Q). Raises ValueError for illegal sizes or channels."""
        if x.ndim != 4 or x.shape[1] != self.config["in_channels"]:
            raise ValueError(f"UNet: input has shape {x.shape}; expected (N, {self.config['in_channels']}, H, W)")
        for size in x.shape[2:]:
            self.sizes.trace(size)
        skips, recompute = [], self.config["recompute"]
        sparing = recompute or not kernels_for(x.data).asynchronous
        remade_down, remade_merge, remade_ups = REMADE[recompute] if sparing else NOTHING
        for level, block in enumerate(self.down):
            with remade(sparing):
                x = F.max_pool2d(x, 2) if level else x
            x = block(x, level in remade_down)
            if level >= self.sizes.depth - 1:
                x = self.dropout(x)
            skips.append(x)
        skips.pop()
        for level, up, merge in zip(reversed(range(self.sizes.depth)), self.up, self.merge, strict=True):
            # A ReLU keeps its result, which then serves the block, too.
            with remade(level in remade_ups and not self.up_relu):
                x = F.relu(up(x)) if self.up_relu else up(x)
            skip = F.crop(skips.pop(), x.shape[2:])
            x = merge((x, skip) if self.up_first else (skip, x), level in remade_merge)
        return self.head(x)

    @property
    def classes(self) -> int:
        """How many classes it tells apart; a single map of scores, taken through a sigmoid, tells two."""
        return max(2, self.config["num_classes"])

    def class_scores(self, scores: Tensor) -> Tensor:
        """What softmax turns into probabilities: a single map s gets zeros before it, for class 0, as s's sigmoid is
        softmax((0, s))[1]. (N, num_classes, P, Q) -> (N, classes, P, Q)."""
        if self.config["num_classes"] > 1:
            return scores
        return F.cat((Tensor(kernels_for(scores.data).xp.zeros_like(scores.data)), scores), 1)

    def describe(self) -> str:
        """Class name and settings on one line."""
        return f"UNet({', '.join(f'{name}={value!r}' for name, value in self.config.items())})"


def _up(kind: str, in_channels: int, out_channels: int, dtype: Any) -> nn.Module:
    if kind == "transpose":
        return nn.ConvTranspose2d(in_channels, out_channels, 2, 2, dtype=dtype)
    return nn.Sequential(nn.Upsample(2), nn.Conv2d(in_channels, out_channels, 2, padding="same", dtype=dtype))
