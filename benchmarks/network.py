"""The layers of the paper's U-Net at a given size: shapes, arithmetic and least memory traffic.

    python benchmarks/network.py --size 572 --base 64 [--json]

Symbols: N batch, C input channels, K output channels, H = W input size, P = Q output size. FLOPs count a multiplication
and an addition as two; they are those of direct arithmetic, whatever algorithm computes a layer. Bytes are the least
that has to move, in float32: every input and weight read once, every output written once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from itertools import pairwise

from minitorch_unet.unet import UNetSizes

KERNELS = {"conv3": 3, "up": 2, "head": 1}  # rows (and columns) of the weight by kind of layer
FLOAT = 4


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer. `kind`: conv3 (3x3, bias, ReLU), up (2x2, stride 2, bias), head (1x1, bias) or pool (2x2 maximum).

    For the first convolution after a concatenation, `skip` is the size of the uncropped map whose middle `h` x `h`
    pixels are the first C/2 of its channels, the up-convolution's result being the rest; 0 for all others.
    """

    name: str
    kind: str
    n: int
    c: int
    k: int
    h: int
    skip: int = 0

    @property
    def p(self) -> int:
        """Output size."""
        return {"conv3": self.h - 2, "up": 2 * self.h, "head": self.h, "pool": self.h // 2}[self.kind]

    @property
    def flops(self) -> int:
        """Of one forward pass; each of the two gradients takes as many."""
        if self.kind == "pool":
            return 0
        # Every pixel of the smaller of the two maps meets every tap; an up-convolution's smaller map is its input.
        pixels = min(self.h, self.p) ** 2
        return 2 * self.n * pixels * self.c * self.k * KERNELS[self.kind] ** 2

    @property
    def bytes(self) -> int:
        """Least traffic of one forward pass; of a gradient as well, which exchanges what is read and written."""
        weights = self.k * self.c * KERNELS.get(self.kind, 0) ** 2
        return FLOAT * (self.n * (self.c * self.h**2 + self.k * self.p**2) + weights)

    @property
    def first(self) -> bool:
        """Whether its input is the image, which needs no gradient."""
        return self.name == "down 0 conv 1"

    def record(self) -> dict:
        """All of it as a JSON object."""
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in ("p", "first", "flops", "bytes")}}


def unet_layers(size: int = 572, base: int = 64, batch: int = 1, classes: int = 2) -> list[Layer]:
    """The layers in the order of the forward pass. Raises ValueError for a size that the network cannot take."""
    stages = UNetSizes().trace(size)
    maps = dict(stages)
    layers = []
    channels = 1
    for (_, h), (name, _) in pairwise(stages):
        kind, level = name.split()
        width = base * 2 ** int(level)
        if kind == "pool":
            layers.append(Layer(name, "pool", batch, channels, channels, h))
        elif kind == "up":
            layers.append(Layer(name, "up", batch, channels, width, h))
            channels = 2 * width  # with the skip's channels
        else:
            skip = maps[f"down {level}"] if kind == "merge" else 0
            layers.append(Layer(f"{name} conv 1", "conv3", batch, channels, width, h, skip))
            layers.append(Layer(f"{name} conv 2", "conv3", batch, width, width, h - 2))
            channels = width
    return [*layers, Layer("head", "head", batch, channels, classes, stages[-1][1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=572)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="a JSON list, which rival_torch.py --mode layers reads")
    options = parser.parse_args()
    layers = unet_layers(options.size, options.base, options.batch)
    if options.json:
        print(json.dumps([layer.record() for layer in layers]))
        return
    for layer in layers:
        rate = layer.flops / layer.bytes
        print(
            f"{layer.name:15} {layer.c:5} -> {layer.k:5}  {layer.h:4} -> {layer.p:4}"
            f"  {layer.flops / 1e9:8.3f} GFLOP  {layer.bytes / 2**20:7.1f} MiB  {rate:6.1f} FLOP/byte"
        )
    print(f"sum {sum(layer.flops for layer in layers) / 2e9:.2f} GMAC")


if __name__ == "__main__":
    main()
