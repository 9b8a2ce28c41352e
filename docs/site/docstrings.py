"""The form of the docstrings of `minitorch_unet.functional`, and its formulas.

A docstring is a line of what, perhaps paragraphs, then the sections Formula, Shapes, Gradient, Kept, Cost and Errors,
each begun by its name and a colon; lines that go on are indented. Mathematics stands in dollars, in LaTeX.

Kept is "NAMES; new `BYTES` bytes: what": arguments or "result" that the graph holds on to ("nothing" for none), and
what else it makes, in bytes for float32. "input (for weight)" is kept only if weight's gradient is wanted. Cost is
"`OPERATIONS` forward, `OPERATIONS` backward". In both a space multiplies, n is the number of values of the first Tensor
argument (or list of them), m that of the result, and the other letters are sizes in Shapes, or whole-number arguments.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

SECTIONS = ("Formula", "Shapes", "Gradient", "Kept", "Cost", "Errors")


class Documented(NamedTuple):
    """A docstring in parts: its first line, the paragraphs after it, and its sections by name."""

    summary: str
    text: str
    sections: dict[str, str]


class KeptValues(NamedTuple):
    """Names, each with the argument that it is kept for ("" for any), and the formula of the bytes made anew."""

    names: dict[str, str]
    new: str


def read(function: Callable[..., Any]) -> Documented:
    """The parts of a function's docstring. Raises ValueError where it is not in the form above."""
    lines = (inspect.getdoc(function) or "").splitlines()
    name = getattr(function, "__name__", "?")
    text: list[str] = []
    sections: dict[str, list[str]] = {}
    for line in lines:
        begun = re.match(rf"({'|'.join(SECTIONS)}): ?(.*)", line)
        if begun:
            sections[begun[1]] = [begun[2]]
        elif sections:
            if not line.startswith("    "):
                raise ValueError(f"{name}: the line after a section is not indented: {line!r}")
            sections[list(sections)[-1]].append(line.strip())
        else:
            text.append(line)
    if tuple(sections) != SECTIONS:
        found = ", ".join(sections) or "missing"
        raise ValueError(f"{name}: sections are {found}; there must be {', '.join(SECTIONS)}, in this order")
    joined = {section: "\n".join(part).strip() for section, part in sections.items()}
    empty = [section for section, part in joined.items() if not part]
    if empty or not text or not text[0]:
        raise ValueError(f"{name}: nothing under {empty[0] if empty else 'its first line'}")
    return Documented(text[0], "\n".join(text[1:]).strip(), joined)


def kept_values(section: str) -> KeptValues:
    """What Kept says."""
    form = r"(?P<names>[\w ,()]+?)(?: \(but [^)]+\))?(?:; new `(?P<new>[^`]+)` bytes: .+)?\.(?: .*)?"
    found = re.fullmatch(form, " ".join(section.split()))
    if not found:
        raise ValueError(f"Kept must be 'NAMES; new `FORMULA` bytes: what.', found {section!r}")
    names = {}
    for part in found["names"].split(", "):
        name = re.fullmatch(r"(\w+)(?: \(for (\w+)\))?", part)
        if not name:
            raise ValueError(f"Kept names {part!r}; it must be NAME or NAME (for NAME)")
        names[name[1]] = name[2] or ""
    names.pop("nothing", None)
    return KeptValues(names, found["new"] or "0")


def costs(section: str) -> tuple[str, str]:
    """The formulas of Cost: forward and backward."""
    found = re.match(r"`([^`]+)` forward, `([^`]+)` backward", " ".join(section.split()))
    if not found:
        raise ValueError(f"Cost must begin with '`FORMULA` forward, `FORMULA` backward', found {section!r}")
    return found[1], found[2]


def sizes(section: str, arguments: dict[str, Any], result: tuple[int, ...]) -> dict[str, int]:
    """The letters of Shapes, as the arguments (their shapes, or what they hold) and the result's shape give them."""
    found: dict[str, int] = {name: v for name, v in arguments.items() if isinstance(v, int)}
    found |= {name: 1 for name in ("groups", "stride") if name not in found} | {"padding": found.get("padding", 0)}
    before, _, after = section.partition("->")
    named = [(name, axes) for name, axes in re.findall(r"(\w+) \(([^()]*)\)", before) if name in arguments]
    shapes = [(axes, getattr(arguments[name], "shape", arguments[name])) for name, axes in named]
    given = re.match(r"\s*\(([^()]*)\)", after)
    if given:
        shapes.append((given[1], result))
    for axes, shape in shapes:
        letters = [letter.strip() for letter in axes.split(",")]
        shape = shape if isinstance(shape, tuple) else (shape,)
        if "..." in letters:
            at = letters.index("...")
            shape = (*shape[:at], None, *shape[len(shape) - (len(letters) - at - 1) :])
        if len(letters) != len(shape):
            raise ValueError(f"Shapes has ({axes}) for {shape}")
        for letter, size in zip(letters, shape, strict=True):
            if re.fullmatch(r"[A-Z]", letter) and found.setdefault(letter, size) != size:
                raise ValueError(f"Shapes: {letter} is {found[letter]} and {size}")
    return found


def evaluate(formula: str, letters: dict[str, int]) -> float:
    """The value of a formula in which a space multiplies."""
    tokens = re.findall(r"\d+|[A-Za-z_]+|[()+\-/]", formula)
    if "".join(tokens) != formula.replace(" ", ""):
        raise ValueError(f"formula {formula!r}: legal are numbers, names, + - / and brackets")
    code = ""
    for token in tokens:
        if token[0].isalpha() and token not in letters:
            raise ValueError(f"formula {formula!r}: {token} is no size in Shapes; there are {', '.join(letters)}")
        starts = token[0].isalnum() or token == "("
        if code and starts and (code[-1].isalnum() or code[-1] == ")"):
            code += "*"
        code += str(letters.get(token, token))
    return float(eval(code, {"__builtins__": {}}))
