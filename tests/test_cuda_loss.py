"""The CUDA loss: extreme scores, and errors that are told later because nobody waits for the device.

Symbols: N batch, K classes, H W rows columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_kernel_cases import DEVICE, fresh_kernels

from minitorch_unet import Tensor, grad, optim
from minitorch_unet import functional as F
from minitorch_unet.backend import devices, simulator_unavailable_reason, to_device
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.reference import Kernels

pytestmark = pytest.mark.skipif(
    DEVICE == "simulate" and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)


@pytest.fixture
def kernels() -> Iterator[CudaKernels]:
    """The kernels that serve Tensors on the device, new ones: what went wrong in other tests is not theirs."""
    with fresh_kernels() as kernels:
        yield kernels


def on_device(values: Any, requires_grad: bool = False) -> Tensor:
    return Tensor(values, requires_grad, device=DEVICE)


def example(shape: tuple[int, ...] = (2, 3, 5, 6)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    return rng.standard_normal(shape, dtype=np.float32), labels


# ----------------------------------------------------------------------- values


@pytest.mark.parametrize("classes", [2, 3])
def test_extreme_scores(kernels: CudaKernels, classes: int) -> None:
    """Scores of a million: the loss is their difference, nothing overflows, and a sure pixel costs exactly nothing."""
    scores = np.zeros((1, classes, 1, 4), np.float32)
    scores[0, 0, 0] = [1e6, -1e6, 30, 1e6]
    scores[0, 1, 0, 3] = 1e6
    labels = np.array([[[1, 0, 0, 0]]])
    x = on_device(scores, requires_grad=True)
    loss = F.cross_entropy(x, to_device(labels, DEVICE), reduction="sum")
    small = np.log1p((classes - 1) * np.exp(-30.0))
    assert loss.item() == pytest.approx(2e6 + small + np.log(2), rel=1e-6)
    (g,) = grad(loss, x)
    p = np.exp(-30.0) / (1 + (classes - 1) * np.exp(-30.0))
    assert g.numpy()[0, 1, 0] == pytest.approx([-1, 1 if classes == 2 else 0.5, p, 0.5], rel=1e-5)
    sure = F.cross_entropy(x[:, :, :, 2:3], to_device(labels[:, :, 2:3], DEVICE))
    assert sure.item() == pytest.approx(small, rel=1e-5)  # 1e-13, and not the 0 that 1 - p rounds to


def test_infinite_scores_do_not_matter_where_the_weight_is_0(kernels: CudaKernels) -> None:
    scores, labels = example()
    scores[0, 1, 2, 3], labels[0, 2, 3] = np.nan, 255
    scores[1, :, 0, 0], labels[1, 0, 0] = np.inf, 1
    weights = np.ones(labels.shape, np.float32)
    weights[1, 0, 0] = 0
    x = on_device(scores, requires_grad=True)
    loss = F.cross_entropy(x, to_device(labels, DEVICE), ignore_index=255, pixel_weight=to_device(weights, DEVICE))
    (g,) = grad(loss, x)
    assert np.isfinite(loss.item()) and np.isfinite(g.numpy()).all()
    assert not g.numpy()[0, :, 2, 3].any() and not g.numpy()[1, :, 0, 0].any()


def test_nan_scores_show(kernels: CudaKernels) -> None:
    for place in range(3):
        scores, labels = example()
        scores[0, place, 2, 3] = np.nan
        assert np.isnan(F.cross_entropy(on_device(scores), to_device(labels, DEVICE)).item())


def test_more_pixels_than_blocks_have_threads(kernels: CudaKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    from minitorch_unet.backend.cuda import loss

    monkeypatch.setattr(loss, "BLOCKS", 2)
    scores, labels = example((2, 2, 30, 31))
    right = F.cross_entropy(Tensor(scores), labels).item()
    assert F.cross_entropy(on_device(scores), to_device(labels, DEVICE)).item() == pytest.approx(right, rel=1e-6)


def test_the_gradient_is_the_references(kernels: CudaKernels) -> None:
    scores, labels = example()
    weight = np.array([0.5, 2, 1], np.float32)
    found = []
    for device in ("cpu", DEVICE):
        x = Tensor(scores, requires_grad=True, device=device)
        w = to_device(weight, device)
        loss = F.cross_entropy(x, to_device(labels, device), weight=w, ignore_index=1)
        (g,) = grad(3 * loss, x)
        found.append((loss.item(), g.numpy()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    np.testing.assert_allclose(found[1][1], found[0][1], atol=1e-8)


def test_second_derivatives_go_through_the_scores(kernels: CudaKernels) -> None:
    scores, labels = example((1, 3, 2, 2))
    found = []
    for device in ("cpu", DEVICE):
        x = Tensor(scores, requires_grad=True, device=device)
        (g,) = grad(F.cross_entropy(x, to_device(labels, device)), x, create_graph=True)
        (second,) = grad((g * g).sum(), x)
        found.append(second.numpy())
    np.testing.assert_allclose(found[1], found[0], atol=1e-7)
    assert abs(found[0]).max() > 1e-3


# ----------------------------------------------------------------------- errors


def test_illegal_labels_are_raised_when_a_value_is_read(kernels: CudaKernels) -> None:
    scores, labels = example()
    labels[0, 1, 2], labels[1, 4, 5] = 7, -1
    x = on_device(scores, requires_grad=True)
    loss = F.cross_entropy(x, to_device(labels, DEVICE))
    (g,) = grad(loss, x)
    with pytest.raises(ValueError, match=r"cross_entropy: target: index holds values -1\.\.7; legal are 0\.\.2"):
        loss.item()
    assert np.isfinite(loss.item())  # told once; those pixels counted nothing
    assert not g.numpy()[0, :, 1, 2].any() and not g.numpy()[1, :, 4, 5].any()


@pytest.mark.parametrize("kind", ["u1", "i4", "i8"])
@pytest.mark.parametrize("look", [float, bool, lambda x: x.detach().numpy(), lambda x: kernels_of_device().check()])
def test_every_way_to_look_tells(kernels: CudaKernels, kind: str, look: Any) -> None:
    scores, labels = example()
    labels[1, 0, 0] = 200 if kind == "u1" else 2**20
    loss = F.cross_entropy(on_device(scores), to_device(labels.astype(kind), DEVICE))
    with pytest.raises(ValueError, match="cross_entropy: target: index holds values"):
        look(loss)


def kernels_of_device() -> Kernels:
    return devices.kernels_of(devices.library(DEVICE))


def test_a_mean_over_nothing_is_raised_when_it_is_read(kernels: CudaKernels) -> None:
    scores, labels = example()
    x = on_device(scores, requires_grad=True)
    nothing = to_device(np.full_like(labels, 255), DEVICE)
    loss = F.cross_entropy(x, nothing, ignore_index=255)
    (g,) = grad(loss, x)
    with pytest.raises(ValueError, match="cross_entropy: no pixel counts"):
        loss.item()
    assert np.isnan(loss.item()) and not g.numpy().any()
    assert F.cross_entropy(x, nothing, ignore_index=255, reduction="sum").item() == 0


@pytest.mark.skipif(DEVICE != "simulate", reason="what makes the host wait is counted by the simulator only")
def test_a_step_never_waits_for_the_device(kernels: CudaKernels) -> None:
    scores, labels = example()
    x = on_device(scores, requires_grad=True)
    y = to_device(labels, DEVICE)
    optimizer = optim.SGD([x], lr=0.1, momentum=0.9)
    optimizer.backward_and_step(F.cross_entropy(x, y))  # makes what is made once
    with kernels.xp.counting() as seen:
        loss = F.cross_entropy(x, y, weight=kernels.xp.ones(3, np.float32))
        optimizer.backward_and_step(loss)
    assert not seen.syncs and not seen.uploads and not seen.downloads
    assert sorted(seen.raw_launches) == sorted(
        ["softmax_cross_entropy", "finish_cross_entropy", "scale_gradient", "count_step", "sgd"]
    )
    assert loss.item() > 0
