"""Pictures of runs: written, of sensible size, and showing what they should."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'plots'")

from minitorch_unet import plots
from minitorch_unet.data import Sample, read_image
from minitorch_unet.data.weights import IGNORE
from minitorch_unet.planner import Moment
from minitorch_unet.plots import (
    ERROR_COLOURS,
    augmentation_panel,
    loss_curve,
    memory_over_a_step,
    panel,
    weight_panel,
)


def colour_share(picture: np.ndarray, colour: tuple[float, float, float]) -> float:
    return float((abs(picture / 255 - np.array(colour)) < 0.02).all(axis=-1).mean())


def write_log(path, steps: int, epochs: int) -> None:
    events = [{"event": "step", "step": i + 1, "loss": 1 / (i + 1)} for i in range(steps)]
    events += [
        {"event": "epoch", "step": 10 * i, "epoch": i, "loss": 0.5, "mean_iou": 0.6, "mean_dice": 0.7}
        for i in range(1, epochs + 1)
    ]
    path.write_text("".join(json.dumps(e) + "\n" for e in events), encoding="utf-8")


@pytest.mark.parametrize(("steps", "epochs"), [(100, 3), (1, 0), (0, 0)])
def test_loss_curve(tmp_path, steps, epochs) -> None:
    write_log(tmp_path / "log.jsonl", steps, epochs)
    loss_curve(tmp_path / "log.jsonl", tmp_path / "loss.png")
    picture = read_image(tmp_path / "loss.png")
    assert picture.shape == (440, 990, 3)
    blue, orange = (31 / 255, 119 / 255, 180 / 255), (1.0, 127 / 255, 14 / 255)
    assert (colour_share(picture, blue) > 0.001) == (steps > 1)
    assert colour_share(picture, orange) > 0.0005


def sample(channels: int, label: np.ndarray) -> Sample:
    image = np.random.default_rng(0).uniform(size=(channels, *label.shape)).astype(np.float32)
    return Sample("the name", image, label, None, None)


@pytest.mark.parametrize("channels", [1, 3])
def test_panel_shows_missed_and_false_pixels_in_their_colours(tmp_path, channels) -> None:
    label = np.zeros((20, 20), np.int64)
    label[:, 10:] = 1
    label[:4] = IGNORE
    right = np.stack([label != 1, label == 1]).astype(np.float32)
    wrong = right[::-1].copy()
    shown = {}
    for name, probability in (("right", right), ("wrong", wrong)):
        panel([sample(channels, label)] * 2, [probability] * 2, tmp_path / f"{name}.png")
        picture = read_image(tmp_path / f"{name}.png")
        assert picture.shape[1] == 1320 and picture.shape[2] == 3
        shown[name] = {kind: colour_share(picture, colour) for kind, colour in ERROR_COLOURS.items()}
    assert shown["right"]["missed"] == shown["right"]["false"] == 0 and shown["right"]["right"] > 0.1
    assert shown["wrong"]["missed"] > 0.05 and shown["wrong"]["false"] > 0.05
    assert shown["wrong"]["right"] < 0.03


def test_ignored_pixels_have_their_own_grey(tmp_path) -> None:
    label = np.full((10, 10), IGNORE, np.int64)
    panel([sample(1, label)], [np.ones((2, 10, 10), np.float32)], tmp_path / "p.png")
    assert colour_share(read_image(tmp_path / "p.png"), (0.75, 0.75, 0.75)) > 0.05


def test_no_global_figure_is_left(tmp_path) -> None:
    import matplotlib.pyplot as plt

    write_log(tmp_path / "log.jsonl", 10, 1)
    loss_curve(tmp_path / "log.jsonl", tmp_path / "loss.png")
    assert plt.get_fignums() == []


def test_a_missing_matplotlib_is_said_with_the_cure(monkeypatch) -> None:
    assert plots.matplotlib_missing() is None
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert "pip install 'minitorch-unet[plots]'" in plots.matplotlib_missing()


def moments() -> list[Moment]:
    """Up and down again, over two stages."""
    rows = [("forward", "down 0", 0, 0, 4), ("forward", "down 0", 8, 0, 0), ("forward", "head", 8, 0, 2)]
    rows += [("backward", "head", 8, 4, 0), ("backward", "down 0", 0, 6, 1), ("backward", "down 0", 0, 0, 0)]
    return [Moment(phase, stage, *(n << 20 for n in sizes), 0, 0) for phase, stage, *sizes in rows]


@pytest.mark.parametrize("lines", [None, {"resident, measured": np.full(6, 30 << 20)}])
def test_memory_over_a_step(tmp_path, lines) -> None:
    memory_over_a_step(moments(), tmp_path / "memory.png", 10 << 20, "title", lines)
    picture = read_image(tmp_path / "memory.png")
    assert picture.shape == (528, 1210, 3)
    shares = {}
    for name, colour in plots.MEMORY_COLOURS.items():
        rgb = tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        shares[name] = colour_share(picture, rgb)
    legend = 0.002  # of the picture, at most
    assert shares["parameters and state"] > shares["kept maps"] > shares["gradients"] > shares["temporaries"] > legend
    # The constant part is 10 MiB high, from the first moment at 0.25 to the last at 3.75; 8 MiB are kept for 2.5.
    width = shares["kept maps"] / shares["parameters and state"] / (8 / 10)
    assert abs(width - 2.5 / 3.5) < 0.03


def test_stages_are_equally_wide_and_each_pass_has_its_own() -> None:
    x, stages = plots._positions(moments())
    assert stages == [("forward", "down 0"), ("forward", "head"), ("backward", "head"), ("backward", "down 0")]
    assert x.tolist() == [0.25, 0.75, 1.5, 2.5, 3.25, 3.75]


def test_weight_panel_shows_the_gradient_red_where_the_score_is_to_fall(tmp_path) -> None:
    shape = (16, 16)
    label, zeros = np.zeros(shape, np.int64), np.zeros(shape)
    infinite = np.full(shape, np.inf)  # without objects
    share = {}
    for name, gradient in (("fall", np.ones(shape)), ("rise", -np.ones(shape)), ("none", zeros)):
        weight_panel(label, zeros, infinite, infinite, gradient, tmp_path / f"{name}.png")
        picture = read_image(tmp_path / f"{name}.png")
        assert picture.shape == (429, 1870, 3)
        red, blue = (103 / 255, 0, 31 / 255), (5 / 255, 48 / 255, 97 / 255)
        share[name] = [colour_share(picture, red), colour_share(picture, blue)]
    assert share["fall"][0] > 0.05 > share["fall"][1] and share["rise"][1] > 0.05 > share["rise"][0]
    assert max(share["none"]) < 0.01


def test_augmentation_panel_has_a_column_for_each_draw(tmp_path) -> None:
    image = np.full((1, 12, 12), 0.5, np.float32)
    ids, lines = np.zeros((12, 12), np.int32), np.zeros((12, 12), np.uint8)
    ids[3:9, 3:9], lines[5] = 1, 1
    widths = []
    for count in (1, 3):
        augmentation_panel([(image, ids, lines)] * count, tmp_path / "a.png")
        picture = read_image(tmp_path / "a.png")
        widths.append(picture.shape[1])
        assert colour_share(picture, (1.0, 0.75, 0.1)) > 0.01, "the object's border"
        assert colour_share(picture, (0.5, 0.5, 0.5)) > 0.1, "the image"
    assert widths == [319, 957]
