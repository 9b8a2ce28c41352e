"""What the compiler makes of a kernel, and whether that is what its author meant.

A source states in comments what it is compiled for and what each kernel may use:

    //@ variants: T=float; T=half; T=bf16         sets of macros, each compiled by itself; default: one empty set
    //@ architectures: sm_90a                     default: sm_80 sm_90
    //@ budget: registers 96, shared 34816, needs HMMA LDSM.16.M88.4      directly above each kernel

`registers` (of a thread) and `shared` (bytes of static shared memory) are upper limits; `needs` names instructions of
the machine (SASS) that must be there, with as many of their suffixes as matter: the tensor cores' `HMMA` in a kernel
that is meant to use them. Never allowed, whatever the budget: registers that spill to memory, arrays that the compiler
could not keep in registers (a stack frame, LDL and STL), and remarks of the compiler.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ...kernels import source_folder
from . import nvrtc
from .sources import COMMENT, KERNEL, options, program

# What CuPy compiles for on Ampere and Hopper; the launcher asks for sm_90a where a source states it, and only there.
ARCHITECTURES = ("sm_80", "sm_90")
CUPY_OPTIONS = ("--device-as-default-execution-space", "-ftz=true")  # which CuPy adds to the launcher's
# What a table shows of the instructions: tensor cores, loads that feed them, local memory (which nobody wants).
SHOWN = ("HMMA", "HGMMA", "LDGSTS", "LDSM", "UTMALDG", "FFMA", "LDL", "STL")
FORBIDDEN = ("LDL", "STL")

DIRECTIVE = re.compile(r"^[ \t]*//@[ \t]*(.*)$", re.MULTILINE)
FUNCTION = re.compile(r"Compiling entry function '(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")
# Remarks of the assembler carry a number, (C7510) say, even if they call themselves "info".
REMARK = re.compile(r"^ptxas.*?(?:\(C\d+\)|warning).*$|^\S+:\d+: warning.*$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What one kernel may use and must contain."""

    registers: int
    shared: int
    needs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Source:
    """The directives of one file: sets of macros, architectures, and each kernel's budget (None: it states none)."""

    path: Path
    variants: tuple[tuple[str, ...], ...]
    architectures: tuple[str, ...]
    budgets: dict[str, Budget | None]


