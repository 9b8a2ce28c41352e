"""From a .cu source to a shared library, by g++; what was built before is found again in the cache folder.

The source is preprocessed behind `cusim.h`, the kernels are found in that text by the word `__global__`, CUDA's last
keywords are replaced, a table of the kernels is appended, and the whole is compiled and linked with the runtime.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..kernels import source_folder

UNUSED_SECONDS = 30 * 86400
STRING = "kernel.cu"  # what a source is called that comes as a string
MODES = ("fast", "check", "count")
_PLAIN = ("-O2", "-march=native", "-g1", "-gdwarf-4")
_CALLS_BACK = ("-O1", "-g1", "-gdwarf-4", "-DCUSIM_CALLBACKS")
FLAGS = {"fast": _PLAIN, "check": (*_CALLS_BACK, "-DCUSIM_CHECK"), "count": (*_CALLS_BACK, "-DCUSIM_COUNT")}
# Only the kernels call back at every access; the runtime, which answers, does not.
_VOLATILE = ("--param", "tsan-distinguish-volatile=1")
KERNEL_FLAGS = {
    "fast": (),
    "check": (
        "-fsanitize=thread,alignment,bounds,signed-integer-overflow,integer-divide-by-zero,shift",
        *_VOLATILE,
    ),
    "count": ("-fsanitize=thread", *_VOLATILE),
}
# Multiplications and additions are not fused: results do not depend on the machine.
COMMON = ("-std=gnu++17", "-fPIC", "-DCUSIM", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique", "-w")

_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_PARENTHESES = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_BOUNDS = rf"(?:__launch_bounds__\s*(?P<%s>{_PARENTHESES})\s*)?"
_KERNEL = re.compile(
    rf"(?P<before>\S?)\s*\b__global__\s+{_BOUNDS % 'first'}void\s+{_BOUNDS % 'second'}"
    rf"(?P<name>\w+)\s*(?P<parameters>{_PARENTHESES})"
)
_LINE_MARKER = re.compile(r"^#.*$", re.MULTILINE)
_DYNAMIC = re.compile(
    r"\bextern\s+__shared__\s+(?P<alignment>(?:__attribute__\s*\(\(.*?\)\)\s*|alignas\s*\(.*?\)\s*)*)"
    r"(?P<type>[\w:\s]+?)\s+(?P<after>__attribute__\s*\(\(.*?\)\)\s*)?(?P<name>\w+)\s*\[\s*\]\s*;"
)


class CompilerMissing(RuntimeError):
    """There is no C++ compiler, or it cannot be run."""


class CompileError(RuntimeError):
    """The source is not legal; the message holds the compiler's."""


class Source(NamedTuple):
    """A source's text, the name that messages give it, and the folders that its `#include` lines mean."""

    text: str
    name: str
    folders: tuple[Path, ...]


def read_source(source: str | os.PathLike[str], include: Sequence[str | os.PathLike[str]] = ()) -> Source:
    """The source in a file (a path) or in a string (anything with a line break in it)."""
    folders = [*(Path(folder).resolve() for folder in include), source_folder() / "cuda"]
    if isinstance(source, str) and "\n" in source:
        return Source(source, STRING, tuple(folders))
    path = Path(source).resolve()
    return Source(path.read_text(encoding="utf-8"), str(path), (path.parent, *folders))


def build(source: Source, mode: str, defines: Sequence[str] = ()) -> Path:
    """The library of a source's kernels: from the cache, or compiled now.

    Raises CompilerMissing and CompileError.
    """
    if mode not in FLAGS:
        raise ValueError(f"simulator: mode is {mode!r}; legal are {', '.join(map(repr, MODES))}")
    flags = (*COMMON, *FLAGS[mode])
    described = [_compiler()[1], flags, KERNEL_FLAGS[mode], defines, source.name, [str(f) for f in source.folders]]
    texts = [*_texts(source.text, source.folders), *_runtime_texts()]
    library = cache_folder() / f"{_digest(json.dumps(described), *texts)}-{mode}.so"
    if library.exists():
        with contextlib.suppress(OSError):  # a folder that may only be read
            os.utime(library)
    else:
        _forget_unused(library.parent)
        with tempfile.TemporaryDirectory(dir=_made(library.parent), prefix="building-") as scratch:
            objects = [_compile(source, mode, defines, flags, Path(scratch)), _runtime(flags, mode)]
            _put(library, ["-shared", "-Wl,-Bsymbolic", *map(str, objects), "-ldl"], Path(scratch))
    return library


