"""The tables of networks' modules, against the paper's figures, the planner and sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest

import minitorch_unet as mt
from minitorch_unet import nn
from minitorch_unet.backend import compiled, memory
from minitorch_unet.cli import main
from minitorch_unet.planner import plan


def test_the_papers_network_in_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "--tree"]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines]
    macs = [int(line[4].replace(",", "")) for line in cells if len(line) == 7 and line[1] == "Conv2d"]
    ups = [int(line[4].replace(",", "")) for line in cells if len(line) == 7 and line[1] == "ConvTranspose2d"]
    assert len(macs) == 19 and round(sum(macs[:-1]) / 1e9, 2) == 144.78
    assert len(ups) == 4 and round(sum(ups) / 1e9, 2) == 5.63
    assert cells[2][:5] == ["network", "UNet", "1×2×388×388", "31,030,658", "150,428,424,448"]
    sizes = [int(line[2].rsplit("×", 1)[1]) for line in cells[3:-4] if line[1].startswith("Conv")]
    down, up = [570, 568, 282, 280, 138, 136, 66, 64, 30, 28], [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388]
    assert sizes == [*down, *up, 388]
    assert "(150.43 GMAC)" in lines[-2]


def test_what_a_network_keeps_is_what_the_planner_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled.available():
        pytest.skip("plans are of the compiled kernels")
    monkeypatch.setattr(memory, "LARGE", 64)  # bytes: all maps are counted
    found = mt.summary(mt.UNet(base=8), (1, 1, 188, 188))
    image, scores = 4 * 188 * 188, 4 * 2 * 4 * 4  # the planner counts the image as input, and the loss keeps the scores
    end = [moment for moment in plan(188, 8).moments if moment.phase == "forward"][-1]
    assert found.total_kept - image + scores == end.kept


def test_a_summary_leaves_the_network_as_it_was() -> None:
    network = mt.UNet(base=2, depth=1, padding="same", norm="batch", dropout=0.5)
    network.down[0].eval()
    network.head.weight.requires_grad = False
    before = network.state_dict()
    found = mt.summary(network, (2, 1, 8, 8))
    assert all(np.array_equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training and not network.down[0].training
    assert found.total_params - found.trainable_params == 4
    by_path = {layer.path: layer for layer in found.layers}
    assert by_path["down.0.norm1"].output == (2, 2, 8, 8) and by_path["down.0.conv1"].macs == 2 * 2 * 64 * 9
    assert by_path["dropout"].output is None and found._repr_html_().startswith("<table>")


def test_a_summary_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 5, 1)))
    found = mt.summary(network, (2, 3, 9, 9))
    assert [(layer.path, layer.output, layer.parameters, layer.macs) for layer in found.layers] == [
        ("", (2, 5, 2, 2), 137, 2 * (16 * 4 * 27 + 4 * 5 * 4)),
        ("0", (2, 4, 4, 4), 112, 2 * 16 * 4 * 27),
        ("1", (2, 4, 4, 4), 0, 0),
        ("2", (2, 5, 2, 2), 25, 2 * 4 * 5 * 4),
        ("2.0", (2, 4, 2, 2), 0, 0),
        ("2.1", (2, 5, 2, 2), 25, 2 * 4 * 5 * 4),
    ]
    linear = mt.summary(nn.Linear(5, 7), (3, 5))
    assert linear.total_mult_adds == 3 * 5 * 7 and linear.parameter_bytes == 4 * 42
    with pytest.raises(ValueError, match="input_size is"):
        mt.summary(network, (0, 3, 9, 9))
