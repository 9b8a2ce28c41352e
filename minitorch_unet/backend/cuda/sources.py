"""The sources in kernels/cuda/: where they are, which kernels they hold, and what those take.

A kernel is declared as `extern "C" __global__ void [__launch_bounds__(...)] name(parameters)`. Its parameters are read
from there, so that an argument is checked against what the kernel really takes and nothing is written down twice.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...kernels import source_folder

KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?'
    r"(?P<name>\w+)\s*\((?P<parameters>[^)]*)\)"
)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
QUALIFIERS = re.compile(r"\bconst\b|\b__restrict__\b|\b__grid_constant__\b|\bvolatile\b")


class Parameter(NamedTuple):
    """One parameter of a kernel: its name, its C type without qualifiers, and whether it is a pointer to that type."""

    name: str
    type: str
    pointer: bool


@functools.cache
def source(file: str) -> str:
    """The text of kernels/cuda/`file`."""
    return (source_folder() / "cuda" / file).read_text(encoding="utf-8")


def program(path: Path, defines: Mapping[str, str]) -> str:
    """The text that is handed to the compiler: a source, with macros in front of it, its lines numbered as in its file.

    An option -D would come before NVRTC's built-in header, which has names like T in its templates. The headers' digest
    is there because CuPy looks up what it compiled before by the text and the options alone.
    """
    macros = "".join(f"#define {name} {value}\n" for name, value in sorted(defines.items()))
    text = path.read_text(encoding="utf-8")
    return f'// headers {_digest_of_headers(path.parent)}\n{macros}#line 1 "{path.name}"\n{text}'


@functools.cache
def _digest_of_headers(folder: Path) -> str:
    texts = [header.read_bytes() for header in sorted(folder.glob("*.cuh"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def options() -> list[str]:
    """What every source is compiled with."""
    return ["-std=c++17", f"-I{source_folder() / 'cuda'}"]


@functools.cache
def kernels_in(file: str) -> dict[str, tuple[Parameter, ...]]:
    """The kernels of a source file and their parameters, types as written there."""
    return parse(source(file))


def parse(text: str) -> dict[str, tuple[Parameter, ...]]:
    """{kernel: parameters} of a source's text."""
    found = {}
    for match in KERNEL.finditer(COMMENT.sub("", text)):
        parameters = [part for part in match["parameters"].split(",") if part.strip()]
        found[match["name"]] = tuple(_parameter(part) for part in parameters)
    return found


def _parameter(text: str) -> Parameter:
    plain = QUALIFIERS.sub(" ", text)
    *words, name = plain.replace("*", " * ").split()
    return Parameter(name, " ".join(word for word in words if word != "*"), "*" in words)


def directive(text: str, name: str) -> str | None:
    """What stands behind `//@ name:` in a source, or None."""
    match = re.search(rf"^//@ {name}:(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def resolved(type_name: str, defines: Mapping[str, str]) -> str:
    """A C type with the defines put in: `T` is `float` under {"T": "float"}."""
    return " ".join(defines.get(word, word) for word in type_name.split())
