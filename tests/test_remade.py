"""Values made again in the backward pass rather than kept, and gradients of crops without their zeros."""

import contextlib
import gc
import weakref

import numpy as np
import pytest

from minitorch_unet import Tensor, UNet, detect_anomaly, grad, manual_seed, optim, remade, unet
from minitorch_unet import functional as F
from minitorch_unet.backend import memory
from minitorch_unet.testing import gradcheck, gradgradcheck


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def pooled_then_convolved(x: Tensor, weight: Tensor) -> Tensor:
    with remade():
        pooled = F.max_pool2d(x, 2)
    return F.conv2d(pooled, weight)


def upsampled_twice(x: Tensor, up: Tensor, weight: Tensor) -> Tensor:
    """A chain of two results made again: the second recipe begins with the first."""
    with remade():
        y = F.relu(F.conv_transpose2d(x, up, stride=2) * 0.5)
    return F.conv2d_relu((y, y), weight, padding=1)


# ------------------------------------------------------------------------------------------------- Recipes


@pytest.mark.parametrize("on", [False, True])
def test_a_remade_result_is_not_kept(on: bool) -> None:
    x, weight = leaf(1, 2, 8, 8), leaf(3, 2, 3, 3, seed=1)
    with remade(on):
        pooled = F.max_pool2d(x, 2)
    y = F.conv2d(pooled, weight)
    kept = weakref.ref(pooled.data)
    del pooled
    assert (kept() is None) == on
    expected = grad(F.conv2d(F.max_pool2d(x, 2), weight).sum(), [x, weight])
    for found, other in zip(grad(y.sum(), [x, weight]), expected, strict=True):
        assert np.array_equal(found.data, other.data)


def test_gradients_and_their_gradients_with_values_made_again() -> None:
    x, weight = leaf(1, 2, 6, 6), leaf(2, 2, 2, 2, seed=1)
    gradcheck(pooled_then_convolved, (x, weight))
    gradgradcheck(pooled_then_convolved, (x, weight))
    small, up, merged = leaf(1, 2, 2, 2), leaf(2, 2, 2, 2, seed=2), leaf(2, 4, 3, 3, seed=3)
    gradcheck(upsampled_twice, (small, up, merged))
    gradgradcheck(upsampled_twice, (small, up, merged))


def test_a_graph_that_is_kept_can_be_walked_again() -> None:
    x, weight = leaf(1, 2, 8, 8), leaf(3, 2, 3, 3, seed=1)
    loss = (pooled_then_convolved(x, weight) ** 2).sum()
    first = grad(loss, [x, weight], retain_graph=True)
    second = grad(loss, [x, weight])
    assert all(np.array_equal(a.data, b.data) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("change_weight", [False, True])
def test_a_change_in_place_of_what_a_value_would_be_made_from_is_noticed(change_weight: bool) -> None:
    """Changed in between, the recipe would make another value than was used."""
    x, up, weight = leaf(1, 2, 4, 4), leaf(2, 2, 2, 2, seed=1), leaf(3, 2, 3, 3, seed=2)
    with remade():
        y = F.conv_transpose2d(x, up, stride=2)
    out = F.conv2d(y, weight)
    (up if change_weight else x)._version[0] += 1  # what every change in place does
    with pytest.raises(ValueError, match="was changed in place after it was used"):
        out.sum().backward()


def test_a_map_whose_pooling_is_made_again_must_not_change() -> None:
    x = leaf(1, 1, 4, 4)
    with remade():
        y = F.max_pool2d(x, 2)
    x._version[0] += 1
    with pytest.raises(ValueError, match="kept by 'max_pool2d' was changed in place"):
        y.sum().backward()


# ------------------------------------------------------------------------------------------- the whole network


def step(size: int = 188, recompute: bool = False, **config) -> list[np.ndarray]:
    """The loss and all parameters after two steps."""
    manual_seed(3)
    network = UNet(base=8, recompute=recompute, **config)
    rng = np.random.default_rng(4)
    optimizer = optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        image = Tensor(rng.standard_normal((1, 1, size, size), dtype=np.float32))
        scores = network(image)
        loss = F.cross_entropy(scores, rng.integers(0, 2, (1, *scores.shape[2:])))
        optimizer.backward_and_step(loss)
    return [loss.data, *(p.data for p in network.parameters())]


@pytest.mark.parametrize(
    "config", [{}, {"padding": "same", "up": "nearest"}, {"up_relu": True, "up_first": True}, {"norm": "group"}]
)
def test_no_bit_depends_on_what_is_made_again(config, monkeypatch) -> None:
    size = 64 if config.get("padding") == "same" else 188
    results = [step(size, recompute, **config) for recompute in (False, True)]
    monkeypatch.setattr(unet, "REMADE", {False: ((), (), ()), True: (range(9), range(9), range(9))})
    monkeypatch.setattr(unet, "remade", lambda on=True: contextlib.nullcontext())
    results += [step(size, recompute, **config) for recompute in (False, True)]
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_step_leaves_nothing_behind(monkeypatch) -> None:
    """Without the garbage collector: what dies in a cycle of references would live on into the next steps."""
    monkeypatch.setattr(memory, "LARGE", 1 << 12)
    gc.collect()
    alive: dict[int, int] = {}

    def watch(number: int, change: int) -> None:
        if change > 0:
            alive[number] = change
        else:
            alive.pop(number, None)

    gc.disable()
    try:
        with memory.watched(watch):
            step()
        assert not alive
    finally:
        gc.enable()


# ------------------------------------------------------------------------------------------------- crops


def uses_of_a_map(x: Tensor) -> list[Tensor]:
    return [F.crop(x, (4, 4)), x * 2.0, F.crop(x, (2, 2)), F.conv2d(x, Tensor(np.ones((1, 2, 3, 3))))]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2), (3, 0, 2, 1), (0, 2), (0,), (2, 3), (3, 1, 0)])
