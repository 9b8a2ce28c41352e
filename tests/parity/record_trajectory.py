"""Train the narrow U-Net of `trajectory.py` in PyTorch, float64, and store losses and final weights.

    python tests/parity/record_trajectory.py tests/fixtures/torch_trajectory.npz

Runs in a Python that has PyTorch and needs nothing of this engine. The network is defined once more here, after figure
1 of Ronneberger et al. 2015, so that a slip in the engine's own definition cannot hide.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from trajectory import BASE, DEPTH, LEARNING_RATE, MOMENTUM, SIZE, STEPS, batches, initial_weights, magnitude


class TwoConvs(nn.Module):
    """Two valid 3x3 convolutions, each followed by ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))))


class UNet(nn.Module):
    """Contracting blocks `down`, up-convolutions `up` and blocks after the concatenation `merge`, 1x1 `head`."""

    def __init__(self) -> None:
        super().__init__()
        widths = [BASE << level for level in range(DEPTH + 1)]
        self.down = nn.ModuleList(TwoConvs(a, b) for a, b in zip([1, *widths], widths, strict=False))
        deepest_first = range(DEPTH - 1, -1, -1)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * widths[i], widths[i], 2, stride=2) for i in deepest_first)
        self.merge = nn.ModuleList(TwoConvs(2 * widths[i], widths[i]) for i in deepest_first)
        self.head = nn.Conv2d(BASE, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = nn.functional.max_pool2d(skips[-1], 2)
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x, skip = up(x), skips.pop()
            top, left = ((skip.shape[i] - x.shape[i]) // 2 for i in (2, 3))
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = merge(torch.cat([skip, x], dim=1))
        return self.head(x)


def train() -> dict[str, np.ndarray]:
    """Losses of all steps, the weights after the last, and what tells later whether NumPy still draws the same run."""
    model = UNet().double()
    start = initial_weights({name: tuple(p.shape) for name, p in model.named_parameters()})
    model.load_state_dict({name: torch.from_numpy(value) for name, value in start.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    losses = []
    for image, labels in batches():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.from_numpy(image)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    final = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    asleep = [name for name, value in final.items() if (value == start[name]).all()]
    if asleep:
        raise SystemExit(f"these weights never moved, so the run would prove nothing about them: {', '.join(asleep)}")
    return {"losses": np.array(losses), "drawn": np.array(magnitude(start)), **final}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="the .npz file to write")
    output = parser.parse_args().output
    run = train()
    losses = run["losses"]
    np.savez_compressed(output, torch_version=np.array(torch.__version__), **run)
    print(
        f"{STEPS} steps at {SIZE} x {SIZE} with PyTorch {torch.__version__}: loss {losses[0]:.4f} to {losses[-1]:.4f}; "
        f"{len(run)} arrays, {output.stat().st_size / 1024:.0f} KiB, in {output}"
    )


if __name__ == "__main__":
    main()