def cache_folder() -> Path:
    """Where libraries are kept: minitorch-unet/simulator in $XDG_CACHE_HOME, or in ~/.cache where that is not set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home).absolute() if home else Path.home() / ".cache") / "minitorch-unet" / "simulator"


def _compile(source: Source, mode: str, defines: Sequence[str], flags: Sequence[str], scratch: Path) -> Path:
    """The object file of a source with its table of kernels."""
    # The macros stand behind cusim.h: its own names cannot clash with one called T.
    macros = [f"#define {name} {value if equals else 1}" for name, equals, value in (d.partition("=") for d in defines)]
    wrapped = "\n".join(['#include "cusim.h"', *macros, f'#line 1 "{source.name}"', source.text, ""])
    first, second, output = scratch / "kernel.cpp", scratch / "kernel.ii", scratch / "kernel.o"
    first.write_text(wrapped, encoding="utf-8")
    # In the debug information names without a folder get the working folder's: that one, of which nothing is left then.
    names = f"-fdebug-prefix-map={scratch}=."
    folders = [f"-I{folder}" for folder in (_runtime_folder(), *source.folders)]
    text = _run([*flags, *folders, names, "-E", str(first)], scratch)
    second.write_text(as_cpp(text), encoding="utf-8")
    _run([*flags, *KERNEL_FLAGS[mode], names, "-c", str(second), "-o", str(output)], scratch)
    return output


def as_cpp(text: str) -> str:
    """Replace what is left of CUDA in a preprocessed source and append the table of its kernels."""
    table: list[str] = []
    for found in _KERNEL.finditer(text):
        if found["before"] == ">":  # a template: no entry point
            continue
        bounds = (found["first"] or found["second"] or "(0)").strip()
        names = ",".join(parameter_names(_LINE_MARKER.sub("", found["parameters"])[1:-1]))
        name = found["name"]
        table.append(
            f"static cusim::Kernel cusim_kernel_{len(table)}"
            f'("{name}", &{name}, cusim::first_of{bounds}, "{names}");\n'
        )
    text = re.sub(rf"\b__launch_bounds__\s*{_PARENTHESES}", " ", text)
    text = _DYNAMIC.sub(r'extern \g<type> \g<name>[] __asm__("cusim_shared_window");', text)
    text = re.sub(r"\b__global__\b", " ", text)
    text = re.sub(r"\b__shared__\b", "static", text)
    return f'{text}\n# 1 "<kernels>"\n{"".join(table)}'


def parameter_names(parameters: str) -> list[str]:
    """The names in a list of parameters: the last word of each."""
    depth, parts = 0, [""]
    for character in parameters:
        depth += (character in "(<[") - (character in ")>]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [words[-1] for part in parts if (words := re.findall(r"\w+", part))]


# ---------------------------------------------------------------------------------------------------- the runtime


def _runtime_folder() -> Path:
    return source_folder() / "simulator"


@functools.cache
def _runtime_texts() -> list[str]:
    """All that a library depends on beside its source: the runtime's files, and how this file goes about it."""
    paths = [path for path in sorted(_runtime_folder().iterdir()) if path.is_file()]
    return [path.read_text(encoding="utf-8") for path in [*paths, Path(__file__)]]


def _runtime(flags: Sequence[str], mode: str) -> Path:
    """The object file of everything in kernels/simulator, built once for each mode."""
    made = cache_folder() / f"{_digest(_compiler()[1], repr(flags), *_runtime_texts())}-{mode}.o"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=_made(made.parent), prefix="building-") as scratch:
            objects = []
            for path in sorted(_runtime_folder().glob("*.cpp")):
                objects.append(str(Path(scratch) / f"{path.stem}.o"))
                _run([*flags, "-g0", f"-I{_runtime_folder()}", "-c", str(path), "-o", objects[-1]])
            _put(made, ["-r", "-nostdlib", *objects], Path(scratch))
    return made


# ---------------------------------------------------------------------------------------------------- files


def _digest(*texts: str) -> str:
    """Texts in, sixteen letters out; the lengths keep two texts apart from one that is their sum."""
    whole = hashlib.sha256()
    for text in texts:
        whole.update(f"{len(text)}:{text}".encode())
    return whole.hexdigest()[:24]


def _texts(text: str, folders: tuple[Path, ...]) -> Iterator[str]:
    """The text and those of the files it includes, directly or not, as far as they are found in `folders`."""
    queue, seen = [text], set()
    while queue:
        text = queue.pop()
        yield text
        for name in _INCLUDE.findall(text):
            path = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if path and path not in seen:
                seen.add(path)
                queue.append(path.read_text(encoding="utf-8"))


def _forget_unused(folder: Path) -> None:
    """Delete what was not used for a month."""
    for path in folder.glob("*.*o"):
        with contextlib.suppress(OSError):  # another process may be at it too
            if time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _put(path: Path, link: list[str], scratch: Path) -> None:
    """Link to a file that appears at `path` whole: another process may look at any moment, or make the same."""
    partial = scratch / path.name
    _run([*link, "-o", str(partial)])
    os.replace(partial, path)


# ---------------------------------------------------------------------------------------------------- the compiler


def unavailable_reason() -> str | None:
    """Why nothing can be compiled here, in words; None when it can."""
    try:
        _compiler()
    except CompilerMissing as error:
        return str(error)
    return None


def _compiler() -> tuple[tuple[str, ...], str]:
    return _identify(os.environ.get("CXX") or "g++")


@functools.cache
def _identify(name: str) -> tuple[tuple[str, ...], str]:
    """The command that `name`, perhaps with options, means, and a text that tells compiler and processor apart."""
    words = shlex.split(name)
    found = shutil.which(words[0]) if words else None
    if found is None:
        raise CompilerMissing(
            f"the CUDA simulator needs a C++ compiler: {name!r} is not found; install g++, or name one with CXX"
        )
    command = (found, *words[1:])
    asked = [*command, "-march=native", "-dM", "-E", "-x", "c++", os.devnull]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        raise CompilerMissing(f"the CUDA simulator needs g++; {name!r} (see CXX) cannot be used: {said}")
    if "__clang__" in done.stdout:
        raise CompilerMissing(f"the CUDA simulator needs g++; {name!r} (see CXX) is clang")
    return command, done.stdout


def _run(arguments: list[str], folder: Path | None = None) -> str:
    done = subprocess.run([*_compiler()[0], *arguments], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise CompileError(f"the source does not compile for the simulator:\n{done.stderr.strip()}")
    return done.stdout
