"""The shapes of a U-Net's maps, found from its weights and the algebra of its sizes, without computing anything."""

from __future__ import annotations

from collections.abc import Iterator

from . import nn
from .unet import TwoConvs, UNet

Shape = tuple[int, int, int]  # channels, rows, columns


def all_maps(network: UNet, height: int, width: int | None = None) -> list[tuple[str, Shape]]:
    """(what made it, its shape) of every map from the input to the scores; cropped skips and joined maps, too.

    Raises ValueError for an illegal size.
    """
    sizes, depth = network.sizes, network.sizes.depth
    after = {
        stage: (rows, columns)
        for (stage, rows), (_, columns) in zip(sizes.trace(height), sizes.trace(width or height), strict=True)
    }
    trim = 2 if sizes.padding == "valid" else 0

    def convolutions(stage: str, block: TwoConvs) -> Iterator[tuple[str, Shape]]:
        rows, columns = after[stage]
        channels = block.conv1.weight.shape[0]
        yield f"{stage}, convolution 1", (channels, rows + trim, columns + trim)
        yield f"{stage}, convolution 2", (channels, rows, columns)

    found = [("input", (network.config["in_channels"], *after["input"]))]
    for level, block in enumerate(network.down):
        if level:
            found.append((f"pool {level}", (found[-1][1][0], *after[f"pool {level}"])))
        found += convolutions(f"down {level}", block)
    for level, up, merge in zip(reversed(range(depth)), network.up, network.merge, strict=True):
        size = after[f"up {level}"]
        found.append((f"up {level}", (up_channels(up), *size)))
        found.append((f"crop {level}", (network.down[level].conv2.weight.shape[0], *size)))
        found.append((f"cat {level}", (merge.conv1.weight.shape[1], *size)))
        found += convolutions(f"merge {level}", merge)
    return [*found, ("output", (network.config["num_classes"], *after["merge 0"]))]


def up_channels(up: nn.Module) -> int:
    """Channels that an up-convolution gives, whose weight is (in, out, 2, 2), or doubling and a convolution."""
    return int(up.weight.shape[1] if isinstance(up, nn.ConvTranspose2d) else up.parameters()[0].shape[0])


def trace_shapes(network: UNet, height: int, width: int | None = None) -> list[str]:
    """The shape CxHxW after each stage, a line each: blocks down, "bottleneck CxHxW", blocks up, "output CxHxW"."""
    bottleneck = f"down {network.sizes.depth}, convolution 2"
    heads = {bottleneck: "bottleneck ", "output": "output "}
    return [
        heads.get(name, "") + as_text(shape)
        for name, shape in all_maps(network, height, width)
        if name.endswith("convolution 2") or name == "output"
    ]


def as_text(shape: Shape) -> str:
    """CxHxW."""
    return "x".join(map(str, shape))
