"""A learner's file: the template it begins as, and the marks it earns.

Whatever goes wrong in it becomes one line with the line's number in that file.
"""

from __future__ import annotations

import ast
import signal
import textwrap
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from . import Exercise, Lesson, WrongAnswer

HEADER = """\
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
"""
SECONDS = 20.0  # that one answer may take
COMMAND = "python -m minitorch_unet.course"


class CannotRun(ValueError):
    """A file of answers cannot be run at all; the text says where and why."""


class _TooLong(Exception):
    """Raised in the learner's code when it has run too long."""


@dataclass(frozen=True)
class Mark:
    """Verdict on one answer: "right", "wrong" or "not answered yet", and why."""

    name: str
    verdict: str
    text: str = ""

    def __str__(self) -> str:
        return self.verdict + (f": {self.text}" if self.text else "")


def template(lesson: Lesson) -> str:
    """The file that a learner fills in."""
    number = lesson.number
    parts = [f"# Lesson {number}: {lesson.title}. Replace each `...`, then: {COMMAND} check {number}", HEADER]
    for i, exercise in enumerate(lesson.exercises, 1):
        text = textwrap.indent(wrapped(f"{i}. {exercise.question}"), "# ", lambda line: True)
        parts.append("\n" + "\n".join(line.rstrip() for line in text.splitlines()) + f"\n\n{exercise.start.strip()}\n")
    return "\n".join(parts)


def wrapped(text: str) -> str:
    """The paragraphs of `text` in lines of at most 100 characters; indented lines stay as they are."""
    lines: list[str] = []
    for paragraph in textwrap.dedent(text.strip()).split("\n\n"):
        indented = any(line.startswith(" ") for line in paragraph.splitlines())
        lines += [*(paragraph.splitlines() if indented else textwrap.wrap(paragraph, 100)), ""]
    return "\n".join(lines).rstrip()


def check(lesson: Lesson, source: str, file: str) -> list[Mark]:
    """A mark for each exercise. Raises CannotRun if the file does not run; `file` is its name in messages."""
    tree, names = run(source, file)
    return [mark(exercise, tree, names, file) for exercise in lesson.exercises]


def run(source: str, file: str) -> tuple[ast.Module, dict[str, Any]]:
    """Run a file of answers; its syntax tree and the names it defines. Raises CannotRun."""
    try:
        tree = ast.parse(source, file)
        code: CodeType = compile(tree, file, "exec")
    except SyntaxError as error:
        place = f"{file}, line {error.lineno}" if error.lineno else file
        shown = f" in `{error.text.strip()}`" if error.text else ""
        raise CannotRun(f"{place}: {error.msg}{shown}") from None
    except ValueError as error:
        raise CannotRun(f"{file}: {error}") from None
    names: dict[str, Any] = {"__name__": "answers"}
    try:
        with _limited():
            exec(code, names)
    except (Exception, SystemExit) as error:
        raise CannotRun(_described(error, file)) from None
    return tree, names


def mark(exercise: Exercise, tree: ast.Module, names: dict[str, Any], file: str) -> Mark:
    """The mark of one answer in a file that has been run."""
    name = exercise.name
    if name not in names:
        return Mark(name, "not answered yet", f"{file} defines no `{name}`")
    definition = [node for node in tree.body if name in _defined(node)][-1:]  # the last one counts
    gap = next((line for node in definition for line in _gaps(node)), None)
    if gap is not None:
        return Mark(name, "not answered yet", f"replace the `...` in line {gap}")
    if f"def {name}(" in exercise.start and not callable(names[name]):
        return Mark(name, "wrong", f"`{name}` is a {type(names[name]).__name__}; it must be a function")
    try:
        with _limited():
            exercise.check(names[name])
    except WrongAnswer as error:
        return Mark(name, "wrong", " ".join(str(error).split()))
    except (Exception, SystemExit) as error:
        return Mark(name, "wrong", _described(error, file))
    return Mark(name, "right")


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _gaps(node: ast.AST) -> Iterator[int]:
    """Lines with a `...` that waits for an answer: all but those that index an array."""
    if isinstance(node, ast.Constant) and node.value is Ellipsis:
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.Subscript) and child is node.slice):
            yield from _gaps(child)


def _described(error: BaseException, file: str) -> str:
    """One line for what went wrong in, or because of, the learner's file; with the last line reached there."""
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    place = f"{file}, line {lines[-1]}: " if lines else "it does not fit the question: "
    if isinstance(error, RecursionError):
        return f"{place}a function calls itself without end, or too deeply"
    if isinstance(error, _TooLong):
        return f"{place}still running after {SECONDS:g} seconds; does a loop never end?"
    return place + ": ".join([type(error).__name__, *filter(None, [" ".join(str(error).split())])])


@contextmanager
def _limited() -> Iterator[None]:
    """Stop what runs within after SECONDS, where the system can (in the main thread of a Unix process)."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
