"""What the microscope records is what the engine computes: scores, loss, gradients, memory; and its small pictures."""

import math
from typing import Any

import microscope_pages as pages
import numpy as np
import pytest
from microscope_pages import pixels_of, recorded, unpacked
from small_runs import one_thread as one_thread

from minitorch_unet import Tensor
from minitorch_unet import functional as F
from minitorch_unet.data import IGNORE
from minitorch_unet.microscope.look import look_at, look_at_weights, packed, sprite, statistics
from minitorch_unet.microscope.record import record
from minitorch_unet.shades import SIGNED

VARIANT = pytest.mark.parametrize("variant", pages.VARIANTS)


@VARIANT
def test_the_step_is_the_networks_own(variant: str) -> None:
    """Scores, loss and the statistics of all gradients, against the fused forward pass and its backward."""
    network, image, label, seen = recorded(variant)
    scores = network.class_scores(network(Tensor(image[None])))
    loss = F.cross_entropy(scores, label[None], ignore_index=IGNORE)
    loss.backward()
    np.testing.assert_allclose(seen.scores, scores.detach().numpy()[0], rtol=1e-4, atol=1e-5)
    assert seen.loss == pytest.approx(loss.item(), rel=1e-5, abs=1e-7)
    convolutions = [r for r in seen.stages if r.stage.conv is not None]
    assert {id(r.stage.conv.weight) for r in convolutions} == {id(p) for p in network.parameters() if p.ndim == 4}
    for r in convolutions:
        gradient = r.stage.conv.weight.grad
        assert gradient is not None and r.weight_gradient is not None
        expected = float(np.asarray(gradient.data, np.float64).std())
        assert r.weight_gradient["sd"] == pytest.approx(expected, rel=1e-3, abs=1e-8), r.stage.name
    for p in network.parameters():
        p.grad = None


@VARIANT
def test_every_stage_has_its_shape_and_its_looks(variant: str) -> None:
    network, image, _, seen = recorded(variant)
    sizes = [dict(network.sizes.trace(n)) for n in image.shape[1:]]
    for r in seen.stages:
        name = r.stage.name.removesuffix(" conv 2")
        if name in sizes[0]:
            assert r.shape[1:] == tuple(size[name] for size in sizes), name
        if r.stage.kind == "crop":
            assert r.maps is None and r.bytes == 0
            assert r.shape[1:] == tuple(size[f"up {r.stage.level}"] for size in sizes)
            continue
        assert r.maps is not None and (r.gradients is None) == (r.stage.kind == "input"), name
        assert r.bytes == 4 * math.prod(r.shape)
        assert (r.weights is None) == (r.stage.kind in ("input", "pool"))
        assert r.seconds["forward"] > 0 or r.stage.kind == "input"
    assert len(seen.stages) == 2 + 5 * network.sizes.depth + 2 + 2 * network.sizes.depth
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_the_tape_counts_every_byte() -> None:
    """At the turn all maps and the poolings' winners are there; at the end only scores and gradients of weights."""
    network, _, _, seen = recorded("paper")
    forward = [m for m in seen.moments if m.phase == "forward"]
    backward = [m for m in seen.moments if m.phase == "backward"]
    assert seen.moments == forward + backward and len(forward) == len(backward)
    assert [m.stage for m in backward][:2] == ["loss", "scores"] and backward[-1].stage == "down 0 conv 1"
    maps = {r.stage.name: 4 * math.prod(r.shape) for r in seen.stages if r.stage.kind not in ("input", "crop")}
    winners = sum(math.prod(r.shape) for r in seen.stages if r.stage.kind == "pool")
    assert forward[-1].kept == sum(maps.values()) + winners + 4 and forward[-1].held == 0  # 4: the loss
    assert set(forward[-1].maps) >= set(maps)
    kept = [m.kept for m in backward]
    assert kept == sorted(kept, reverse=True) and kept[-1] == maps["scores"] + 4
    parameters = sum(p.data.nbytes for p in network.parameters())
    assert backward[-1].held == parameters and backward[-1].gradients == []
    assert seen.constant == parameters + seen.image.nbytes + seen.target.nbytes
    for m in backward[1:]:  # what was walked past has its weights' gradient, and its maps are gone
        assert m.stage in m.weights or m.stage.startswith(("pool", "crop"))
    merged = next(m for m in backward if m.stage == "merge 0 conv 1")
    assert {"up 0", "crop 0"} <= set(merged.gradients) and "merge 0 conv 1" not in merged.maps
    assert len(backward[-1].weights) == len([p for p in network.parameters() if p.ndim == 4])


