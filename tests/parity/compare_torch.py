"""Make several hundred random calls in this engine and in PyTorch; compare results, gradients and refusals.

    PYTHONPATH=. python tests/parity/compare_torch.py [--draws 1000] [--seed 0]

Runs in a Python that has PyTorch, in float64. Every result, the gradient of every argument (for a random gradient of
the result) and every argument after the call must agree to 1e-10, relative to the largest magnitude in the array. What
PyTorch refuses must be refused here, by a ValueError or TypeError, and nothing else. Prints a row for each function;
exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from draws import CORE, OTHERS, Call, Fixed

from minitorch_unet import functional
from minitorch_unet.tensor import Tensor

TOLERANCE = 1e-10
FLOOR = 1e-3  # magnitudes below this count as this: where zero is expected, rounding leaves 1e-16
LEAST_CORE = 300  # calls of convolution, pooling, norms and losses that must have agreed
TORCH_REFUSALS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError)


@dataclass
class Outcome:
    """What a library made of a call: named arrays, or the error with which it refused."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    error: Exception | None = None


@dataclass
class Row:
    """One line of the table."""

    agreed: int = 0
    refused: int = 0
    worst: float = 0.0
    mismatches: list[str] = field(default_factory=list)


def make_call(
    call: Call,
    function: Callable[..., Any],
    tensor: Callable[[np.ndarray, bool], Any],
    array: Callable[[Any], np.ndarray],
    seed: list[int],
) -> dict[str, np.ndarray]:
    """Call one library's function on its tensors and walk back; return results, gradients and arguments by name."""
    tensors: dict[str, Any] = {}

    def convert(value: Any, name: str) -> Any:
        if isinstance(value, list):
            return [convert(item, f"{name}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, Fixed | np.ndarray):
            return value
        data = value.array if isinstance(value, Fixed) else value
        tensors[name] = tensor(data.copy(), data.dtype.kind == "f" and not isinstance(value, Fixed))
        return tensors[name]

    args = [convert(value, f"argument {i}") for i, value in enumerate(call.args)]
    kwargs = {name: convert(value, name) for name, value in call.kwargs.items()}
    made = function(*args, **kwargs)
    outputs = list(made) if isinstance(made, tuple) else [made]
    arrays = {f"result {i}": array(output) for i, output in enumerate(outputs)}
    if outputs[0].requires_grad:
        gy = np.random.default_rng(seed).standard_normal(arrays["result 0"].shape)
        outputs[0].backward(tensor(gy, False))
    for name, value in tensors.items():
        arrays[f"{name} afterwards"] = array(value)
        if value.requires_grad:
            arrays[f"gradient of {name}"] = np.zeros(value.shape) if value.grad is None else array(value.grad)
    return arrays


def ours(call: Call, seed: list[int]) -> Outcome:
    """This engine's outcome. Warnings count as errors, except those of NumPy on infinite and undefined numbers."""
    function = getattr(functional, call.function)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error")
            return Outcome(make_call(call, function, Tensor, lambda t: np.asarray(t.data), seed))
    except Exception as error:  # whatever it is: `compare` judges it
        return Outcome(error=error)


def theirs(call: Call, seed: list[int]) -> Outcome:
    """PyTorch's outcome, without its warnings (on slow paths and coming changes of interface)."""
    function = getattr(torch.nn.functional, call.function, None) or getattr(torch, call.function)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Outcome(make_call(call, function, _torch_tensor, lambda t: t.detach().numpy(), seed))
    except TORCH_REFUSALS as error:
        return Outcome(error=error)


def _torch_tensor(array: np.ndarray, needs_gradient: bool) -> torch.Tensor:
    return torch.from_numpy(array).requires_grad_(needs_gradient)


def difference(mine: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the largest expected magnitude; infinite if shape, type, nan or inf differ."""
    if mine.shape != expected.shape or mine.dtype != expected.dtype:
        return np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(mine[~finite], expected[~finite], equal_nan=True) or not np.isfinite(mine[finite]).all():
        return np.inf
    if not finite.any() or np.array_equal(mine[finite], expected[finite]):
        return 0.0
    return float(np.abs(mine[finite] - expected[finite]).max() / max(FLOOR, np.abs(expected[finite]).max()))


def compare(call: Call, seed: list[int], row: Row) -> None:
    """Make the call in both libraries and enter the outcome into its row."""
    mine, expected = ours(call, seed), theirs(call, seed)
    if isinstance(mine.error, ValueError | TypeError) and expected.error is not None:
        row.refused += 1
    elif mine.error is not None or expected.error is not None:
        row.mismatches.append(f"{call}: this engine says {_brief(mine.error)}, PyTorch {_brief(expected.error)}")
    else:
        errors = {name: difference(mine.arrays[name], array) for name, array in expected.arrays.items()}
        row.worst = max(row.worst, *errors.values())
        wrong = [f"{name} differs by {error:.1e}" for name, error in errors.items() if error > TOLERANCE]
        if wrong:
            row.mismatches.append(f"{call}: {', '.join(wrong)}")
        else:
            row.agreed += 1


def _brief(error: Exception | None) -> str:
    return "nothing" if error is None else f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"


def draw_calls(draws: int, seed: int) -> Iterator[tuple[Call, list[int], bool]]:
    """The calls in proportion to their weights, each with a seed of its own; and whether it counts as core."""
    shares = CORE | OTHERS
    for number, (draw, share) in enumerate(shares.items()):
        for i in range(-(-draws * share // sum(shares.values()))):
            own_seed = [seed, number, i]
            yield draw(np.random.default_rng(own_seed)), own_seed, draw in CORE


def main() -> int:
    """Run everything, print the table and the closing line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="number of calls, roughly (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another set of calls (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # the arrays are tiny

    rows: dict[str, Row] = defaultdict(Row)
    core = 0
    for call, seed, is_core in draw_calls(options.draws, options.seed):
        row = rows[call.function]
        before = row.agreed
        compare(call, seed, row)
        core += is_core * (row.agreed - before)

    print(f"{'function':<34}{'agreed':>7}{'refused by both':>17}{'max error':>11}{'mismatches':>12}")
    for name, row in rows.items():
        print(f"{name:<34}{row.agreed:>7}{row.refused:>17}{row.worst:>11.1e}{len(row.mismatches):>12}")
    mismatches = [text for row in rows.values() for text in row.mismatches]
    for text in mismatches:
        print(f"MISMATCH {text}")
    passed = not mismatches and core >= LEAST_CORE
    print(
        f"{'PASSED' if passed else 'FAILED'}: {sum(r.agreed for r in rows.values())} calls agree with PyTorch "
        f"{torch.__version__}, {core} of them convolution, pooling, norms and losses (at least {LEAST_CORE} needed); "
        f"{sum(r.refused for r in rows.values())} refused by both; {len(mismatches)} mismatches; "
        f"largest error {max(r.worst for r in rows.values()):.1e}"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
