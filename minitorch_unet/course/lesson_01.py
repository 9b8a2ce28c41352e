"""Gradients by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

from . import Exercise, expect


def _check_neuron(answer: Any) -> None:
    rng = np.random.default_rng(1)
    for case in range(20):
        x, w, b, t = rng.uniform(-3, 3, 4)
        tensors = [mt.Tensor(np.array(v), requires_grad=True) for v in (x, w, b)]
        y = F.relu(tensors[1] * tensors[0] + tensors[2])
        ((y - t) ** 2).backward()
        z = w * x + b
        hint = f"Here z = {z:.3g}, y = {y.item():.3g}, t = {t:.3g}: " + (
            "dL/dy is 2 (y - t), and relu passes it on." if z > 0 else "z is below 0, so relu passes nothing on."
        )
        wanted = [v.grad.item() for v in tensors if v.grad is not None]
        expect(answer(x, w, b, t), wanted, f"(dL/dx, dL/dw, dL/db) in case {case}", hint)


def _check_sigmoid(answer: Any) -> None:
    rng = np.random.default_rng(2)
    z = mt.Tensor(rng.standard_normal((2, 3)), requires_grad=True)
    gy = rng.standard_normal((2, 3))
    y = F.sigmoid(z)
    y.backward(mt.Tensor(gy))
    found = answer(y.detach().numpy().copy(), gy.copy())
    assert z.grad is not None
    expect(found, z.grad, "the gradient", "The local derivative is y (1 - y); the chain rule multiplies it by gy.")


def _check_reused(answer: Any) -> None:
    for x, y in ((3.0, 2.0), (-1.5, 4.0), (0.25, -2.0)):
        hint = f"At x = {x:g}, y = {y:g} one route to x has the slope {x + y:g}, the other {x:g}: routes add up."
        expect(answer(x, y), (2 * x + y, x), "(df/dx, df/dy)", hint)


def _check_change(answer: Any) -> None:
    expect(answer, 0.24, "predicted_change", "The lesson found dL/dw = 24 at w = 2; the step is 0.01.", tell=False)


EXERCISES = [
    Exercise(
        name="neuron_gradients",
        question="""neuron_gradients(x, w, b, t): for numbers, the gradients of L = (relu(w x + b) - t)^2 with
respect to x, w and b, as a tuple. Write the forward steps first, then walk back. Do not use the engine.""",
        start="""
def neuron_gradients(x, w, b, t):
    z = w * x + b
    ...
""",
        solution="""
def neuron_gradients(x, w, b, t):
    z = w * x + b
    y = max(z, 0.0)
    gy = 2 * (y - t)
    gz = gy if z > 0 else 0.0
    return gz * w, gz * x, gz
""",
        wrong=[
            """
def neuron_gradients(x, w, b, t):  # the relu is forgotten
    g = 2 * (w * x + b - t)
    return g * w, g * x, g
""",
            """
def neuron_gradients(x, w, b, t):  # x and w exchanged
    z = w * x + b
    gz = 2 * (z - t) if z > 0 else 0.0
    return gz * x, gz * w, gz
""",
            """
def neuron_gradients(x, w, b, t):  # nothing returned
    z = w * x + b
""",
        ],
        check=_check_neuron,
    ),
    Exercise(
        name="sigmoid_backward",
        question="""sigmoid_backward(y, gy): y = 1 / (1 + e^-z) is the result of a sigmoid, gy the gradient of
a loss with respect to y, both arrays of one shape. Return the gradient with respect to z, computed from y
alone (z is gone).""",
        start="""
def sigmoid_backward(y, gy):
    ...
""",
        solution="""
def sigmoid_backward(y, gy):
    return gy * y * (1 - y)
""",
        wrong=[
            "def sigmoid_backward(y, gy):\n    return y * (1 - y)\n",
            "def sigmoid_backward(y, gy):\n    s = 1 / (1 + np.exp(-y))\n    return gy * s * (1 - s)\n",
        ],
        check=_check_sigmoid,
    ),
    Exercise(
        name="reused_gradients",
        question="""reused_gradients(x, y): the gradients (df/dx, df/dy) of f = (x + y) x at the numbers x and
y. x is used twice.""",
        start="""
def reused_gradients(x, y):
    ...
""",
        solution="""
def reused_gradients(x, y):
    s = x + y
    gs = x  # f = s x
    return gs + s, gs
""",
        wrong=[
            "def reused_gradients(x, y):\n    return x, x\n",
            "def reused_gradients(x, y):\n    return x + y, x\n",
        ],
        check=_check_reused,
    ),
    Exercise(
        name="predicted_change",
        question="""predicted_change: by how much does the lesson's loss change, as its gradient predicts,
when w goes from 2 to 2.01? A number. (The lesson's last cell says how good the prediction is.)""",
        start="predicted_change = ...\n",
        solution="predicted_change = 24 * 0.01\n",
        wrong=["predicted_change = -0.24\n", "predicted_change = 24\n", "predicted_change = 'a little'\n"],
        check=_check_change,
    ),
]
