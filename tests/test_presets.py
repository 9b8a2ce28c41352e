"""The presets: parameters, the shapes of their maps, their options, and a short run of each."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import one_thread, patterns, write_patterns

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import presets
from minitorch_unet.cli import main
from minitorch_unet.config import TrainConfig
from minitorch_unet.evaluate import evaluate
from minitorch_unet.predict import load_network
from minitorch_unet.runs import start
from minitorch_unet.shapes import all_maps, trace_shapes
from minitorch_unet.steps import train_step
from minitorch_unet.tiled import predict_probabilities

__all__ = ["one_thread"]

PARAMETERS = {
    "paper": 31_030_658, "phseg_v5": 31_100_354, "padded_512": 31_030_658, "padded_rgb_sigmoid": 31_031_745,
    "batchnorm_adamw": 31_042_434, "nearest_upsampling": 31_030_658,
}  # fmt: skip

# The whole lists, as figure 1 and the tutorials' own printouts have them.
VALID_572 = [
    "64x568x568", "128x280x280", "256x136x136", "512x64x64", "bottleneck 1024x28x28", "512x52x52", "256x100x100",
    "128x196x196", "64x388x388", "output 2x388x388",
]  # fmt: skip
PADDED_512 = [
    "64x512x512", "128x256x256", "256x128x128", "512x64x64", "bottleneck 1024x32x32", "512x64x64", "256x128x128",
    "128x256x256", "64x512x512", "output 2x512x512",
]  # fmt: skip
RGB_128 = [
    "64x128x128", "128x64x64", "256x32x32", "512x16x16", "bottleneck 1024x8x8", "512x16x16", "256x32x32", "128x64x64",
    "64x128x128", "output 1x128x128",
]  # fmt: skip
PADDED_256 = [
    "64x256x256", "128x128x128", "256x64x64", "512x32x32", "bottleneck 1024x16x16", "512x32x32", "256x64x64",
    "128x128x128", "64x256x256", "output 2x256x256",
]  # fmt: skip
STAGES = {
    "paper": VALID_572, "phseg_v5": VALID_572, "padded_512": PADDED_512, "padded_rgb_sigmoid": RGB_128,
    "batchnorm_adamw": PADDED_256, "nearest_upsampling": PADDED_256,
}  # fmt: skip


@pytest.mark.parametrize("name", presets.PRESETS)
def test_parameters_and_stages_of_the_full_width(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert presets.outline(name).parameter_count() == PARAMETERS[name]
    assert main(["presets", name, "--trace-shapes"]) == 0
    assert capsys.readouterr().out.splitlines() == STAGES[name]


def test_sizes_of_figure_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "paper", "--trace-shapes", "--every-map"]) == 0
    lines = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    rows = [int(shape.split("x")[1]) for name, shape in lines if not name.startswith(("crop", "cat"))]
    assert rows == [
        572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28, 56, 54, 52, 104, 102, 100, 200, 198, 196,
        392, 390, 388, 388,
    ]  # fmt: skip
    channels = [int(shape.split("x")[0]) for _, shape in lines]
    assert channels == [
        1, 64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512, 1024, 1024, 512, 512, 1024, 512, 512, 256, 256, 512,
        256, 256, 128, 128, 256, 128, 128, 64, 64, 128, 64, 64, 2,
    ]  # fmt: skip


def seen_maps(network: mt.UNet, x: mt.Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """What modules of a network give when it really runs: the oracle of `all_maps`."""
    found: list[tuple[str, tuple[int, ...]]] = []

    def listen(title: str, module: Any) -> None:
        plain = type(module).forward

        def forward(*inputs: Any) -> mt.Tensor:
            if isinstance(inputs[0], tuple):
                found.append((f"cat {title[6:]}", (sum(t.shape[1] for t in inputs[0]), *inputs[0][0].shape[2:])))
            out = plain(module, *inputs)
            found.append((title, out.shape[1:]))
            return out

        module.forward = forward

    depth = network.sizes.depth
    for level, block in enumerate(network.down):
        listen(f"down {level}", block)
    for i, (up, merge) in enumerate(zip(network.up, network.merge, strict=True)):
        listen(f"up {depth - 1 - i}", up)
        listen(f"merge {depth - 1 - i}", merge)
    listen("output", network.head)
    with mt.no_grad():
        network(x)
    return found


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_shapes_are_those_of_a_network_that_runs(name: str) -> None:
    network = presets.build(name, base=2, in_channels=2)
    height, width = (size := network.sizes.nearest_legal(64)[-1]), size + 16
    made = dict(seen_maps(network, mt.Tensor(np.zeros((1, 2, height, width), np.float32))))
    told = {
        title.removesuffix(", convolution 2"): shape
        for title, shape in all_maps(network, height, width)
        if not title.startswith(("input", "pool", "crop")) and not title.endswith("convolution 1")
    }
    assert told == made
    assert trace_shapes(network, height, width)[-1] == f"output {'x'.join(map(str, made['output']))}"


def noting(module: Any, inputs: list[Any]) -> None:
    """Append a module's input to the list at each call."""

    def forward(x: Any, *more: Any) -> mt.Tensor:
        inputs.append(x)
        return type(module).forward(module, x, *more)

    module.forward = forward


