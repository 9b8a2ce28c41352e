"""The norms of gradients that a training step notes: right, per layer, and without any trace in what is computed."""

import math

import numpy as np
import pytest
from on_device import Tensor
from small_runs import TRAINING, one_thread, patterns, tiny

from minitorch_unet import amp, nn
from minitorch_unet import functional as F
from minitorch_unet.batches import TileMaker
from minitorch_unet.gradients import GradientNorms
from minitorch_unet.runs import start
from minitorch_unet.steps import train_step

__all__ = ["one_thread"]


class Net(nn.Module):
    """Two layers, one of them without a bias, and a parameter of its own."""

    def __init__(self) -> None:
        self.first = nn.Conv2d(1, 3, 3)
        self.second = nn.Conv2d(3, 2, 1, bias=False)
        self.shift = nn.Parameter(np.zeros((1, 2, 1, 1), np.float32))

    def forward(self, x):
        return self.second(F.relu(self.first(x))) + self.shift


def test_norms_are_those_of_the_gradients_on_every_device(device) -> None:
    F.manual_seed(0)
    network = Net().to(device)
    x = Tensor(np.random.default_rng(0).standard_normal((2, 1, 8, 8), dtype=np.float32))
    with GradientNorms(network) as norms:
        norms.watching = True
        (network(x) ** 2).sum().backward()
        found = norms.read()
    grads = {name: p.grad.numpy().astype(np.float64) for name, p in network.named_parameters()}
    expected = {
        "first": math.hypot(*(np.linalg.norm(grads[f"first.{name}"]) for name in ("weight", "bias"))),
        "second": np.linalg.norm(grads["second.weight"]),
        "shift": np.linalg.norm(grads["shift"]),
    }
    assert found == pytest.approx(expected, rel=1e-3)
    assert list(found) == ["shift", "first", "second"]


def test_nothing_is_noted_while_not_watching_nor_after_the_end() -> None:
    network = Net()
    x = Tensor(np.ones((1, 1, 4, 4), np.float32))
    with GradientNorms(network) as norms:
        network(x).sum().backward()
        assert norms.read() == {}
    norms.watching = True
    network(x).sum().backward()
    assert norms.read() == {} and not any(p._hooks for p in network.parameters())


def test_what_is_not_finite_is_none() -> None:
    network = Net()
    with GradientNorms(network) as norms, np.errstate(all="ignore"):
        norms.watching = True
        network.second.weight.data[...] = np.inf
        network(Tensor(np.ones((1, 1, 4, 4), np.float32))).sum().backward()
        found = norms.read()
    assert found["first"] is None and found["shift"] is not None


def test_the_scale_of_a_loss_is_taken_off() -> None:
    network, scaler = Net(), amp.GradScaler(init_scale=1024.0)
    x = Tensor(np.ones((1, 1, 5, 5), np.float32))
    with GradientNorms(network) as norms:
        norms.watching = True
        network(x).sum().backward()
        plain = norms.read()
    with GradientNorms(network, scaler) as norms:
        norms.watching = True
        scaler.scale(network(x).sum()).backward()
        assert norms.read() == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("changed", [{}, {"clip": 0.01}, {"optimizer": "adam", "dropout": 0.3}])
def test_a_watched_run_computes_the_same_bits(changed) -> None:
    config, dataset = tiny(**changed), patterns(TRAINING)
    tiles = TileMaker(config, start(config, dataset, {}).network, dataset)

    def weights(watching: bool) -> dict[str, np.ndarray]:
        run = start(config, dataset, {})
        with GradientNorms(run.network) as norms:
            norms.watching = watching
            for step in range(4):
                run.step = step
                train_step(run, *tiles.batch(step), 0.05)
                assert bool(norms.read()) == watching
        return run.network.state_dict()

    plain, watched = weights(False), weights(True)
    assert all(np.array_equal(plain[name], watched[name]) for name in plain)


def test_norms_are_those_before_clipping() -> None:
    dataset = patterns(TRAINING)
    found = []
    for clip in (0.0, 1e-4):
        run = start(tiny(clip=clip), dataset, {})
        with GradientNorms(run.network) as norms:
            norms.watching = True
            train_step(run, *TileMaker(run.config, run.network, dataset).batch(0), 0.1)
            found.append(norms.read())
    assert found[0] == found[1] and max(found[0].values()) > 1e-3
