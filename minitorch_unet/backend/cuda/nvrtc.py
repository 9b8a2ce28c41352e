"""CUDA sources to machine code without a GPU, without a driver and without the CUDA toolkit.

Two wheels of PyPI, which the extra `test` installs, hold all that it takes: NVRTC, the compiler that CuPy calls too
(hence what passes here is what runs there: it refuses things that nvcc accepts), and nvdisasm, which lists the
instructions (SASS) that a compiled kernel consists of. cuobjdump is not used: it starts nvdisasm to do the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

VERSION = (13, 0)  # budgets are stated for this compiler: another one may use other numbers of registers
INSTALL = "install the extra 'test' of minitorch-unet"
TOOLKIT = Path("/usr/local/cuda")  # where NVIDIA's own installer puts everything, if it was used


class CompileError(ValueError):
    """The compiler refused a source; the message holds its log, places being written as file:line."""


@functools.cache
def unavailable_reason() -> str | None:
    """Why sources cannot be compiled and listed here, in words; None when they can."""
    if not sys.platform.startswith("linux"):
        return f"the compiler is looked for on Linux only, this is {sys.platform}"
    if _nvrtc() is None:
        return f"NVRTC 13 is not installed; {INSTALL}"
    if _disassembler() is None:
        return f"nvdisasm is not installed; {INSTALL}"
    try:
        found = version()
    except OSError as error:
        return f"NVRTC cannot be loaded: {error}"
    if found != VERSION:
        return f"NVRTC is {found[0]}.{found[1]}, but the budgets are for {VERSION[0]}.{VERSION[1]}; {INSTALL}"
    return None


def version() -> tuple[int, int]:
    """Major and minor version of the compiler."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile_and_list(
    source: str, name: str, options: Sequence[str], listing: bool = True
) -> tuple[str, dict[str, Counter[str]]]:
    """The compiler's log, and with `listing` how often each instruction stands in each function (see `instructions`).

    What was compiled before, by the same compiler from the same text and options, is looked up in `cache_folder`; a
    text that includes others must change with them (sources.program sees to that). Errors as `compile_cubin`.
    """
    key = hashlib.sha256(json.dumps([version(), source, name, list(options), listing]).encode()).hexdigest()[:32]
    path = cache_folder() / f"{key}.json"
    if path.exists():
        log, listed = json.loads(path.read_text(encoding="utf-8"))
    else:
        cubin, log = compile_cubin(source, name, options)
        listed = instructions(cubin) if listing else {}
        _keep(path, json.dumps([log, listed]))
    return log, {function: Counter(counts) for function, counts in listed.items()}


def cache_folder() -> Path:
    """Where results are kept: minitorch-unet/nvrtc in $XDG_CACHE_HOME, or in ~/.cache where that is not set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "minitorch-unet" / "nvrtc"


def _keep(path: Path, text: str) -> None:
    """Write a file that appears whole, whoever else writes the same; a folder that cannot be written is no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            file.write(text)
        os.replace(file.name, path)


def compile_cubin(source: str, name: str, options: Sequence[str]) -> tuple[bytes, str]:
    """The machine code of `source` and the compiler's log.

    name: how messages call the source. options: as the compiler's command line has them; `-arch=sm_90` and the like
    must be among them. Raises CompileError with the log when the compiler refuses.
    """
    nvrtc = _library()
    program = ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None):
        raise CompileError(f"{name}: NVRTC cannot take this source")
    try:
        texts = [option.encode() for option in options]
        failed = nvrtc.nvrtcCompileProgram(program, len(texts), (ctypes.c_char_p * len(texts))(*texts))
        log = with_places(_fetch(program, "ProgramLog").rstrip(b"\0").decode())
        if failed:
            raise CompileError(log.strip() or f"{name}: NVRTC ends with error {failed}")
        return _fetch(program, "CUBIN"), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def with_places(log: str) -> str:
    """The log with every `file(line):` written `file:line:`, as editors and terminals understand it."""
    return re.sub(r"^(\S+?)\((\d+)\): ", r"\1:\2: ", log, flags=re.MULTILINE)


def instructions(cubin: bytes) -> dict[str, Counter[str]]:
    """How often each instruction ("HMMA.16816.F32.BF16", "LDG.E.128", ...) stands in each function of the code."""
    tool = _disassembler()
    if tool is None:
        raise ValueError(f"instructions: nvdisasm is not installed; {INSTALL}")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-json", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"instructions: nvdisasm failed: {done.stderr.strip()}")
    functions = json.loads(done.stdout)[1]
    return {f["function-name"]: Counter(i["opcode"] for i in f["sass-instructions"]) for f in functions}


def _fetch(program: ctypes.c_void_p, what: str) -> bytes:
    """What the library hands out in two calls, the size and then the bytes."""
    nvrtc, size = _library(), ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, buffer)
    return buffer.raw


@functools.cache
def _library() -> ctypes.CDLL:
    """The compiler's library, and before it the one with its built-in functions, which it finds only when loaded."""
    path = _nvrtc()
    if path is None:
        raise OSError(f"NVRTC 13 is not installed; {INSTALL}")
    for builtins in sorted(path.parent.glob("libnvrtc-builtins.so.13*")):
        ctypes.CDLL(str(builtins), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(path))


def _nvrtc() -> Path | None:
    return _first([folder / "lib" / "libnvrtc.so.13" for folder in _wheels()] + [TOOLKIT / "lib64" / "libnvrtc.so.13"])


def _disassembler() -> str | None:
    path = _first([folder / "bin" / "nvdisasm" for folder in (*_wheels(), TOOLKIT)])
    return str(path) if path else shutil.which("nvdisasm")


def _wheels() -> list[Path]:
    """The folders in which NVIDIA's wheels of CUDA 13 lie: a namespace package may have several."""
    spec = importlib.util.find_spec("nvidia")
    return [Path(place) / "cu13" for place in (spec.submodule_search_locations or ())] if spec else []


def _first(candidates: list[Path]) -> Path | None:
    return next((path for path in candidates if path.is_file()), None)