@dataclasses.dataclass(frozen=True)
class CompiledKernel:
    """What one kernel became. `instructions`: how often each stands in it; all other figures as ptxas prints them."""

    name: str
    registers: int
    shared: int
    stack: int
    spilled: int
    instructions: Counter[str]

    def count(self, instruction: str) -> int:
        """How often an instruction stands in the kernel; "LDG" counts LDG.E.128 too."""
        return sum(times for name, times in self.instructions.items() if f"{name}.".startswith(f"{instruction}."))


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One source, compiled once: its kernels, and what the compiler remarked."""

    kernels: dict[str, CompiledKernel]
    remarks: tuple[str, ...]


def sources(folder: Path | None = None) -> list[Path]:
    """All CUDA sources, those of the package by default."""
    return sorted((folder or source_folder() / "cuda").glob("*.cu"))


@functools.cache
def read_source(path: Path) -> Source:
    """The directives of a file. Raises ValueError, with file and line, for one that cannot be understood."""
    text = path.read_text(encoding="utf-8")
    variants: tuple[tuple[str, ...], ...] = ((),)
    architectures = ARCHITECTURES
    budgets: dict[str, Budget | None] = {}
    kernels = {found.start(): found["name"] for found in KERNEL.finditer(_without_comments(text))}
    for found in DIRECTIVE.finditer(text):
        word, _, value = (part.strip() for part in found.group(1).partition(":"))
        place = f"{path}:{text.count(chr(10), 0, found.start()) + 1}"
        if word == "variants":
            variants = tuple(tuple(part.split()) for part in value.split(";"))
        elif word == "architectures":
            architectures = tuple(value.replace(",", " ").split())
            unknown = [name for name in architectures if not re.fullmatch(r"sm_\d+[af]?", name)]
            if unknown or not architectures:
                raise ValueError(f"{place}: architectures are named like sm_90a, found {value!r}")
        elif word == "budget":
            start = min((start for start in kernels if start > found.end()), default=None)
            if start is None or kernels[start] in budgets:
                raise ValueError(f"{place}: a budget stands directly above its kernel, and each kernel has one")
            budgets[kernels[start]] = _budget(value, place)
        else:
            raise ValueError(f"{place}: unknown directive {word!r}; known are variants, architectures and budget")
    return Source(path, variants, architectures, {name: budgets.get(name) for name in kernels.values()})


def _without_comments(text: str) -> str:
    """The text with spaces in place of comments, all else where it was."""
    return COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def _budget(text: str, place: str) -> Budget:
    """`registers 96, shared 34816, needs HMMA LDSM` as a Budget."""
    parts = {part.split()[0]: part.split()[1:] for part in text.split(",") if part.strip()}
    try:
        if set(parts) - {"registers", "shared", "needs"}:
            raise ValueError
        (registers,), (shared,) = parts["registers"], parts["shared"]
        return Budget(int(registers), int(shared), tuple(parts.get("needs", ())))
    except (KeyError, ValueError):
        form = "'registers 96, shared 34816, needs HMMA LDSM' (needs may be left out)"
        raise ValueError(f"{place}: a budget reads {form}, found {text!r}") from None


@functools.cache
def compile_file(
    path: Path, defines: tuple[str, ...] = (), architecture: str = "sm_90", listing: bool = True
) -> Compiled:  # fmt: skip
    """Compile a file as the launcher does on a GPU of this architecture; raises `nvrtc.CompileError`.

    Without `listing` the instructions are not counted, which takes longer than most compilations do.
    """
    words = (define.partition("=") for define in defines)
    text = program(path, {name: value or "1" for name, _, value in words})
    flags = [*options(), f"-I{path.parent}", *CUPY_OPTIONS, f"-arch={architecture}", "--ptxas-options=-v"]
    return read_log(*nvrtc.compile_and_list(text, path.name, flags, listing))


def read_log(log: str, listed: dict[str, Counter[str]]) -> Compiled:
    """The kernels in the log of `--ptxas-options=-v`, with their instructions; and the remarks in it."""
    kernels = {}
    for part in re.split(r"(?=^ptxas info\s*: Compiling entry function)", log, flags=re.MULTILINE)[1:]:
        function, stacks, used = FUNCTION.search(part), STACK.findall(part), USED.search(part)
        if not function or not stacks or not used:
            raise ValueError(f"read_log: this is not what ptxas used to print: {part!r}")
        name = function.group(1)
        # A function that was not inlined has a stack of its own, listed with the kernel that calls it.
        frame, stores, loads = (sum(map(int, numbers)) for numbers in zip(*stacks, strict=True))
        kernels[name] = CompiledKernel(
            name, int(used.group(1)), int(used.group(2) or 0), frame, stores + loads, listed.get(name, Counter())
        )
    remarks = (" ".join(found.group().split()) for found in REMARK.finditer(log))
    return Compiled(kernels, tuple(dict.fromkeys(remarks)))


def findings(source: Source, compiled: Compiled) -> list[str]:
    """A sentence for everything that is not as it should be; none: all is well."""
    found = [f"the compiler remarks: {remark}" for remark in compiled.remarks]
    for kernel in compiled.kernels.values():
        budget = source.budgets.get(kernel.name)
        if budget is None:
            found.append(f"{kernel.name} states no budget; it uses '{_as_budget(kernel)}'")
            continue
        for what, used, legal in (
            ("registers", kernel.registers, budget.registers),
            ("bytes of static shared memory", kernel.shared, budget.shared),
            ("bytes spilled from registers", kernel.spilled, 0),
            ("bytes of stack", kernel.stack, 0),
        ):
            if used > legal:
                found.append(f"{kernel.name} uses {used} {what}, legal are at most {legal}")
        found += [f"{kernel.name} has no {name} instruction" for name in budget.needs if not kernel.count(name)]
        found += [f"{kernel.name} has {name} instructions: local memory" for name in FORBIDDEN if kernel.count(name)]
    return found


def _as_budget(kernel: CompiledKernel) -> str:
    """A budget that the kernel just keeps."""
    present = [name for name in ("HMMA", "HGMMA", "LDGSTS", "LDSM", "UTMALDG") if kernel.count(name)]
    needs = f", needs {' '.join(present)}" if present else ""
    return f"//@ budget: registers {kernel.registers}, shared {kernel.shared}{needs}"


def table(paths: Iterable[Path], architectures: Iterable[str] = ()) -> tuple[str, list[str]]:
    """Every kernel of the files in every variant and architecture as a table; and all findings, each with its place.

    architectures: instead of those that the files state.
    """
    head = ["kernel", "variant", "arch", "registers", "shared", "spilled", "instructions", *SHOWN]
    rows, found = [], []
    for path in paths:
        source = read_source(path.resolve())
        for variant in source.variants:
            for architecture in tuple(architectures) or source.architectures:
                compiled = compile_file(source.path, variant, architecture)
                where = " ".join((path.name, *variant, architecture))
                found += [f"{where}: {text}" for text in findings(source, compiled)]
                for kernel in compiled.kernels.values():
                    figures = (kernel.registers, kernel.shared, kernel.spilled, kernel.instructions.total())
                    shown = [kernel.count(name) for name in SHOWN]
                    rows.append([kernel.name, " ".join(variant) or "-", architecture, *map(str, (*figures, *shown))])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    form = "  ".join(f"{{:{'<' if i < 3 else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(form.format(*row) for row in (head, *rows)), found
