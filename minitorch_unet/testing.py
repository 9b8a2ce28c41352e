"""Gradient checking: does each backward rule compute the derivative of its forward rule?

The outputs are multiplied by fixed random numbers v and added up: L = sum v f(x). One backward walk gives the analytic
dL/dx_i of all elements; each is compared with the central difference (L(x + e) - L(x - e)) / 2e, e along element i
(mode "full"), or along a few random directions through all elements of an input (mode "projection").

Relative error of the analytic a against the numeric n: |a - n| / max(|a|, |n|, floor), where
floor = max(max_i |a_i| / 100, r / tolerance), r being the rounding error to expect of a central difference.
There is no fixed floor of 1, so the check is equally strict for small and large gradients.

Kinks. Where f bends sharply between x - e and x + e, the slopes to both sides disagree and there is no derivative to
compare with. A smooth function's two slopes differ by e f'', which shrinks with e; those of a kink keep their
difference. So e is quartered up to three times: as soon as the slopes agree the element is compared as usual; only an
element whose difference stays the same is skipped and counted. A function that keeps bending cannot be judged: more
than a fifth of such elements is a failure too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Array, array_module, device_of, to_device, to_numpy
from .tensor import Tensor, enable_grad, grad, is_grad_enabled, no_grad

Function = Callable[..., Any]

DIRECTIONS = 2  # per input, in mode "projection"
BEND = 1e-3  # relative difference of the two one-sided slopes from which on a kink is suspected
MOST_KINKS = 0.2


class GradcheckError(ValueError):
    """A backward rule is wrong, or the function cannot be checked; the text says where and by how much."""


@dataclass(frozen=True)
class GradcheckResult:
    """What a check found; true in a condition if it passed.

    `max_relative_error` over the compared elements, `kinks` skipped elements, `checked` compared ones; `message` is
    empty or names function, input, index and both numbers.
    """

    passed: bool
    max_relative_error: float
    kinks: int
    checked: int
    message: str

    def __bool__(self) -> bool:
        return self.passed


def gradcheck(
    function: Function, inputs: Tensor | Sequence[Tensor], *, eps: float = 1e-5, tolerance: float = 1e-6,
    mode: str = "full", seed: int = 0, raise_exception: bool = True,
) -> GradcheckResult:  # fmt: skip
    """Compare the gradients of `function(*inputs)` with central differences; see the text of this module.

    function: returns a Tensor or several, and the same ones for the same inputs (seed a dropout inside it).
    inputs: float64 Tensors; those with requires_grad are checked. mode: "full" (two calls of the function for every
    element) or "projection" (two for each of two directions an input). It is also a failure if the function changes
    an input or if a second run gives other bits. Raises GradcheckError for a failure unless raise_exception is False,
    TypeError for other types than float64, ValueError for illegal arguments.
    """
    inputs = _checked_inputs("gradcheck", inputs, eps, tolerance, mode)
    result = _Check("gradcheck", function, inputs, eps, tolerance, seed).run(mode)
    if raise_exception and not result:
        raise GradcheckError(result.message)
    return result


def gradgradcheck(
    function: Function, inputs: Tensor | Sequence[Tensor], *, eps: float = 1e-5, tolerance: float = 1e-6,
    mode: str = "full", seed: int = 0, raise_exception: bool = True,
) -> GradcheckResult:  # fmt: skip
    """`gradcheck` of the gradients of `function`, as functions of its inputs and of the gradient of its outputs.

    The numeric side differentiates gradients computed on bare arrays, the analytic side those recorded with
    create_graph: the two ways of running a backward rule are compared with each other as well. Arguments and errors
    as in `gradcheck`.
    """
    inputs = _checked_inputs("gradgradcheck", inputs, eps, tolerance, mode)
    outputs = _float_outputs("gradgradcheck", function(*_leaves(inputs)))
    if not any(o.requires_grad for o in outputs):
        raise ValueError("gradgradcheck: no output depends on an input that requires a gradient")
    rng = np.random.default_rng(seed)
    weights = [Tensor(_random_like(o.data, rng), requires_grad=True) for o in outputs]

    def gradients(*tensors: Tensor) -> tuple[Tensor | None, ...]:
        record = is_grad_enabled()
        with enable_grad():
            found = _float_outputs("gradgradcheck", function(*tensors[: len(inputs)]))
            reached = [(o, w) for o, w in zip(found, tensors[len(inputs) :], strict=True) if o.requires_grad]
            wanted = [t for t in tensors[: len(inputs)] if t.requires_grad]
            outs, gys = zip(*reached, strict=True)
            return grad(outs, wanted, gys, create_graph=record, allow_unused=True)

    result = _Check("gradgradcheck", gradients, [*inputs, *weights], eps, tolerance, seed + 1).run(
        mode, _name_of(function, outputs)
    )
    if raise_exception and not result:
        raise GradcheckError(result.message)
    return result


class _Check:
    """One check: the function at its point, the analytic gradients, and the comparison element by element."""

    def __init__(
        self, check: str, function: Function, inputs: list[Tensor], eps: float, tolerance: float, seed: int
    ) -> None:
        self.check, self.function, self.inputs = check, function, inputs
        self.eps, self.tolerance = eps, tolerance
        self.rng = np.random.default_rng(seed)

    def run(self, mode: str, name: str = "") -> GradcheckResult:
        """Compare all gradients; `name` stands for the function in messages."""
        before = [_bits(t.data) for t in self.inputs]
        outputs = _float_outputs(self.check, self.function(*_leaves(self.inputs)))
        self.name = name or _name_of(self.function, outputs)
        self.weights = [_random_like(o.data, self.rng) for o in outputs]
        gradients, bits = self._analytic()
        if self._analytic()[1] != bits:
            return self._failure("a second run gives other bits; the function must compute the same every time")
        self.base = self._values(0, self.inputs[0].data)
        for number, (tensor, bits_before) in enumerate(zip(self.inputs, before, strict=True)):
            if _bits(tensor.data) != bits_before:
                return self._failure(f"input {number} was changed by the function or by its backward rule")
        faults: list[tuple[float, str]] = []
        worst, kinks, checked = 0.0, 0, 0
        for number, gradient in gradients:
            if gradient.shape != self.inputs[number].shape:
                return self._failure(
                    f"the gradient of input {number} has shape {gradient.shape}, the input {self.inputs[number].shape}"
                )
            for place, analytic, direction in self._places(number, gradient, mode):
                numeric, error = self._compare(number, analytic, direction, float(abs(gradient).max()))
                if numeric is None:
                    kinks += 1
                    continue
                checked += 1
                worst = max(worst, error)
                if not error <= self.tolerance:
                    text = (
                        f"the gradient of input {number} {place} is {analytic:.10g} by the backward rule but "
                        f"{numeric:.10g} by central difference (relative error {error:.3g}, allowed {self.tolerance:g})"
                    )
                    faults.append((error, text))
        if faults:
            return self._failure(
                f"{max(faults)[1]}; {len(faults)} of {checked} comparisons fail", worst, kinks, checked
            )
        if kinks > MOST_KINKS * (kinks + checked):
            return self._failure(
                f"{kinks} of {kinks + checked} elements lie on a kink or tie, where there is no derivative; "
                "choose inputs away from them", worst, kinks, checked,
            )  # fmt: skip
        return GradcheckResult(True, worst, kinks, checked, "")

    def _failure(self, text: str, worst: float = np.inf, kinks: int = 0, checked: int = 0) -> GradcheckResult:
        return GradcheckResult(False, worst, kinks, checked, f"{self.check}: {self.name}: {text}")

    def _analytic(self) -> tuple[list[tuple[int, Array]], list[bytes]]:
        """(number, gradient of sum v f) of each input that requires one; and the bits of all results."""
        leaves = _leaves(self.inputs)
        outputs = _float_outputs(self.check, self.function(*leaves))
        wanted = [(i, leaf) for i, leaf in enumerate(leaves) if leaf.requires_grad]
        pairs = [(o, Tensor(v)) for o, v in zip(outputs, self.weights, strict=True) if o.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs:
            found = grad([o for o, _ in pairs], [t for _, t in wanted], [v for _, v in pairs], allow_unused=True)
        gradients = [
            (i, array_module(leaf.data).zeros_like(leaf.data) if g is None else g.data)
            for (i, leaf), g in zip(wanted, found, strict=True)
        ]
        return gradients, [_bits(o.data) for o in outputs] + [_bits(g) for _, g in gradients]

    def _places(self, number: int, gradient: Array, mode: str) -> Any:
        """(where, analytic derivative, direction): every element, or a few random directions through all of them."""
        data = self.inputs[number].data
        if mode == "full":
            for index in np.ndindex(data.shape):
                yield f"at {list(index)}", float(gradient[index]), index
        elif data.size:
            for i in range(DIRECTIONS):
                direction = _random_like(data, self.rng)
                yield f"along direction {i}", float((gradient * direction).sum()), direction

    def _compare(self, number: int, analytic: float, direction: Any, largest: float) -> tuple[float | None, float]:
        """(numeric derivative, relative error); (None, 0) at a kink."""
        previous_gap = 0.0
        for quarterings in range(4):
            e = self.eps / 4**quarterings
            left, right, rounding = self._slopes(number, direction, e)
            floor = max(largest / 100, rounding / self.tolerance)
            gap = abs(right - left)
            if gap <= BEND * max(abs(left), abs(right), floor):
                break
            if quarterings == 3 and previous_gap / 2 < gap < 2 * previous_gap:
                return None, 0.0
            previous_gap = gap
        numeric = (left + right) / 2
        error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), floor, np.finfo(float).tiny)
        return numeric, error if np.isfinite(error) else np.inf

    def _slopes(self, number: int, direction: Any, e: float) -> tuple[float, float, float]:
        """Slope of L from x - e to x and from x to x + e, and the rounding error to expect of them."""
        sides = []
        for step in (-e, e):
            moved = self.inputs[number].data.copy(order="K")
            if isinstance(direction, tuple):
                moved[direction] += step
            else:
                moved += step * direction
            sides.append(self._values(number, moved))
        left = right = rounding = 0.0
        # Differences are taken output by output, so that outputs that do not depend on this element cancel exactly.
        for low, middle, high, v in zip(sides[0], self.base, sides[1], self.weights, strict=True):
            left += float((v * (middle - low)).sum())
            right += float((v * (high - middle)).sum())
            rounding += float((abs(v * middle) * ((low != middle) | (high != middle))).sum())
        return left / e, right / e, 8 * np.finfo(float).eps * rounding / e

    def _values(self, number: int, data: Array) -> list[Array]:
        """The outputs with input `number` replaced by `data`."""
        tensors = _leaves(self.inputs)
        tensors[number].data = data
        with no_grad():
            return [o.data for o in _float_outputs(self.check, self.function(*tensors))]


def _checked_inputs(
    check: str, inputs: Tensor | Sequence[Tensor], eps: float, tolerance: float, mode: str
) -> list[Tensor]:
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if mode not in ("full", "projection"):
        raise ValueError(f"{check}: mode is {mode!r}; legal are 'full' and 'projection'")
    for argument, value in (("eps", eps), ("tolerance", tolerance)):
        if not value > 0:
            raise ValueError(f"{check}: {argument} is {value!r}; it must be a number above 0")
    for i, t in enumerate(inputs):
        if not isinstance(t, Tensor):
            raise TypeError(f"{check}: input {i} is a {type(t).__name__}; it must be a Tensor")
        if t.dtype.kind == "f" and t.dtype != np.float64:
            raise TypeError(f"{check}: input {i} has type {t.dtype}; differences need float64, see Tensor.to")
    if not any(t.requires_grad for t in inputs):
        raise ValueError(f"{check}: no input requires a gradient; create at least one with requires_grad=True")
    return inputs


def _float_outputs(check: str, outputs: Any) -> list[Tensor]:
    """The outputs that have derivatives: floating-point Tensors (indices and missing gradients are left out)."""
    several = outputs if isinstance(outputs, tuple | list) else [outputs]
    found = [o for o in several if isinstance(o, Tensor) and o.dtype.kind == "f"]
    if not found:
        raise ValueError(f"{check}: the function returns no floating-point Tensor")
    for o in found:
        if o.dtype != np.float64:
            raise TypeError(f"{check}: the function returns {o.dtype}; differences need float64 throughout")
    return found


def _leaves(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [Tensor(t.data, requires_grad=t.requires_grad) for t in inputs]


def _random_like(data: Array, rng: np.random.Generator) -> Array:
    """Numbers of size 0.5 to 1.5 with random signs: no element is nearly left out."""
    values = rng.uniform(0.5, 1.5, data.shape) * rng.choice([-1.0, 1.0], data.shape)
    return to_device(values, device_of(data))


def _bits(data: Array) -> bytes:
    return to_numpy(data).tobytes()


def _name_of(function: Function, outputs: Sequence[Tensor]) -> str:
    """The function's name, if it has one, and the last operation that it ran."""
    last = next((f"operation '{o.node.op.name}'" for o in outputs if o.node is not None), "no recorded operation")
    name = getattr(function, "__name__", type(function).__name__)
    return last if name == "<lambda>" else f"'{name}' (last {last})"
