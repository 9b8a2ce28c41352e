"""A mistake that a kernel made while it ran, with the place in the source where it made it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# Files whose lines are not the kernel author's: of a chain of inlined calls, the report takes the first other one.
PRIMITIVES = ("primitives.cuh", "hopper.cuh", "wgmma.cuh")
ADDRESS = re.compile(r"@([0-9a-f]+)@")

HINTS = {
    "race": "Two threads use the same memory, one of them writes, and nothing orders them: a __syncthreads() or "
    "__syncwarp() is missing between the two places, or two threads or blocks were given the same element.",
    "out of bounds": "Compare the index with the array's size; does every thread of the last block have an element?",
    "index": "The index lies outside of an array whose size is declared: look at loop bounds and extents.",
    "uninitialised": "Shared memory holds rubbish when a block begins: some thread skips its write, or the array is "
    "larger than what is written.",
    "misaligned": "A vector type, or a copy of n bytes, needs an address that is a multiple of its size: look at the "
    "offset, and at rows whose length is no multiple of the vector.",
    "barrier": "All threads of a block must come to the same __syncthreads(): take it out of conditions and loops that "
    "the threads do not run alike, and do not return before it.",
    "deadlock": "Some threads wait for others that wait elsewhere or have returned.",
    "warp": "All lanes named in the mask must come to the same warp operation, and only their values may be read.",
    "async": "What cp.async copies may be used after cp_async_wait<N>, where N newer groups may still be under way; by "
    "other threads only after a barrier behind that.",
    "overflow": "Compute indices that can pass 2**31 in long long or size_t, from the first multiplication on.",
    "shift": "A shift must be by less than the width of the type.",
    "division": "Can the divisor be 0?",
    "null pointer": "A pointer is null: was 0 passed for this argument?",
    "local memory": "A pointer to a local variable was given to another thread.",
    "stack": "Large local arrays belong into shared or global memory.",
}


class Place(NamedTuple):
    """A line of a source, and what stands there."""

    file: str
    line: int
    code: str = ""

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


class KernelError(RuntimeError):
    """A kernel did what it must not.

    kernel: its name; kind: the class of mistake (a key of HINTS, or another word); what: what happened, a sentence;
    block, thread: who noticed it, as (x, y, z); place: the line, if it could be found; source: the text compiled.
    """

    def __init__(
        self, kernel: str, kind: str, what: str, block: tuple[int, ...], thread: tuple[int, ...],
        place: Place | None = None, source: str = "",
    ) -> None:  # fmt: skip
        self.kernel, self.kind, self.what, self.block, self.thread = kernel, kind, what, block, thread
        self.place, self.source = place, source
        where = f" at {place}" if place else ""
        super().__init__(f"{kernel}: {kind}{where}, block {_triple(block)}, thread {_triple(thread)}: {what}")

    @property
    def file(self) -> str | None:
        """The place's file."""
        return self.place.file if self.place else None

    @property
    def line(self) -> int | None:
        """The place's line."""
        return self.place.line if self.place else None

    @property
    def hint(self) -> str | None:
        """What to look for."""
        return HINTS.get(self.kind)


def _triple(numbers: Iterable[int]) -> str:
    return f"({','.join(map(str, numbers))})"


def locate(library: Path, base: int, addresses: list[int], own: Path) -> list[list[Place]]:
    """For each return address: its line in the kernel's sources, and the lines from which that was inlined.

    base: where the library lies in memory; own: the folder of the simulator's sources, whose lines are left out.
    """
    if not addresses:
        return []
    offsets = [f"{address - base - 1:#x}" for address in addresses]  # minus 1: in the call, not behind it
    try:
        command = ["addr2line", "-a", "-i", "-e", str(library), *offsets]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return [[] for _ in addresses]
    chains: list[list[Place]] = []
    for line in text.splitlines():
        if line.startswith("0x"):
            chains.append([])
            continue
        file, _, number = line.split(" ")[0].rpartition(":")
        hidden = Path(file).is_relative_to(own) or Path(file).name in PRIMITIVES
        if number.isdigit() and int(number) and not hidden:
            chains[-1].append(Place(str(Path(file)), int(number)))
    return chains


def with_places(text: str, library: Path, base: int, own: Path) -> str:
    """Put lines of the source where the runtime's text has addresses."""
    addresses = list(dict.fromkeys(int(found, 16) for found in ADDRESS.findall(text)))
    chains = dict(zip(addresses, locate(library, base, addresses, own), strict=True))

    def named(match: re.Match[str]) -> str:
        chain = chains[int(match[1], 16)]
        return f" at {chain[0]}" if chain else ""

    return ADDRESS.sub(named, text)
