"""`python -m minitorch_unet.course`: list the lessons, hand out templates, check answers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import lesson, numbers
from .marking import COMMAND, HEADER, check, template, wrapped


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, 1 if an answer is not right, 2 with one line for any other error."""
    options = _parser().parse_args(argv)
    try:
        return options.run(options)
    except BrokenPipeError:  # the reader (head, say) has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("course: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"course: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description="Questions on the lessons in examples/course, and checks of your answers.",
        epilog="Without a command: a list of the lessons.",
    )
    parser.set_defaults(run=_list)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, run, text in (
        ("show", _show, "print a lesson's questions"),
        ("start", _start, "write the file to fill in (answers_NN.py), never over another"),
        ("check", _check, "check the answers in a file (answers_NN.py)"),
        ("solution", _solution, "print right answers"),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("number", type=int, metavar="N", help="number of the lesson")
        command.set_defaults(run=run)
        if name == "start":
            command.add_argument("-o", "--output", type=Path, metavar="FILE", help="another name for the file")
        if name == "check":
            command.add_argument("file", type=Path, nargs="?", metavar="FILE", help="the file, if it has another name")
    return parser


def _list(options: argparse.Namespace) -> int:
    for number in numbers():
        found = lesson(number)
        print(f"{number:3}  {found.title} ({len(found.exercises)} questions)")
    print(f"\nThe lessons are examples/course/NN_*.py. Next: {COMMAND} start 1")
    return 0


def _show(options: argparse.Namespace) -> int:
    found = lesson(options.number)
    print(f"Lesson {found.number}: {found.title}")
    for i, exercise in enumerate(found.exercises, 1):
        print(f"\n{wrapped(f'{i}. {exercise.question}')}\n\n{exercise.start.strip()}")
    return 0


def _start(options: argparse.Namespace) -> int:
    text = template(lesson(options.number))
    path = options.output or _usual(options.number)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{path} exists already and stays as it is; -o FILE takes another name") from None
    print(f"{path} is written. Fill it in, then: {COMMAND} check {options.number}" + f" {path}" * bool(options.output))
    return 0


def _check(options: argparse.Namespace) -> int:
    found = lesson(options.number)
    path = options.file or _usual(options.number)
    try:
        source = path.read_text(encoding="utf-8-sig")  # Windows likes to begin files with a mark
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; {COMMAND} start {options.number} writes a file to fill in") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8") from None
    marks = check(found, source, str(path))
    for i, mark in enumerate(marks, 1):
        print(f"{i}. {mark.name}: {mark}", flush=True)
    right = sum(mark.verdict == "right" for mark in marks)
    print(f"{right} of {len(marks)} right")
    return 0 if right == len(marks) else 1


def _solution(options: argparse.Namespace) -> int:
    print(HEADER)
    for exercise in lesson(options.number).exercises:
        print(f"\n{exercise.solution.strip()}\n")
    return 0


def _usual(number: int) -> Path:
    return Path(f"answers_{number:02}.py")


if __name__ == "__main__":
    sys.exit(main())
