"""The U-Net: counts and sizes of the paper, the algebra of its sizes, its receptive field by gradient."""

import numpy as np
import pytest

from minitorch_unet import Tensor, UNet, UNetSizes, manual_seed, nn, no_grad, presets
from minitorch_unet import functional as F

PAPER = UNetSizes()


@pytest.fixture(scope="module")
def paper() -> UNet:
    return UNet()


def convolutions(network: UNet) -> list[nn.Module]:
    return [m for _, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def test_the_papers_network(paper) -> None:
    assert paper.parameter_count() == 31_030_658
    assert len(convolutions(paper)) == 23
    widths = [block.conv2.weight.shape[0] for block in paper.down]
    assert widths == [64, 128, 256, 512, 1024]
    assert [up.weight.shape[:2] for up in paper.up] == [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert [block.conv1.weight.shape[:2] for block in paper.merge] == [(512, 1024), (256, 512), (128, 256), (64, 128)]
    assert paper.head.weight.shape == (2, 64, 1, 1)


def test_the_authors_released_network() -> None:
    network = presets.build("phseg_v5")
    assert network.parameter_count() == 31_100_354
    assert network.up[-1].weight.shape[:2] == (128, 128)
    assert network.merge[-1].conv1.weight.shape[1] == 64 + 128
    assert network.dropout.p == 0.5 and network.config["up_relu"] and network.config["up_first"]


# ------------------------------------------------------------------------------------------------- sizes


def test_stage_sizes_at_572_are_those_of_figure_1() -> None:
    # After each block; a block's first convolution gives 2 more than its second: 570 568, ...
    expected = [
        ("input", 572), ("down 0", 568), ("pool 1", 284), ("down 1", 280), ("pool 2", 140), ("down 2", 136),
        ("pool 3", 68), ("down 3", 64), ("pool 4", 32), ("down 4", 28), ("up 3", 56), ("merge 3", 52), ("up 2", 104),
        ("merge 2", 100), ("up 1", 200), ("merge 1", 196), ("up 0", 392), ("merge 0", 388),
    ]  # fmt: skip
    assert PAPER.trace(572) == expected
    assert PAPER.output_size(572) == 388


def maps(scores: Tensor, batch: int) -> set[tuple[int, int]]:
    """(channels, height) of every map that the scores were computed from; `batch` tells maps from weights."""
    found, stack, seen = set(), [scores.node], set()
    while stack:
        node = stack.pop()
        if id(node) in seen or not hasattr(node, "parents"):
            continue
        seen.add(id(node))
        found |= {shape[1:3] for shape in node.shapes if shape is not None and len(shape) == 4 and shape[0] == batch}
        stack.extend(node.parents)
    return found


def test_the_sizes_are_those_of_the_maps_that_the_network_makes() -> None:
    x = Tensor(np.zeros((5, 1, 572, 572), np.float32), requires_grad=True)
    # With normalisation the two convolutions of a block are operations of their own, and all maps stand in the graph.
    made = {height for _, height in maps(UNet(base=1, norm="batch")(x), 5)}
    assert made == {
        572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28, 56, 54, 52, 104, 102, 100, 200, 198, 196,
        392, 390, 388,
    }  # fmt: skip


def test_crop_offsets_and_halo() -> None:
    assert PAPER.crop_offsets(572) == [4, 16, 40, 88]
    assert PAPER.halo == 92
    assert PAPER.grid == 16
    assert UNetSizes(padding="same").halo == 0
    assert UNetSizes(padding="same").crop_offsets(64) == [0, 0, 0, 0]


def test_legal_sizes_of_the_paper() -> None:
    legal = [n for n in range(-5, 800) if PAPER.is_legal(n)]
    assert legal == [16 * k + 60 for k in range(8, 47)]
    assert all(PAPER.output_size(n) == n - 184 for n in legal)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_legal_sizes_are_those_that_the_network_can_compute(depth, padding) -> None:
    """Oracle: what happens to a size when plain functions make the maps, without any check."""
    sizes = UNetSizes(depth, padding)
    trim = 4 if padding == "valid" else 0

    def computed(n: int) -> int | None:
        for level in range(depth + 1):
            if level:
                if n % 2:
                    return None
                n //= 2
            n -= trim
            if n < 1:
                return None
        for _ in range(depth):
            n = 2 * n - trim
            if n < 1:
                return None
        return n

    for n in range(1, 140):
        assert sizes.is_legal(n) == (computed(n) is not None)
        if sizes.is_legal(n):
            assert sizes.output_size(n) == computed(n)


def test_input_size_is_the_inverse() -> None:
    assert PAPER.input_size(388) == 572
    assert PAPER.input_size(1) == 188
    assert PAPER.input_size(512) == 700 and PAPER.output_size(700) == 516
    for output in range(1, 120):
        size = PAPER.input_size(output)
        assert PAPER.output_size(size) >= output
        assert size == 188 or PAPER.output_size(size - 16) < output


@pytest.mark.parametrize(
    ("sizes", "size", "parts"),
    [
        (PAPER, 512, ["'down 2' gives maps of odd size 121", "'pool 3'", "508, 524"]),
        (PAPER, 573, ["'down 0' gives maps of odd size 569", "'pool 1' cannot halve", "572, 588"]),
        (PAPER, 172, ["'up 2' gives maps of size 4, too small for", "'merge 2'", "nearest legal sizes: 188"]),
        (PAPER, 3, ["'input' gives maps of size 3, too small", "'down 0'", "sizes: 188"]),
        (UNetSizes(3, "same"), 20, ["'down 2' gives maps of odd size 5", "'pool 3'", "16, 24"]),
    ],
)
def test_an_illegal_size_names_both_stages_and_the_nearest_legal_sizes(sizes, size, parts) -> None:
    with pytest.raises(ValueError, match=f"UNet: size {size} is not legal with depth {sizes.depth}") as caught:
        sizes.trace(size)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nearest_legal() -> None:
    assert PAPER.nearest_legal(512) == [508, 524]
    assert PAPER.nearest_legal(572) == [572, 572]
    assert PAPER.nearest_legal(1) == [188]


def test_forward_refuses_illegal_sizes_and_channels() -> None:
    network = UNet(base=1, depth=1, in_channels=3)
    with pytest.raises(ValueError, match=r"UNet: input has shape \(1, 1, 20, 20\); expected \(N, 3, H, W\)"):
        network(Tensor(np.zeros((1, 1, 20, 20), np.float32)))
    with pytest.raises(ValueError, match="size 21 is not legal"):
        network(Tensor(np.zeros((1, 3, 20, 21), np.float32)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": 0}, "base is 0; it must be a whole number of at least 1"),
        ({"depth": 1.5}, "depth is 1.5"),
        ({"num_classes": "2"}, "num_classes is '2'"),
        ({"padding": "full"}, "padding is 'full'; legal are 'valid', 'same'"),
        ({"up": "nearest"}, "up='nearest' needs padding='same'"),
        ({"up": "bilinear"}, "up is 'bilinear'; legal are 'transpose', 'nearest'"),
        ({"norm": "layer"}, "norm is 'layer'; legal are 'none', 'batch', 'group', 'instance'"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_wrong_options_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=f"UNet: {message}"):
        UNet(**options)


# ------------------------------------------------------------------------------------------- receptive field


def reach(network: UNet, size: int, row: int) -> tuple[int, int]:
    """First and last input row that output pixel (row, row) depends on, by gradient; nothing cancels."""
    for _, p in network.named_parameters():
        p.data[...] = 1 / p.size
    x = Tensor(np.ones((1, 1, size, size)), requires_grad=True)
    network(x)[0, 0, row, row].backward()
    touched = np.flatnonzero(x.grad.data[0].any(axis=(0, 2)))
    return int(touched[0]), int(touched[-1])


@pytest.fixture
def mean_pool(monkeypatch) -> None:
    """Max pooling passes the gradient to one pixel of four; the receptive field is of all four."""
    monkeypatch.setattr(F, "max_pool2d", lambda x, size: F.avg_pool2d(x, size, size))


@pytest.mark.parametrize("index", [0, 3, 4, 8, 15, 16, 19, 20])
def test_receptive_field_of_the_paper_by_gradient(mean_pool, index) -> None:
    first, last = reach(UNet(base=1, dtype=np.float64), 220, index)
    assert (first, last) == PAPER.receptive_field(220, index)
    assert last - first + 1 == (188 if index % 16 < 4 else 204)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2])
def test_receptive_field_of_others_by_gradient(mean_pool, depth, padding) -> None:
    sizes = UNetSizes(depth, padding)
    network = UNet(base=1, depth=depth, padding=padding, dtype=np.float64)
    size = sizes.input_size(24)
    for index in range(sizes.output_size(size)):
        assert reach(network, size, index) == sizes.receptive_field(size, index)


def test_receptive_field_widths_of_the_paper() -> None:
    fields = [PAPER.receptive_field(572, index) for index in range(388)]
    widths = [last - first + 1 for first, last in fields]
    assert widths == [188 if index % 16 < 4 else 204 for index in range(388)]
    assert fields[0][0] == 0 and fields[-1][1] == 571


# ----------------------------------------------------------------------------------------------- variants


def small_input(network: UNet, size: int = 0, seed: int = 0) -> Tensor:
    channels = network.config["in_channels"]
    size = size or network.sizes.input_size(6)
    return Tensor(np.random.default_rng(seed).normal(size=(2, channels, size, size)).astype(np.float32))


@pytest.mark.parametrize("norm", ["none", "batch", "group", "instance"])
@pytest.mark.parametrize("up", ["transpose", "nearest"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_every_variant_computes_and_trains_every_parameter(norm, up, padding) -> None:
    if (up, padding) == ("nearest", "valid"):
        pytest.skip("refused, see the errors above")
    manual_seed(0)
    network = UNet(3, 4, base=4, depth=2, norm=norm, up=up, padding=padding, dropout=0.3)
    x = small_input(network)
    scores = network(x)
    assert scores.shape == (2, 4, *[network.sizes.output_size(n) for n in x.shape[2:]])
    F.cross_entropy(scores, np.random.default_rng(1).integers(0, 4, (2, *scores.shape[2:]))).backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not np.abs(p.grad.data).max() > 0]
    assert not [name for name in idle if norm == "none" or ".conv" not in name]  # a norm takes its conv's bias off
    assert all(np.isfinite(p.grad.data).all() for p in network.parameters())


def test_norm_builds_the_norm_that_is_named() -> None:
    kinds = {"none": type(None), "batch": nn.BatchNorm2d, "group": nn.GroupNorm, "instance": nn.InstanceNorm2d}
    for norm, kind in kinds.items():
        network = UNet(base=12, depth=1, norm=norm)
        assert isinstance(network.down[0].norm1, kind)
    assert UNet(base=12, depth=1, norm="group").down[0].norm1.num_groups == 4
    assert UNet(base=12, depth=1, norm="instance").down[0].norm1.weight is not None


def test_dropout_acts_on_the_two_deepest_levels_in_training_only() -> None:
    network = UNet(base=2, depth=2, dropout=0.5)
    seen = []
    network.dropout.forward = lambda x: seen.append(x.shape[1]) or x  # type: ignore[method-assign]
    network(small_input(network))
    assert seen == [4, 8]

    network = UNet(base=2, depth=2, dropout=0.5)
    x = small_input(network)
    assert not np.array_equal(network(x).data, network(x).data)
    network.eval()
    assert np.array_equal(network(x).data, network(x).data)


def depends_on(network: UNet, channels: slice) -> bool:
    """Whether the scores change with the last block's weights for these of its input channels."""
    x = small_input(network)
    with no_grad():
        before = network(x).data
        network.merge[-1].conv1.weight.data[:, channels] += 0.5
        return not np.array_equal(network(x).data, before)


@pytest.mark.parametrize("up_first", [False, True])
def test_the_order_of_the_concatenation(up_first) -> None:
    manual_seed(1)
    network = UNet(base=2, depth=1, wide_last_up=True, up_first=up_first)
    network.up[-1].weight.data[...] = 0  # nothing comes up: only the skip's two channels count
    up, skip = (slice(0, 4), slice(4, 6)) if up_first else (slice(2, 6), slice(0, 2))
    assert not depends_on(network, up)
    assert depends_on(network, skip)


@pytest.mark.parametrize("up_relu", [False, True])
def test_relu_after_the_up_convolution(up_relu) -> None:
    manual_seed(1)
    network = UNet(base=2, depth=1, up_relu=up_relu)
    network.up[-1].weight.data[...] = 0
    network.up[-1].bias.data[...] = -1
    assert depends_on(network, slice(2, 4)) != up_relu


def test_padded_rgb_network_shapes() -> None:
    """The second worked example of the size rules: 3 x 128 x 128 in, one score out, at an eighth of the width."""
    x = Tensor(np.zeros((5, 3, 128, 128), np.float32), requires_grad=True)
    scores = UNet(3, 1, base=8, padding="same", up_relu=True)(x)
    assert scores.shape == (5, 1, 128, 128)
    made = maps(scores, 5)
    assert made >= {(3, 128), (8, 128), (16, 64), (32, 32), (64, 16), (128, 8)}
    assert {height for _, height in made} == {128, 64, 32, 16, 8}


@pytest.mark.parametrize("depth", [1, 2])
def test_moving_the_image_by_the_grid_moves_the_scores(depth) -> None:
    manual_seed(2)
    network = UNet(base=3, depth=depth, dtype=np.float64)
    step = network.sizes.grid
    size = network.sizes.input_size(20)
    big = np.random.default_rng(0).normal(size=(1, 1, size + step, size + step))
    with no_grad():
        here = network(Tensor(big[..., :size, :size].copy())).data
        there = network(Tensor(big[..., step:, step:].copy())).data
        off = network(Tensor(big[..., 1 : size + 1, 1 : size + 1].copy())).data
    np.testing.assert_allclose(there[..., :-step, :-step], here[..., step:, step:], rtol=1e-12, atol=1e-12)
    assert not np.allclose(off[..., :-1, :-1], here[..., 1:, 1:])  # another pooling phase: that is why a grid


def test_the_paper_depth_moves_by_16() -> None:
    manual_seed(2)
    network = UNet(base=1, dtype=np.float64)
    big = np.random.default_rng(0).normal(size=(1, 1, 220, 236))
    with no_grad():
        here, there = (network(Tensor(big[..., left : left + 220].copy())).data for left in (0, 16))
    np.testing.assert_allclose(there[..., :-16], here[..., 16:], rtol=1e-12, atol=1e-12)


def test_the_skip_is_the_unpooled_map_cropped_at_its_centre() -> None:
    """With everything but one route through the level-0 skip silenced, the scores are the input's centre."""
    network = UNet(base=1, depth=1)
    for p in network.parameters():
        p.data[...] = 0
    for block in (network.down[0], network.merge[0]):
        block.conv1.weight.data[0, 0, 1, 1] = 1
        block.conv2.weight.data[0, 0, 1, 1] = 1
    network.head.weight.data[1] = 1
    x = small_input(network, 24)
    x.data[...] = np.abs(x.data)
    scores = network(x).data
    halo = network.sizes.halo
    assert np.array_equal(scores[:, 1], x.data[:, 0, halo:-halo, halo:-halo])
    assert not scores[:, 0].any()


def test_repr_shows_the_configuration_and_all_parameters() -> None:
    network = UNet(base=2, depth=1)
    lines = repr(network).splitlines()
    assert lines[0] == f"UNet  [{network.parameter_count():,}]"
    assert any("down.0: TwoConvs" in line for line in lines)
    assert network.describe().startswith("UNet(in_channels=1, num_classes=2, base=2, depth=1, padding='valid'")
    assert UNet(**network.config).parameter_count() == network.parameter_count()
