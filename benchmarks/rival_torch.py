"""The paper's U-Net in PyTorch, timed as this engine is timed; run it with a Python that has torch.

    python rival_torch.py --mode step --size 572 --base 64 --runs 5 --layout channels_last
    python network.py --size 572 --json | path/to/torch/python rival_torch.py --mode layers

`step` prints one JSON line with the fields of step.py: medians in seconds of a forward pass without gradients and of a
training step (cross-entropy, backward, SGD with momentum 0.99), peak resident memory and that after the import, in MiB.
`layers` reads a list of layers on its standard input and prints for each, in both memory layouts, the median seconds of

- forward: convolution, bias and ReLU in place; a merge also crops and concatenates: the convolution reads one array;
- input_grad, weight_grad: the convolution's backward for that one result only (output_mask).

Which setting counts as the rival is decided where the figures are compared: the best one.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMPORT_MIB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ONLY_INPUT, ONLY_WEIGHT = [True, False, False], [False, True, False]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["step", "layers"], default="step")
    parser.add_argument("--size", type=int, default=572)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    parser.add_argument("--layout", choices=list(LAYOUTS), default="channels_last")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    row = {"engine": f"torch {torch.__version__}", "runs": options.runs, "threads": torch.get_num_threads()}
    if options.mode == "step":
        row |= time_step(options)
    else:
        row["layers"] = [time_layer(layer, options.runs) for layer in json.load(sys.stdin)]
    print(json.dumps(row))


def seconds(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_seconds(work: Callable[[], object], runs: int, before: int = 1) -> float:
    """Median of `runs` calls after `before` that are not counted."""
    for _ in range(before):
        work()
    return statistics.median(seconds(work) for _ in range(runs))


# ------------------------------------------------------------------------------------------------------- whole network


class Block(nn.Module):
    """Two valid 3x3 convolutions, each with a ReLU that overwrites its input."""

    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(c, k, 3), nn.Conv2d(k, k, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.second(F.relu_(self.first(x))))


class Network(nn.Module):
    """Figure 1 of the U-Net paper, level by level from the deepest one outwards."""

    def __init__(self, base: int) -> None:
        super().__init__()
        width = [base << level for level in range(5)]
        self.contract = nn.ModuleList(Block(c, k) for c, k in zip([1, *width], width, strict=False))
        self.expand = nn.ModuleList(Block(2 * k, k) for k in width[:4])
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * k, k, 2, stride=2) for k in width[:4])
        self.score = nn.Conv2d(base, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.score(self.level(0, image))

    def level(self, depth: int, x: Tensor) -> Tensor:
        """Everything at this level and below it: full maps in, processed maps of the same channels out."""
        x = self.contract[depth](x)
        if depth == 4:
            return x
        x = self.joined(depth, x)  # the maps that went into it are needed by nobody any more
        return self.expand[depth](x)

    def joined(self, depth: int, x: Tensor) -> Tensor:
        """x, cropped, and what the levels below make of it."""
        up = self.enlarge[depth](self.level(depth + 1, F.max_pool2d(x, 2)))
        return torch.cat((middle(x, up.shape[-1]), up), dim=1)


def middle(x: Tensor, size: int) -> Tensor:
    """The central size x size pixels of square maps, as a view."""
    cut = (x.shape[-1] - size) // 2
    return x[..., cut : cut + size, cut : cut + size]


def time_step(options: argparse.Namespace) -> dict:
    """The fields of step.py for the whole network."""
    layout = LAYOUTS[options.layout]
    network = Network(options.base).to(memory_format=layout)
    image = torch.randn(options.batch, 1, options.size, options.size).to(memory_format=layout)
    call = torch.compile(network) if options.compile else network
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99)
    reduced = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16")

    def forward() -> Tensor:
        with torch.no_grad(), reduced:
            return call(image)

    label = torch.randint(2, (options.batch, *forward().shape[2:]))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with reduced:
            scores = call(image)
        F.cross_entropy(scores.float(), label).backward()
        optimizer.step()

    before = 2 if options.compile else 1  # the first compiles
    forward_s, step_s = (median_seconds(work, options.runs, before) for work in (forward, step))
    settings = ("size", "base", "batch", "layout", "precision", "compile")
    return {
        **{name: getattr(options, name) for name in settings},
        "output": [options.batch, 2, *label.shape[1:]], "forward_s": round(forward_s, 5), "step_s": round(step_s, 5),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024), "import_mib": round(IMPORT_MIB),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- one layer


def time_layer(layer: dict, runs: int) -> dict:
    """{"name", "seconds": {layout: {pass: median}}}; the layouts take turns."""
    passes = {layout: make_passes(layer, layout) for layout in LAYOUTS}
    times: dict[str, dict[str, list[float]]] = {layout: {} for layout in LAYOUTS}
    for number in range(runs + 1):
        for layout, by_name in passes.items():
            for name, work in by_name.items():
                took = seconds(work)
                if number:  # the first call is not counted
                    times[layout].setdefault(name, []).append(took)
    medians = {
        layout: {name: round(statistics.median(values), 7) for name, values in by_name.items()}
        for layout, by_name in times.items()
    }
    return {"name": layer["name"], "seconds": medians}


def make_passes(layer: dict, layout: str) -> dict[str, Callable[[], Tensor]]:
    """The calls that PyTorch's modules and autograd make for one layer."""
    n, c, k, h, p, skip_size = (layer[name] for name in ("n", "c", "k", "h", "p", "skip"))

    def maps(channels: int, size: int) -> Tensor:
        return torch.randn(n, channels, size, size).to(memory_format=LAYOUTS[layout])

    gy = maps(k, p)
    if layer["kind"] == "pool":
        x = maps(c, h)
        at = F.max_pool2d(x, 2, return_indices=True)[1]
        window = ([2, 2], [2, 2], [0, 0], [1, 1], False)
        return {
            "forward": lambda: F.max_pool2d(x, 2, return_indices=True)[0],
            "input_grad": lambda: torch.ops.aten.max_pool2d_with_indices_backward(gy, x, *window, at),
        }
    up, side = layer["kind"] == "up", {"conv3": 3, "up": 2, "head": 1}[layer["kind"]]
    weight = torch.randn(*((c, k) if up else (k, c)), side, side).to(memory_format=LAYOUTS[layout])
    bias = torch.randn(k)
    if skip_size:
        skip, upsampled = maps(c // 2, skip_size), maps(c // 2, h)
        joined = torch.cat((middle(skip, h), upsampled), 1)
    else:
        joined = maps(c, h)

    @torch.no_grad()
    def forward() -> Tensor:
        if up:
            return F.conv_transpose2d(joined, weight, bias, stride=2)
        x = torch.cat((middle(skip, h), upsampled), 1) if skip_size else joined
        y = F.conv2d(x, weight, bias)
        return F.relu_(y) if layer["kind"] == "conv3" else y

    stride = [2, 2] if up else [1, 1]

    def backward(mask: list[bool]) -> Tensor:
        geometry = (stride, [0, 0], [1, 1], up, [0, 0], 1)
        results = torch.ops.aten.convolution_backward(gy, joined, weight, [k], *geometry, mask)
        return results[mask.index(True)]

    passes = {"forward": forward, "weight_grad": lambda: backward(ONLY_WEIGHT)}
    return passes if layer["first"] else {**passes, "input_grad": lambda: backward(ONLY_INPUT)}


if __name__ == "__main__":
    main()