@pytest.mark.parametrize("inner", [False, True])
def test_gradients_of_crops_add_up_in_any_order(order, inner: bool) -> None:
    """Oracle: the sum of each use's own gradient, padded by NumPy."""
    x = leaf(1, 2, 8, 8)
    source = x * 1.0 if inner else x
    uses = uses_of_a_map(source)
    weights = [np.random.default_rng(i).standard_normal(use.shape) for i, use in enumerate(uses)]
    total = sum((uses[i] * Tensor(weights[i])).sum() for i in order)
    (found,) = grad(total, x)
    taps = np.zeros((8, 8))
    for i, j in np.ndindex(3, 3):
        taps[i : i + 6, j : j + 6] += weights[3][0, 0]
    parts = [np.pad(weights[0][0], ((0, 0), (2, 2), (2, 2))), 2 * weights[1][0],
             np.pad(weights[2][0], ((0, 0), (3, 3), (3, 3))), np.broadcast_to(taps, (2, 8, 8))]  # fmt: skip
    np.testing.assert_allclose(found.data[0], sum(parts[i] for i in order), atol=1e-12)


def test_a_crops_gradient_is_whole_for_hooks_and_for_who_asks_for_it() -> None:
    x = leaf(1, 1, 4, 4)
    y = x * 1.0
    seen = []
    y.register_hook(lambda g: seen.append(g.data.copy()))
    (gy,) = grad(F.crop(y, (2, 2)).sum(), y)
    expected = np.pad(np.ones((2, 2)), 1)
    assert np.array_equal(gy.data[0, 0], expected) and np.array_equal(seen[0][0, 0], expected)


def test_crops_in_anomaly_mode() -> None:
    x = leaf(1, 1, 4, 4)
    with detect_anomaly():
        F.crop(x * 1.0, (2, 2)).sum().backward()
    assert x.grad is not None
    assert np.array_equal(x.grad.data[0, 0], np.pad(np.ones((2, 2)), 1))


def test_a_gradient_that_the_caller_holds_is_not_added_to() -> None:
    """The same start array is given for two outputs; the crop's gradient must go into a sum of its own."""
    x = leaf(1, 1, 4, 4)
    y = x * 1.0
    start = np.ones((1, 1, 4, 4))
    grad([y, F.crop(y, (2, 2))], x, [start, np.full((1, 1, 2, 2), 5.0)])
    assert np.array_equal(start, np.ones((1, 1, 4, 4)))
