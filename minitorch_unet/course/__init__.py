"""The course: fifteen lessons (examples/course), each with questions whose answers are checked by computing.

`python -m minitorch_unet.course` is its command line. A lesson's questions stand in `lesson_NN.py`, whose first line is
the lesson's title and whose EXERCISES are marked by `marking.py`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minitorch_unet import Tensor


class WrongAnswer(Exception):
    """An answer is not right; the text gives the numbers found and a hint."""


@dataclass(frozen=True)
class Exercise:
    """One question.

    name: of the function or value that the learner defines. start: source text of the template, with `...` where the
    answer belongs. solution: source text of a right answer. wrong: source texts of typical wrong ones.
    check: called with the learner's object; raises WrongAnswer unless it is right. Answers may use `np`, `mt` and `F`.
    """

    name: str
    question: str
    start: str
    solution: str
    check: Callable[[Any], None]
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lesson:
    """A lesson's number, title and questions."""

    number: int
    title: str
    exercises: list[Exercise]


def numbers() -> list[int]:
    """The numbers of all lessons that have questions."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("lesson_")]
    return sorted(int(name.removeprefix("lesson_")) for name in names)


def lesson(number: int) -> Lesson:
    """Lesson `number`. Raises ValueError if there is none."""
    if number not in numbers():
        raise ValueError(f"there is no lesson {number}; there are {', '.join(map(str, numbers()))}")
    module = importlib.import_module(f"{__name__}.lesson_{number:02}")
    title = (module.__doc__ or "").splitlines()[0].rstrip(".")
    return Lesson(number, title, module.EXERCISES)


def expect(
    found: Any, wanted: Any, what: str, hint: str = "", tolerance: float = 1e-6, tell: bool = True
) -> None:  # fmt: skip
    """Raise WrongAnswer unless `found` has the shape and, to `tolerance` times the largest, the values of `wanted`.

    what: names `found` in the message ("the gradient of x"). hint: a sentence added to it. tell: whether the message
    gives the right value (not where the value itself is the answer). Text is compared as it is; all else may be
    numbers, (nested) sequences of them, arrays or Tensors. NaN is never right.
    """

    def refuse(text: str) -> None:
        raise WrongAnswer(f"{what} {text}{'' if text.endswith('?') else '.'} {hint}".strip())

    if isinstance(wanted, str):
        if found != wanted:
            refuse(f"is {found!r}, which is not right")
        return
    if found is None:
        refuse("is None; is a `return` missing?")
    a, b = _array(found), _array(wanted)
    if a is None or b is None:
        refuse(f"is a {type(found).__name__}; it must be numbers")
    elif a.shape != b.shape:
        refuse(f"has shape {a.shape}; it must have shape {b.shape}")
    elif a.size:
        error = np.abs(a.astype(float) - b)
        bad = ~(error <= tolerance * (float(np.abs(b).max()) or 1.0))  # written so that NaN is bad
        if bad.any():
            index = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape))
            where = f"at {list(index)} " if index else ""
            many = f" ({int(bad.sum())} of {bad.size} values differ)" if bad.size > 1 else ""
            wish = f"; it must be {_text(b[index])}" if tell else ", which is not right"
            refuse(f"{where}is {_text(a[index])}{wish}{many}")


def _array(value: Any) -> np.ndarray | None:
    """The numbers in `value`, or None if it holds anything else."""
    try:
        array = np.asarray([_plain(v) for v in value] if isinstance(value, tuple | list) else _plain(value))
    except ValueError:  # rows of different lengths
        return None
    return array if array.dtype.kind in "biuf" else None


def _text(number: Any) -> str:
    return str(number) if number.dtype.kind in "biu" else f"{number + 0.0:.6g}"  # + 0.0 takes the sign off -0


def _plain(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, Tensor) else value


def show(figure: Any, name: str) -> None:
    """Show a matplotlib figure in a notebook; in a script write it to NAME.png and say where.

    The folder is the environment variable MINITORCH_UNET_FIGURES, or `figures`; where it is set, notebooks write too.
    """
    import matplotlib.pyplot as plt

    notebook = hasattr(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)(), "kernel")
    folder = os.environ.get("MINITORCH_UNET_FIGURES")
    if notebook:
        from IPython.display import display

        display(figure)
    if folder or not notebook:
        path = Path(folder or "figures") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        print(f"figure: {path}")
    plt.close(figure)