def test_gradients_of_maps_are_those_of_the_engine() -> None:
    """Of the scores: softmax minus one-hot over the pixels that count; no gradient where the label is ignored."""
    _, _, label, seen = recorded("paper")
    scores = seen.scores.astype(np.float64)
    p = np.exp(scores) / np.exp(scores).sum(0)
    hot = np.stack([label == k for k in range(len(scores))])
    expected = (p - hot) * (label != IGNORE) / (label != IGNORE).sum()
    found = seen.stages[-1].gradients
    assert found is not None
    for key, value in {"sd": expected.std(), "max": expected.max(), "min": expected.min()}.items():
        assert found["statistics"][key] == pytest.approx(value, rel=1e-4)
    assert found["statistics"]["zeros"] == pytest.approx((label == IGNORE).mean())


def test_without_a_label_the_prediction_is_the_target() -> None:
    network = pages.network_of("paper")
    seen = record(network, pages.image_of(network, 44))
    assert not seen.labelled
    np.testing.assert_array_equal(seen.target, seen.scores.argmax(0))


# --------------------------------------------------------------------------------------------- looks


def test_statistics() -> None:
    maps = np.random.default_rng(0).normal(3, 2, (3, 5, 7)).astype(np.float32)
    maps[0, :2] = 0
    found = statistics(maps)
    assert found["mean"] == pytest.approx(maps.mean(), rel=1e-6) and found["sd"] == pytest.approx(maps.std(), rel=1e-6)
    assert (found["min"], found["max"]) == (maps.min(), maps.max())
    assert found["zeros"] == pytest.approx(14 / 105)


def test_dead_channels_are_listed_and_the_liveliest_shown() -> None:
    maps = np.random.default_rng(0).random((20, 6, 6), dtype=np.float32)
    maps[[3, 11]] = 0
    maps[7] *= 0.01
    found = look_at(maps, relu=True)
    assert found["dead"] == [3, 11] and found["dead_count"] == 2 and found["of"] == 20
    assert len(found["channels"]) == 12 and not {3, 7, 11} & set(found["channels"])
    assert "dead" not in look_at(maps, relu=False)


def test_greys_run_from_the_smallest_to_the_largest_value() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 9, 8)).astype(np.float32)
    found = sprite(maps, [0, 2], signed=False)
    picture = pixels_of(found["src"])
    for tile, number, (low, high) in zip(picture.reshape(2, 9, 8), (0, 2), found["ranges"], strict=True):
        np.testing.assert_allclose(low + tile / 255 * (high - low), maps[number], atol=(high - low) / 500)


def test_large_maps_are_shrunk_by_means() -> None:
    plane = np.zeros((1, 144, 288), np.float32)
    plane[0, :4, :4] = 1  # the mean of one pixel of the picture, at a quarter of the size
    found = sprite(plane, [0], signed=False)
    picture = pixels_of(found["src"])
    assert picture.shape == (36, 72) and picture[0, 0] == 255 and picture.sum() == 255


def test_zero_is_white_among_signed_values() -> None:
    maps = np.array([[[-1.0, 0.0, 1.0, 0.5]]], np.float32)
    found = sprite(maps, [0], signed=True)
    reach = found["ranges"][0][1]
    assert pixels_of(found["src"])[0, 1] == 127 and (SIGNED[127] == 255).all()
    assert pixels_of(found["src"])[0].tolist()[::2] == [0, 254] and 0.9 < reach <= 1


@pytest.mark.parametrize("transposed", [False, True])
def test_kernels_are_laid_out_filter_by_channel(transposed: bool) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3, 2, 2)).astype(np.float32)
    found = look_at_weights(weight.swapaxes(0, 1) if transposed else weight, np.ones(5, np.float32), transposed)
    assert found["shape"] == [5, 3, 2, 2] and found["count"] == 65 and sum(found["histogram"]["counts"]) == 60
    board = pixels_of(found["picture"]["src"]).astype(int)
    assert board.shape == (15, 9) and (board[2::3] == 255).all()
    kernel = board[3:5, 6:8]  # filter 1, channel 2
    np.testing.assert_allclose((kernel - 127) / 127 * found["picture"]["reach"], weight[1, 2], atol=0.02)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_packed(dtype: Any) -> None:
    values = np.random.default_rng(0).integers(0, 256, (2, 3, 4)).astype(dtype)
    np.testing.assert_array_equal(unpacked(packed(values.transpose(1, 2, 0))), values.transpose(1, 2, 0))
