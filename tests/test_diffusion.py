"""The formulae of the lesson on diffusion, with ideal guesses in the network's place: no training, known results."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

LESSON = Path(__file__).resolve().parents[1] / "examples" / "course" / "15_diffusion.py"


@pytest.fixture(scope="module")
def diffusion() -> dict[str, Any]:
    """The lesson's imports, schedule, functions and classes, without the training and the figures."""
    pytest.importorskip("matplotlib")
    constants = {"SIZE", "alpha_bar", "signal", "SPEEDS", "fonts", "rng"}
    tree = ast.parse(LESSON.read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Assign) and constants & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)
                                                          and isinstance(n.ctx, ast.Store)})
    ]  # fmt: skip
    names: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), str(LESSON), "exec"), names)
    return names


def ideal(diffusion: dict[str, Any], pictures: np.ndarray) -> Any:
    """The best guess of x0 from x_t if x0 is one of these pictures: their mean, weighted by Bayes' rule."""

    def guess(x: np.ndarray, t: int) -> np.ndarray:
        signal, variance = float(diffusion["signal"][t].item()), 1 - float(diffusion["alpha_bar"][t])
        distance = ((x[:, None] - signal * pictures) ** 2).sum((2, 3, 4))
        weights = np.exp(-(distance - distance.min(1, keepdims=True)) / (2 * variance))
        return np.einsum("nk,kchw->nchw", weights / weights.sum(1, keepdims=True), pictures)

    return guess


def test_schedule(diffusion: dict[str, Any]) -> None:
    alpha_bar, signal, sigma = (diffusion[name] for name in ("alpha_bar", "signal", "sigma"))
    assert alpha_bar[0] == 1 and sigma[0] == 0 and np.all(np.diff(alpha_bar) < 0)
    assert alpha_bar[-1] < 1e-12
    np.testing.assert_allclose(signal**2 + sigma**2, 1, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 20, 200])
def test_one_picture_is_recovered_whole(diffusion: dict[str, Any], steps: int) -> None:
    """The guess is always the picture; then the noise implied is the one begun with, all the way."""
    rng = np.random.default_rng(0)
    picture = diffusion["drawn"](7)[None]
    start = rng.standard_normal((3, *picture.shape[1:]), dtype=np.float32)
    xs, guesses = diffusion["sample"](ideal(diffusion, picture), start, steps)
    assert len(xs) == steps + 1 and len(guesses) == steps
    np.testing.assert_allclose(xs[-1], np.repeat(picture, 3, 0), atol=1e-5)
    times = np.linspace(200, 0, steps + 1).round().astype(int)
    for x, t in zip(xs, times, strict=True):
        np.testing.assert_allclose(x, diffusion["signal"][t] * picture + diffusion["sigma"][t] * start, atol=2e-4)


def test_ideal_guesses_lead_to_the_pictures_and_to_each_about_as_often(diffusion: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    pictures = np.stack([diffusion["drawn"](digit) for digit in (1, 4, 8)])
    start = rng.standard_normal((300, *pictures.shape[1:]), dtype=np.float32)
    xs, _ = diffusion["sample"](ideal(diffusion, pictures), start, 100)
    distance = np.abs(xs[-1][:, None] - pictures).max((2, 3, 4))
    assert distance.min(1).max() < 1e-3
    counts = np.bincount(distance.argmin(1), minlength=3)
    assert counts.min() > 60, counts  # 100 each on average, with a standard deviation of 8


def test_network_is_told_time_and_digit(diffusion: dict[str, Any]) -> None:
    network = diffusion["Denoiser"]()
    x = np.random.default_rng(2).standard_normal((2, 1, 16, 16), dtype=np.float32)
    twice = np.repeat(x[:1], 2, 0)
    assert network(x, np.array([3, 9]), np.array([1, 2])).shape == (2, 1, 16, 16)
    for t, digits in (([3, 9], [1, 1]), ([3, 3], [1, 2])):
        y = network(twice, np.array(t), np.array(digits)).detach().numpy()
        assert np.abs(y[0] - y[1]).max() > 1e-3
    y = network(twice, np.array([3, 3]), np.array([1, 1])).detach().numpy()
    np.testing.assert_allclose(y[0], y[1], atol=1e-6)
