"""The CPU ladder: one convolution, seven speeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Exercise, WrongAnswer, expect


def _check_im2col(answer: Any) -> None:
    rng = np.random.default_rng(12)
    for c, h, w, r, s in ((1, 4, 5, 3, 3), (3, 6, 5, 3, 2)):
        x = rng.standard_normal((c, h, w))
        wanted = np.array([x[:, p : p + r, q : q + s].ravel() for p in range(h - r + 1) for q in range(w - s + 1)])
        hint = "Row 0 is x[:, :r, :s].ravel(); row 1 is one pixel further to the right."
        expect(answer(x.copy(), r, s), wanted, f"im2col of {x.shape} for {r} x {s}", hint)


def _check_savings(answer: Any) -> None:
    for m, r in ((2, 3), (4, 3), (6, 3), (3, 4), (1, 3)):
        needed, plain = (m + r - 1) ** 2, m * m * r * r
        hint = f"A tile has {m * m} results of {r * r} products each, {plain} in all; its input has {needed} pixels."
        expect(answer(m, r), plain / needed, f"savings({m}, {r})", hint)


class _Counted:
    """A number that counts products of two such numbers in `products`; what is done with plain numbers is free."""

    def __init__(self, value: float, products: list[int]) -> None:
        self.value, self.products = value, products

    def _new(self, value: float) -> _Counted:
        return _Counted(value, self.products)

    def __mul__(self, other: Any) -> _Counted:
        self.products[0] += isinstance(other, _Counted)
        return self._new(self.value * _value(other))

    __rmul__ = __mul__

    def __add__(self, other: Any) -> _Counted:
        return self._new(self.value + _value(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> _Counted:
        return self._new(self.value - _value(other))

    def __rsub__(self, other: Any) -> _Counted:
        return self._new(_value(other) - self.value)

    def __neg__(self) -> _Counted:
        return self._new(-self.value)

    def __truediv__(self, other: Any) -> _Counted:
        self.products[0] += isinstance(other, _Counted)
        return self._new(self.value / _value(other))


def _value(number: Any) -> float:
    return number.value if isinstance(number, _Counted) else number


def _check_products(answer: Any) -> None:
    rng = np.random.default_rng(13)
    for _ in range(3):
        d, g = rng.integers(-5, 6, 4).astype(float), rng.integers(-5, 6, 3).astype(float)
        products = [0]
        found = answer(*([_Counted(v, products) for v in values.tolist()] for values in (d, g)))
        if not isinstance(found, list | tuple | np.ndarray):
            raise WrongAnswer(f"four_products returned a {type(found).__name__}; it must be a list of two numbers")
        wanted = [float(d[i : i + 3] @ g) for i in (0, 1)]
        hint = "m1 and m2 take half of g0 + g1 + g2, and half of g0 - g1 + g2."
        expect([_value(v) for v in found], wanted, f"the results for d {d.tolist()}, g {g.tolist()}", hint)
        if products[0] > 4:
            raise WrongAnswer(f"The results are right, but took {products[0]} products; the lesson's m0 to m3 take 4.")


def _check_intensity(answer: Any) -> None:
    for c, k, p in ((64, 64, 64), (1, 64, 570), (1024, 1024, 28)):
        operations, numbers = 18 * c * k * p * p, (c * (p + 2) ** 2, k * p * p, 9 * c * k)
        hint = (
            f"{operations:,} operations; the input has {numbers[0]:,} numbers, the result {numbers[1]:,}, the weights "
            f"{numbers[2]:,}, of 4 bytes each."
        )
        expect(answer(c, k, p), operations / (4 * sum(numbers)), f"intensity({c}, {k}, {p})", hint)


EXERCISES = [
    Exercise(
        name="im2col",
        question="""im2col(x, r, s): for an image x (C, H, W) and filters of r x s pixels, the matrix (P * Q, C * r
* s) whose rows hold what lies under the filter, in the order channel, row, column; P = H - r + 1, Q = W - s + 1,
and q runs fastest.""",
        start="""
def im2col(x, r, s):
    ...
""",
        solution="""
