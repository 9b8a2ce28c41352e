"""`minitorch-unet simulate`: run a script written for a GPU, with the stand-in in the place of CuPy."""

from __future__ import annotations

import re
import runpy
import signal
import sys
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .build import STRING, CompileError, CompilerMissing
from .errors import KernelError, Place
from .module import loaded
from .settings import set_mode, set_seed
from .traffic import format_table


def run_script(script: Path, arguments: Sequence[str], mode: str = "fast", seed: int = 0) -> int:
    """Run `script` as the main program; returns the exit code: its own, or 1 for a kernel's mistake, which is printed.

    In mode "count" a table of accesses to memory follows the script's output. Raises ValueError if there is no such
    file, or no compiler.
    """
    from . import standin
    from .cuda_api import CompileException

    if not script.is_file():
        raise ValueError(f"there is no file {script}")
    set_mode(mode)
    set_seed(seed)
    standin.install()
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    # A launch does not come back to Python before its end: with Python's own handler Ctrl-C would wait for it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except KernelError as error:
        _say(report(error, script))
        return 1
    except CompilerMissing as error:
        raise ValueError(str(error)) from None
    except (CompileError, CompileException) as error:
        _say(str(error))
        return 1
    except Exception as error:
        _say("".join(traceback.format_exception(error.with_traceback(_within(error, script)))).rstrip())
        return 1
    finally:
        sys.stdout.flush()
    if mode == "count":
        for module in loaded():
            counts = module.stats()
            print("\n" + ", ".join(f"{counts[name]} {name}" for name in ("launches", "barriers", "collectives")))
            rows = [row._replace(place=in_script(row.place, module.source.text, script)) for row in module.traffic]
            print(format_table(rows))
    return 0


def report(error: KernelError, script: Path) -> str:
    """What a kernel did wrong: kernel, block, thread, what, the line, and what to look for."""
    lines = [
        f"KERNEL ERROR in {error.kernel}: {error.kind}",
        f"  block {error.block}, thread {error.thread}",
        f"  {_mapped(error.what, error.source, script)}",
    ]
    if error.place:
        place = in_script(error.place, error.source, script)
        lines += [f"  {place}", f"    {place.code}"]
    if error.hint:
        lines += textwrap.wrap(f"look for: {error.hint}", 110, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def in_script(place: Place, source: str, script: Path) -> Place:
    """The line of the script, for a line of a kernel whose source is a string that stands there."""
    before, found, _ = script.read_text(encoding="utf-8").partition(source.strip("\n"))
    if not found or place.file != STRING:
        return place
    empty = len(source) - len(source.lstrip("\n"))
    return Place(str(script), before.count("\n") - empty + place.line, place.code)


def _mapped(text: str, source: str, script: Path) -> str:
    """A sentence with the lines of the script in the place of the kernel's."""

    def mapped(found: re.Match[str]) -> str:
        return str(in_script(Place(STRING, int(found[1])), source, script))

    return re.sub(rf"\b{STRING}:(\d+)", mapped, text)


def _within(error: BaseException, script: Path) -> TracebackType | None:
    """The part of a traceback that begins in the script."""
    frame = error.__traceback__
    while frame and frame.tb_frame.f_code.co_filename != str(script):
        frame = frame.tb_next
    return frame or error.__traceback__


def _say(text: str) -> None:
    sys.stdout.flush()
    print(text, file=sys.stderr)