def test_phseg_v5_is_the_released_network() -> None:
    """Dropout on the last maps of the two deepest levels, before pool and skip; ReLU; the order (up, skip)."""
    mt.manual_seed(0)
    network = presets.build("phseg_v5", base=4)
    released = {"dropout": 0.5, "up_relu": True, "wide_last_up": True, "up_first": True}
    assert network.config == mt.UNet(base=4, **released).config
    network.dropout.p = 0.75
    for block in (*network.down, *network.merge):
        block.conv2.weight.data[...], block.conv2.bias.data[...] = 0, 1  # no zeros but those of dropout
    for up in network.up:
        up.weight.data[...], up.bias.data[...] = 0, np.where(np.arange(up.bias.size) % 2, 1, -1)  # half for the ReLU
    seen: list[tuple[mt.Tensor, mt.Tensor]] = []
    for merge in network.merge:
        noting(merge, seen)
    inputs: list[mt.Tensor] = []
    noting(network.down[-1], inputs)
    noting(network.up[0], inputs)
    network(mt.Tensor(np.zeros((1, 1, 188, 188), np.float32)))

    def zeros(maps: mt.Tensor) -> float:
        return float((maps.data == 0).mean())

    ups, skips = zip(*seen, strict=True)
    assert [up.shape[1] for up in ups] == [32, 16, 8, 8]  # the last one's 8 are not halved to 4
    assert [skip.shape[1] for skip in skips] == [32, 16, 8, 4]
    assert all(zeros(up) == 0.5 and (up.data >= 0).all() for up in ups)
    assert zeros(skips[0]) == pytest.approx(0.75, abs=0.02) and [zeros(skip) for skip in skips[1:]] == [0, 0, 0]
    assert zeros(inputs[0]) == pytest.approx(0.75**4, abs=0.05)  # pooled after dropout: all four must be zero
    assert zeros(inputs[1]) == pytest.approx(0.75, abs=0.05)


def test_the_released_networks_first_weights_are_gaussian_by_fan_in() -> None:
    weight = presets.build("phseg_v5", base=16).down[2].conv2.weight.data
    assert weight.std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)


# ------------------------------------------------------------------------------------------------- settings


def test_settings_are_legal_and_may_be_changed() -> None:
    for name, preset in presets.PRESETS.items():
        assert presets.config(name).network(preset.channels, 2)["in_channels"] == preset.channels
        assert presets.config(name, base=3, epochs=7) == dataclasses.replace(presets.config(name), base=3, epochs=7)
    assert mt.presets is presets
    with pytest.raises(ValueError, match="preset 'Paper' is unknown; known are paper, phseg_v5, padded_512"):
        presets.build("Paper")
    with pytest.raises(ValueError, match="unknown setting 'width'"):
        presets.config("paper", width=3)


def test_more_classes_than_a_sigmoid_can_tell() -> None:
    config = TrainConfig(loss="binary_cross_entropy")
    assert config.network(1, 2)["num_classes"] == 1
    with pytest.raises(ValueError, match="which tells 2 classes apart; the labels have 3"):
        config.network(1, 3)


def test_one_map_of_scores_is_trained_and_judged_as_two_classes_would_be() -> None:
    """softmax((0, s)) is the sigmoid: loss with weights and ignored pixels, probabilities, energy."""
    config = presets.config("padded_rgb_sigmoid", base=2, depth=1, lr=0.0)
    labels = np.random.default_rng(1).integers(0, 2, (2, 16, 16))
    labels[:, :3] = -100
    weights = np.random.default_rng(2).random((2, 16, 16), np.float32)

    class Data:
        channels, classes = 3, 2

    run = start(dataclasses.replace(config, lr=1e-9), Data(), {})  # type: ignore[arg-type]
    images = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    scores = run.network(mt.Tensor(images)).detach()
    assert scores.shape == (2, 1, 16, 16) and run.network.classes == 2
    two = mt.Tensor(np.concatenate([np.zeros_like(scores.data), scores.data], axis=1))
    assert np.array_equal(run.network.class_scores(scores).data, two.data)
    expected = F.cross_entropy(two, labels, pixel_weight=weights).item()
    assert train_step(run, images, labels, weights, 0.0) == pytest.approx(expected, rel=1e-5)
    assert train_step(run, images, labels, None, 0.0) == pytest.approx(F.cross_entropy(two, labels).item(), rel=1e-5)
    found = predict_probabilities(run.network, images[0])
    assert found.shape == (2, 16, 16)
    np.testing.assert_allclose(found[1], 1 / (1 + np.exp(-scores.data[0, 0])), rtol=1e-5)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-6)


# -------------------------------------------------------------------------------------------- command line


