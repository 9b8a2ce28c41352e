"""16-bit maps beside float32 weights: every routine, `autocast`, and training a small U-Net with it."""

from typing import Any

import numpy as np
import pytest

from minitorch_unet import Tensor, UNet, amp, autocast, optim, set_float32_matmul_precision
from minitorch_unet import functional as F
from minitorch_unet.backend import Kernels, autocast_dtype, kernels_of, named_dtype

SHORT = ("float16", "bfloat16")
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit in the last place of 1
KERNELS = [Kernels(np), kernels_of(np)]


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.standard_normal(shape).astype(named_dtype(dtype))


def close(found: np.ndarray, exact: np.ndarray, dtype: str, factor: float = 1.01) -> None:
    """Equal up to one rounding to `dtype` of every value, and a little of float32's own."""
    error = np.abs(found.astype(np.float64) - exact)
    assert (error <= factor * UNIT[dtype] * np.abs(exact) + 1e-5).all(), error.max()


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("kernels", KERNELS)
def test_convolution_rounds_once(kernels: Kernels, dtype: str) -> None:
    """The result is that of float64 on the rounded operands, rounded to the maps' type; gradients of weights not."""
    rng = np.random.default_rng(0)
    exact = Kernels(np)
    how = ((1, 1), (1, 0), (1, 1), 1)
    x, w, b = draw(rng, (2, 5, 9, 8), dtype), draw(rng, (7, 5, 3, 3), "float32"), draw(rng, (7,), "float32")
    y = kernels.conv2d(x, w, b, *how, relu=True)
    x64, w64 = x.astype(np.float64), w.astype(x.dtype).astype(np.float64)
    assert y.dtype == x.dtype
    close(y, exact.conv2d(x64, w64, b.astype(np.float64), *how, relu=True), dtype)
    gy = draw(rng, y.shape, dtype)
    gx = kernels.conv2d_input_grad(gy, w, x.shape[2:], *how, mask=x)
    assert gx.dtype == x.dtype
    close(gx, exact.conv2d_input_grad(gy.astype(np.float64), w64, x.shape[2:], *how, mask=x64), dtype)
    gw = kernels.conv2d_weight_grad((x,), gy, (3, 3), *how)
    assert gw.dtype == np.float32
    exact_gw = exact.conv2d_weight_grad(x64, gy.astype(np.float64), (3, 3), *how)
    np.testing.assert_allclose(gw, exact_gw, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", SHORT)
def test_sums_and_normalisation_are_kept_wide(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x = draw(rng, (2, 3, 40, 40), dtype)
    sums = kernels_of(np).channel_sums(x)
    assert sums.dtype == np.float32
    np.testing.assert_allclose(sums, x.astype(np.float64).sum((0, 2, 3)), rtol=1e-6, atol=1e-5)
    weight, bias = (Tensor(draw(rng, (3,), "float32"), requires_grad=True) for _ in range(2))
    for norm in (
        lambda t: F.batch_norm(t, None, None, weight, bias, training=True),
        lambda t: F.group_norm(t, 3, weight, bias),
        lambda t: F.instance_norm(t, weight, bias),
    ):
        y = norm(Tensor(x))
        assert y.dtype == x.dtype
        close(y.detach().numpy(), norm(Tensor(x.astype(np.float64))).detach().numpy(), dtype)


@pytest.mark.parametrize("dtype", SHORT)
def test_losses_compute_in_float32(dtype: str) -> None:
    rng = np.random.default_rng(2)
    scores, target = draw(rng, (2, 3, 5, 5), dtype), rng.integers(0, 3, (2, 5, 5))
    for loss in (F.cross_entropy, F.dice_loss, F.focal_loss, F.tversky_loss):
        given = Tensor(scores, requires_grad=True)
        value = loss(given, target)
        assert value.dtype == np.float32
        assert value.item() == loss(Tensor(scores.astype(np.float32)), target).item()
        value.backward()
        assert given.grad is not None and given.grad.dtype == scores.dtype


@pytest.mark.parametrize("dtype", SHORT)
def test_autocast_turns_maps_into_16_bits_and_leaves_weights(dtype: str) -> None:
    network = UNet(base=2, depth=1)
    x = Tensor(np.random.default_rng(3).standard_normal((1, 1, 20, 20), dtype=np.float32))
    plain = network(x)
    with autocast(dtype):
        assert autocast_dtype() == named_dtype(dtype)
        scores = network(x)
        with autocast(enabled=False):
            assert network(x).dtype == np.float32
    assert autocast_dtype() is None
    assert scores.dtype == named_dtype(dtype) and plain.dtype == np.float32
    F.cross_entropy(scores, np.zeros((1, 4, 4), int)).backward()
    assert all(p.dtype == np.float32 and p.grad is not None and p.grad.dtype == np.float32
               for p in network.parameters())  # fmt: skip
    found = scores.detach().numpy().astype(np.float32)
    np.testing.assert_allclose(found, plain.detach().numpy(), atol=60 * UNIT[dtype])


@pytest.mark.parametrize("dtype", SHORT)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_training_with_autocast_follows_float32(dtype: str, norm: str) -> None:
    """Twenty steps end near those of float32: within a few roundings of the maps, and far from where they began."""
    rng = np.random.default_rng(4)
    image = rng.standard_normal((1, 1, 20, 20), dtype=np.float32)
    target = (image[:, 0, 8:12, 8:12] > 0).astype(int)
    losses: dict[Any, list[float]] = {}
    for kind in (None, dtype):
        F.manual_seed(0)
        network = UNet(base=4, depth=1, norm=norm)
        optimizer = optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
        losses[kind] = []
        for _ in range(20):
            with autocast(kind or "float16", enabled=kind is not None):
                loss = F.cross_entropy(network(Tensor(image)), target)
            optimizer.backward_and_step(loss)
            losses[kind].append(loss.item())
    assert losses[dtype][-1] < 0.5 * losses[dtype][0]
    assert abs(losses[dtype][0] - losses[None][0]) < 40 * UNIT[dtype]
    assert max(abs(a - b) for a, b in zip(losses[dtype], losses[None], strict=True)) < 60 * UNIT[dtype]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"autocast: dtype is 'float32'; legal are 'float16', 'bfloat16'"), \
            autocast("float32"):  # fmt: skip
        pass
    with pytest.raises(ValueError, match=r"precision is 'medium'; legal are 'highest', 'high'"):
        set_float32_matmul_precision("medium")
    x = Tensor(np.zeros((1, 1, 3, 3), np.float16))
    with pytest.raises(TypeError, match="must be equal"):
        F.conv2d(x, Tensor(np.zeros((1, 1, 3, 3), np.float64)))


def gradients_of_ones(scale: float, scaler: amp.GradScaler) -> tuple[Tensor, optim.SGD]:
    p = Tensor(np.ones(3, np.float32), requires_grad=True)
    scaler.scale((p * Tensor(np.full(3, scale, np.float32))).sum()).backward()
    return p, optim.SGD([p], lr=0.5)


def test_grad_scaler_steps_as_without_it() -> None:
    scaler = amp.GradScaler(init_scale=1024, growth_interval=2)
    p, optimizer = gradients_of_ones(0.5, scaler)
    assert p.grad is not None and p.grad.data[0] == 512
    assert scaler.step(optimizer)
    scaler.update()
    np.testing.assert_array_equal(p.data, np.full(3, 0.75, np.float32))
    assert scaler.get_scale() == 1024
    _, optimizer = gradients_of_ones(0.5, scaler)
    scaler.unscale_(optimizer)
    with pytest.raises(ValueError, match="already"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2048  # two good steps


def test_grad_scaler_leaves_out_a_step_that_overflows() -> None:
    scaler = amp.GradScaler(init_scale=1024)
    p, optimizer = gradients_of_ones(np.inf, scaler)
    assert not scaler.step(optimizer)
    scaler.update()
    np.testing.assert_array_equal(p.data, np.ones(3, np.float32))
    again = amp.GradScaler()
    again.load_state_dict(scaler.state_dict())
    assert again.get_scale() == 512
    with pytest.raises(ValueError, match="init_scale is 0"):
        amp.GradScaler(init_scale=0)
    with pytest.raises(ValueError, match="growth_factor is 1"):
        amp.GradScaler(growth_factor=1)


def test_float16_loses_small_gradients_without_scaling() -> None:
    """The case that loss scaling exists for: a gradient of 1e-8 is nothing in float16, and survives scaled."""
    x = Tensor(np.full((1, 1, 1, 1), 1.0, np.float32))
    found = {}
    for scale in (1.0, 65536.0):
        w = Tensor(np.full((1, 1, 1, 1), 1.0, np.float32), requires_grad=True)
        with autocast("float16"):
            y = F.conv2d(F.conv2d(x, w), Tensor(np.full((1, 1, 1, 1), 1e-4, np.float32)))
        (y.to(np.float32).sum() * (1e-4 * scale)).backward()
        assert w.grad is not None
        found[scale] = w.grad.item() / scale
    assert found[1.0] == 0
    assert found[65536.0] == pytest.approx(1e-8, rel=2e-3)