def im2col(x, r, s):
    under = np.lib.stride_tricks.sliding_window_view(x, (r, s), axis=(1, 2))  # (C, P, Q, r, s)
    return under.transpose(1, 2, 0, 3, 4).reshape(-1, x.shape[0] * r * s)
""",
        wrong=[
            """
def im2col(x, r, s):  # without the transpose a row holds neighbouring pixels of one channel
    under = np.lib.stride_tricks.sliding_window_view(x, (r, s), axis=(1, 2))
    return under.reshape(-1, x.shape[0] * r * s)
""",
            """
def im2col(x, r, s):  # channel last within a row
    under = np.lib.stride_tricks.sliding_window_view(x, (r, s), axis=(1, 2))
    return under.transpose(1, 2, 3, 4, 0).reshape(-1, x.shape[0] * r * s)
""",
            """
def im2col(x, r, s):  # p runs fastest
    under = np.lib.stride_tricks.sliding_window_view(x, (r, s), axis=(1, 2))
    return under.transpose(2, 1, 0, 3, 4).reshape(-1, x.shape[0] * r * s)
""",
        ],
        check=_check_im2col,
    ),
    Exercise(
        name="savings",
        question="""savings(m, r): Winograd's F(m x m, r x r) computes m x m results of an r x r filter with as many
products as its input tile has pixels. How many times fewer is that than by the definition?""",
        start="""
def savings(m, r):
    ...
""",
        solution="""
def savings(m, r):
    return m**2 * r**2 / (m + r - 1) ** 2
""",
        wrong=[
            "def savings(m, r):\n    return m * r / (m + r - 1)\n",
            "def savings(m, r):\n    return m**2 * r**2 / (m + r) ** 2\n",
            "def savings(m, r):\n    return (m + r - 1) ** 2 / (m**2 * r**2)\n",
        ],
        check=_check_savings,
    ),
    Exercise(
        name="four_products",
        question="""four_products(d, g): d is a list of four numbers, g of three. Return [d0 g0 + d1 g1 + d2 g2, d1
g0 + d2 g1 + d3 g2] with at most four products of two of these numbers. Sums, differences and halving are free. (The
numbers given count their products; use + - * / only.)""",
        start="""
def four_products(d, g):
    ...
""",
        solution="""
def four_products(d, g):
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[2]
    m1 = (d[1] + d[2]) * ((g[0] + g[1] + g[2]) / 2)
    m2 = (d[2] - d[1]) * ((g[0] - g[1] + g[2]) / 2)
    return [m0 + m1 + m2, m1 - m2 + m3]
""",
        wrong=[
            """
def four_products(d, g):
    return [d[0] * g[0] + d[1] * g[1] + d[2] * g[2], d[1] * g[0] + d[2] * g[1] + d[3] * g[2]]
""",
            """
def four_products(d, g):  # the halves are forgotten
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[2]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1] + g[2]), (d[2] - d[1]) * (g[0] - g[1] + g[2])
    return [m0 + m1 + m2, m1 - m2 + m3]
""",
        ],
        check=_check_products,
    ),
    Exercise(
        name="intensity",
        question="""intensity(c, k, p): operations for each byte of a 3 x 3 layer in float32, c channels in, k out,
p x p results, valid. A multiplication and an addition are two operations; input, weights and results cross memory
once.""",
        start="""
def intensity(c, k, p):
    ...
""",
        solution="""
def intensity(c, k, p):
    operations = 2 * 9 * c * k * p**2
    return operations / (4 * (c * (p + 2) ** 2 + 9 * c * k + k * p**2))
""",
        wrong=[
            "def intensity(c, k, p):\n    return 9 * c * k * p**2 / (4 * (c * (p + 2) ** 2 + 9 * c * k + k * p**2))\n",
            "def intensity(c, k, p):\n    return 18 * c * k * p**2 / (4 * (c * (p + 2) ** 2 + k * p**2))\n",
            "def intensity(c, k, p):\n    return 18 * c * k * p**2 / (c * (p + 2) ** 2 + 9 * c * k + k * p**2)\n",
            "def intensity(c, k, p):\n    return 18 * c * k * p**2 / (4 * (c * p**2 + 9 * c * k + k * p**2))\n",
        ],
        check=_check_intensity,
    ),
]