def test_the_list_and_one_of_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert all(f"{name:22}{count:>12,}" in out for name, count in PARAMETERS.items())
    assert "1x572x572     2x388x388" in out and "3x128x128     1x128x128" in out
    assert main(["presets", "phseg_v5", "--base", "8"]) == 0
    shown = capsys.readouterr().out
    assert f"{presets.build('phseg_v5', base=8).parameter_count():,} parameters; 1x572x572 -> 2x388x388" in shown
    file = tmp_path / "phseg.toml"
    file.write_text(shown.split("--config:\n")[1])
    assert main(["train", "--config", str(file), "--trace-shapes", "--size", "572"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "8x568x568"


def test_the_page_tells_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")
    for name, preset in presets.PRESETS.items():
        network = presets.outline(name)
        size, output = preset.size, network.sizes.output_size(preset.size)
        sizes = f"{preset.channels}×{size}×{size} | {network.config['num_classes']}×{output}×{output}"
        assert f"| `{name}` | {PARAMETERS[name]:,} | {sizes} | " in text
    command, *shown = text.split("```console\n$ minitorch-unet ")[1].split("\n```")[0].splitlines()
    assert main(command.split()) == 0
    assert capsys.readouterr().out.splitlines() == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["presets", "resnet"], "preset 'resnet' is unknown; known are paper,"),
        (["presets", "--trace-shapes"], "of which network? Add a name: paper,"),
        (["presets", "paper", "--trace-shapes", "--size", "512"], "nearest legal sizes: 508, 524"),
        (["train", "--preset", "resnet", "--data", "x"], "preset 'resnet' is unknown"),
        (["train", "--preset", "paper", "--resume", "--output", "x"], "--preset may not be given"),
        (["info", "--trace-shapes"], "--trace-shapes needs a checkpoint"),
        (["train", "--resume", "--output", "x", "--trace-shapes"], "minitorch-unet info RUN --trace-shapes is of this"),
        (["train", "--data", "x", "--size", "188"], "--size goes with --trace-shapes"),
        (["info", "--every-map"], "--every-map goes with --trace-shapes"),
        (["presets", "paper", "--every-map"], "--every-map goes with --trace-shapes"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_train_traces_shapes_and_trains_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "padded_rgb_sigmoid", "--trace-shapes"]) == 0
    assert capsys.readouterr().out.splitlines() == RGB_128
    assert main(["train", "--trace-shapes"]) == 0
    assert capsys.readouterr().out.splitlines() == VALID_572
    assert main(["train", "--preset", "padded_rgb_sigmoid", "--trace-shapes", "--loss", "dice", "--base", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "output 2x128x128"


@pytest.mark.parametrize("name", presets.PRESETS)
def test_each_is_trained_predicts_and_is_judged(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command line, at width 2: a few steps, the checkpoint, its shapes, scores, pictures, the doctor."""
    depth = "3" if presets.find(name).settings.get("padding") != "same" else "4"
    data, run = write_patterns(tmp_path / "data", [(48, 48), (40, 52), (48, 40)]), str(tmp_path / "run")
    short = ["--base", "2", "--depth", depth, "--tile", "32", "--epochs", "1", "--quiet", "--threads", "1"]
    assert main(["train", "--preset", name, "--data", str(data), "--output", run, *short]) == 0
    assert main(["train", "--resume", "--output", run, "--epochs", "2", "--quiet"]) == 0
    assert main(["evaluate", run, "--data", str(data), "--scores", "surface", "--json", str(tmp_path / "s.json")]) == 0
    scores = json.loads((tmp_path / "s.json").read_text())
    assert len(scores["iou"]) == 2 and math.isfinite(scores["loss"])
    assert main(["predict", run, str(data / "image"), "--output", str(tmp_path / "out"), "--quiet"]) == 0
    assert (tmp_path / "out" / "0_label.png").exists() and (tmp_path / "out" / "0_probability.png").exists()
    capsys.readouterr()
    main(["doctor", run, "--data", str(data), "--json"])
    found = {diagnosis["name"] for diagnosis in json.loads(capsys.readouterr().out)["diagnoses"]}
    assert found <= {"black-predictions", "grey-predictions"}, found  # true of a network a few steps old
    assert main(["info", run, "--trace-shapes"]) == 0
    network = load_network(run)[0]
    expected = presets.config(name, base=2, depth=int(depth)).network(presets.find(name).channels, 2)
    assert network.config == expected | {"recompute": False}
    assert capsys.readouterr().out.splitlines() == trace_shapes(network, network.sizes.input_size(388))


def test_a_single_map_is_judged_like_two(tmp_path: Path) -> None:
    """A network that says 'brighter than a half' through one map of scores has all pixels right."""
    network = mt.UNet(1, 1, base=1, depth=1, padding="same")
    for p in network.parameters():
        p.data[...] = 0.0
    network.down[0].conv1.weight.data[0, 0, 1, 1] = network.down[0].conv2.weight.data[0, 0, 1, 1] = 1.0
    network.merge[0].conv1.weight.data[0, 0, 1, 1] = network.merge[0].conv2.weight.data[0, 0, 1, 1] = 1.0
    network.head.weight.data[...], network.head.bias.data[...] = 20.0, -10.0
    scores = evaluate(network, patterns([(20, 20), (24, 31)]))
    assert scores["pixel_accuracy"] == 1.0 and scores["mean_iou"] == 1.0
    assert scores["loss"] == pytest.approx(math.log1p(math.exp(-10)), rel=1e-3)
