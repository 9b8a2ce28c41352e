"""The stages of a U-Net, one for each box of the drawing, and the network run through them one by one.

The network's own forward pass fuses a block's two convolutions and makes some maps again rather than keep them. Here
every map is an operation's result and is kept, so that it can be looked at; the numbers are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from ..unet import TwoConvs, UNet

Step = Callable[[str, Callable[[], Tensor]], Tensor]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A box: `kind` "input", "conv", "pool", "up", "crop" or "scores"; `conv` its convolution, `norm` what follows."""

    name: str
    kind: str
    level: int
    conv: Any = None
    norm: Any = None
    inputs: tuple[str, ...] = ()
    relu: bool = False


def stages_of(network: UNet) -> list[Stage]:
    """All stages in the order in which they are computed."""
    found = [Stage("input", "input", 0)]

    def block(name: str, level: int, module: TwoConvs, inputs: tuple[str, ...]) -> str:
        for number, (conv, norm) in enumerate(((module.conv1, module.norm1), (module.conv2, module.norm2)), start=1):
            found.append(Stage(f"{name} conv {number}", "conv", level, conv, norm, inputs, relu=True))
            inputs = (found[-1].name,)
        return found[-1].name

    last = "input"
    for level, module in enumerate(network.down):
        if level:
            found.append(Stage(f"pool {level}", "pool", level, inputs=(last,)))
            last = found[-1].name
        last = block(f"down {level}", level, module, (last,))
    for level, up, merge in zip(reversed(range(network.sizes.depth)), network.up, network.merge, strict=True):
        conv = getattr(up, "1") if isinstance(up, nn.Sequential) else up
        found.append(Stage(f"up {level}", "up", level, conv, inputs=(last,), relu=network.up_relu))
        found.append(Stage(f"crop {level}", "crop", level, inputs=(f"down {level} conv 2",)))
        pair = (f"up {level}", f"crop {level}")
        last = block(f"merge {level}", level, merge, pair if network.up_first else pair[::-1])
    found.append(Stage("scores", "scores", 0, network.head, inputs=(last,)))
    return found


def run_through(network: UNet, x: Tensor, step: Step) -> Tensor:
    """The scores of x (N, C, H, W). `step(stage's name, compute)` is to return `compute()`. Dropout is left out."""

    def block(name: str, module: TwoConvs, x: Any) -> Tensor:
        for number, (conv, norm) in enumerate(((module.conv1, module.norm1), (module.conv2, module.norm2)), start=1):
            x = step(f"{name} conv {number}", _convolved(conv, norm, module.border, x))
        return x

    skips: list[Tensor] = []
    for level, module in enumerate(network.down):
        if level:
            x = step(f"pool {level}", lambda: F.max_pool2d(skips[-1], 2))
        x = block(f"down {level}", module, x)
        skips.append(x)
    skips.pop()
    for level, up, merge in zip(reversed(range(network.sizes.depth)), network.up, network.merge, strict=True):
        x = step(f"up {level}", _upsampled(up, network.up_relu, x))
        skip = step(f"crop {level}", _cropped(skips.pop(), x.shape[2:]))
        x = block(f"merge {level}", merge, (x, skip) if network.up_first else (skip, x))
    return step("scores", lambda: network.head(x))


def _convolved(conv: nn.Conv2d, norm: Any, border: int, x: Any) -> Callable[[], Tensor]:
    def compute() -> Tensor:
        if norm is None:
            return F.conv2d_relu(x, conv.weight, conv.bias, border)
        y = norm(conv(F.cat(x, 1) if isinstance(x, tuple) else x))
        return y if isinstance(norm, nn.BatchNorm2d) else F.relu(y)

    return compute


def _upsampled(up: nn.Module, relu: bool, x: Tensor) -> Callable[[], Tensor]:
    return lambda: F.relu(up(x)) if relu else up(x)


def _cropped(x: Tensor, size: Any) -> Callable[[], Tensor]:
    return lambda: F.crop(x, size)


def places(network: UNet, shape: Pair, pixel: Pair) -> dict[str, Pair]:
    """For each stage with a convolution: the place in its map from which `pixel` of the scores is computed.

    shape: the input's (H, W). It is the centre of what the pixel sees there, on the way through the skip connections.
    """
    border = 1 if network.sizes.padding == "valid" else 0
    crops = [dict(zip(reversed(range(network.sizes.depth)), network.sizes.crop_offsets(n), strict=True)) for n in shape]
    found = {"scores": pixel}
    at = pixel

    def block(name: str) -> None:
        """`at` of the block's result becomes that of its input."""
        nonlocal at
        for number in (2, 1):
            found[f"{name} conv {number}"] = at
            at = (at[0] + border, at[1] + border)

    for level in range(network.sizes.depth):
        block(f"merge {level}")
        found[f"up {level}"] = merged = at
        at = (merged[0] + crops[0][level], merged[1] + crops[1][level])
        block(f"down {level}")
        at = (merged[0] // 2, merged[1] // 2)
    block(f"down {network.sizes.depth}")
    return found
