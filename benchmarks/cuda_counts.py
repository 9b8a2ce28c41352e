"""What each CUDA convolution asks of memory, and what the compiler made of it: tables for two documents. No GPU needed.

    python benchmarks/cuda_counts.py                 a few minutes; counts of the simulator, listings of NVRTC
    python benchmarks/cuda_counts.py --parts traffic,instructions

Fills docs/cuda-kernels.md and kernels/README.md between `<!-- counts: NAME -->` and `<!-- /counts: NAME -->`, NAME
being one of PARTS. The counts are of one small layer on every rung, its sums unsplit: they are counts, not times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from report import ROOT, fill
from tables import TITLES, table

from minitorch_unet import set_float32_matmul_precision, simulator
from minitorch_unet.backend import named_dtype
from minitorch_unet.backend.cuda import inspection
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.kernels import source_folder
from minitorch_unet.simulator import standin
from minitorch_unet.simulator.module import loaded

DOCUMENTS = ("docs/cuda-kernels.md", "kernels/README.md")
C, K, H = 64, 128, 18  # the layer: channels, filters, input rows and columns; 3x3, so that 16 x 16 pixels come out
FMAS = 9 * C * K * (H - 2) ** 2  # of a pass, in direct arithmetic


class Rung(NamedTuple):
    """A rung of the ladder with a type of maps, and how exactly products of float32 are computed."""

    title: str
    algorithm: str
    dtype: str
    precision: str = "highest"


RUNGS = (
    Rung("1 naive, float32", "naive", "float32"),
    Rung("2 tiled, float32", "tiled", "float32"),
    Rung("3 gemm, float32", "gemm", "float32"),
    Rung("4 mma, three TF32", "mma", "float32"),
    Rung("4 mma, TF32", "mma", "float32", "high"),
    Rung("4 mma, bfloat16", "mma", "bfloat16"),
    Rung("5 hopper, TF32", "hopper", "float32", "high"),
    Rung("5 hopper, bfloat16", "hopper", "bfloat16"),
)
LOWER = ("5 hopper, TF32", "weight_grad")  # what a lower rung serves, since TF32 factors cannot be turned
CASES = [(rung, direction) for rung in RUNGS for direction in TITLES if (rung.title, direction) != LOWER]


class Launch(NamedTuple):
    """A launch of a kernel, as the launcher was asked for it."""

    file: str
    kernel: str
    grid: tuple[int, ...]
    block: int
    defines: dict[str, str]
    shared: int


class Counted(NamedTuple):
    """The launch that computed a pass, and what it did."""

    launch: Launch
    read: int  # bytes of memory, in whole sectors, or in boxes
    sectors: tuple[int, int]  # of threads' loads: needed, and the least for the same values
    passes: tuple[int, int]  # of shared memory, loads and stores: the same
    barriers: int
    wgmmas: int


class OneMultiprocessor(CudaKernels):
    """Kernels for a device so small that every layer fills it: large tiles, no sum split. Keeps the launches."""

    multiprocessors = 1

    def __init__(self) -> None:
        super().__init__(standin)
        self.launches: list[Launch] = []
        self.launch = self._noted

    def _noted(
        self, file: str, kernel: str, grid: Any, block: int, defines: Any = None, shared: int = 0, **arguments: Any
    ) -> None:
        triple = (grid, 1, 1) if isinstance(grid, int) else grid
        self.launches.append(Launch(file, kernel, triple, block, dict(defines or {}), shared))
        self.launcher.launch(file, kernel, grid, block, defines, shared, **arguments)


def count(rung: Rung, direction: str, c: int = C, k: int = K, h: int = H) -> Counted:
    """Compute one pass of a 3x3 layer in the simulator; raises ValueError where it was not one launch of the rung's."""
    rng = np.random.default_rng(0)

    def channels_last(n: int, channels: int, rows: int, dtype: str) -> Any:
        values = rng.standard_normal((n, rows, rows, channels)).astype(named_dtype(dtype))
        return standin.asarray(values).transpose(0, 3, 1, 2)

    x, gy = channels_last(1, c, h, rung.dtype), channels_last(1, k, h - 2, rung.dtype)
    weight, rest = channels_last(k, c, 3, "float32"), ((1, 1), (0, 0), (1, 1), 1)
    kernels = OneMultiprocessor()
    kernels.algorithm = rung.algorithm
    passes: dict[str, Callable[[], Any]] = {
        "forward": lambda: kernels.conv2d(x, weight, None, *rest),
        "input_grad": lambda: kernels.conv2d_input_grad(gy, weight, (h, h), *rest),
        "weight_grad": lambda: kernels.conv2d_weight_grad(x, gy, (3, 3), *rest),
    }
    simulator.set_mode("count")
    set_float32_matmul_precision(rung.precision)
    try:
        for module in loaded():
            module.stats()  # counts of what ran before
        passes[direction]()
    finally:
        set_float32_matmul_precision("highest")
        simulator.set_mode(None)
    main = [launch for launch in kernels.launches if launch.file.startswith(f"conv_{rung.algorithm}")]
    if len(main) != 1:
        raise ValueError(f"count: {rung.title}, {direction}: launched {[launch.kernel for launch in kernels.launches]}")
    return counted(main[0])


def counted(launch: Launch) -> Counted:
    """What the one launch of that source since the last counts did."""
    for module in loaded():
        stats = module.stats()
        if stats["launches"] and f'#line 1 "{launch.file}"\n' in module.source.text:
            loads = [row for row in module.traffic if (row.space, row.kind) == ("global", "load")]
            shared = [row for row in module.traffic if row.space == "shared" and row.place.line]  # 0: the copy engine
            sectors, passes = ((sum(r.units for r in rows), sum(r.least for r in rows)) for rows in (loads, shared))
            read = 32 * sectors[0] + stats["bulk_load_bytes"]
            return Counted(launch, read, sectors, passes, stats["barriers"], stats["wgmmas"])
    raise ValueError(f"counted: no module of {launch.file} was launched")


# ------------------------------------------------------------------------------------------------ tables

TRAFFIC = [
    "rung", "pass", "blocks × threads", "read, KiB", "FLOP a byte", "sectors / least", "shared passes", "FMA a pass",
    "passes / least", "barriers a block", "shared memory, KiB",
]  # fmt: skip
INSTRUCTIONS = [
    "rung", "pass", "registers", "instructions", "FFMA", "HMMA, HGMMA", "LDG", "LDGSTS, UTMALDG", "LDS, LDSM", "STS",
]  # fmt: skip
KERNELS = ["source", "kernels", "variants", "registers", "static shared memory, bytes", "must contain"]


def ratio(needed: tuple[int, int]) -> str:
    """Needed / least; a dash for nothing."""
    return f"{needed[0] / needed[1]:.2f}" if needed[1] else "–"


def compiled(launch: Launch) -> inspection.CompiledKernel:
    """The launched kernel as the compiler makes it for the newest architecture that its source states."""
    path = source_folder() / "cuda" / launch.file
    defines = tuple(f"{name}={value}" for name, value in sorted(launch.defines.items()))
    architecture = inspection.read_source(path).architectures[-1]
    return inspection.compile_file(path, defines, architecture).kernels[launch.kernel]


def traffic_row(rung: Rung, direction: str, found: Counted) -> list[str]:
    """A line of the table `traffic`."""
    blocks = int(np.prod(found.launch.grid))
    static = compiled(found.launch).shared
    passes = found.passes[0]
    return [
        rung.title, TITLES[direction], f"{blocks} × {found.launch.block}", f"{found.read / 1024:.0f}",
        f"{2 * FMAS / found.read:.1f}", ratio(found.sectors), str(passes or "–"),
        f"{FMAS / passes:.0f}" if passes and not found.wgmmas else "–", ratio(found.passes),
        f"{found.barriers / blocks:.0f}", f"{(static + found.launch.shared) / 1024:.1f}",
    ]  # fmt: skip


def instructions_row(rung: Rung, direction: str, found: Counted) -> list[str]:
    """A line of the table `instructions`."""
    kernel = compiled(found.launch)

    def times(*names: str) -> str:
        return str(sum(kernel.count(name) for name in names))

    return [
        rung.title, TITLES[direction], str(kernel.registers), str(kernel.instructions.total()), times("FFMA"),
        times("HMMA", "HGMMA"), times("LDG"), times("LDGSTS", "UTMALDG"), times("LDS", "LDSM"), times("STS"),
    ]  # fmt: skip


def kernel_rows() -> list[list[str]]:
    """The lines of the table `kernels`: every source, all of its variants for the newest architecture it states."""
    rows = []
    for path in inspection.sources():
        source = inspection.read_source(path)
        needed = sorted({name for budget in source.budgets.values() if budget for name in budget.needs})
        variants = [
            inspection.compile_file(path, variant, source.architectures[-1], listing=bool(needed))
            for variant in source.variants
        ]
        made = [kernel for variant in variants for kernel in variant.kernels.values()]
        registers, shared = ([getattr(kernel, what) for kernel in made] for what in ("registers", "shared"))
        rows.append([
            f"`{path.name}`", str(len(source.budgets)), str(len(source.variants)), span(registers), span(shared),
            ", ".join(needed) or "–",
        ])  # fmt: skip
    return rows


def span(numbers: list[int]) -> str:
    """The least and the largest."""
    return str(numbers[0]) if len(set(numbers)) == 1 else f"{min(numbers)} to {max(numbers)}"


PARTS = {"traffic": TRAFFIC, "instructions": INSTRUCTIONS, "kernels": KERNELS}


def tables_of(parts: list[str]) -> dict[str, str]:
    """The tables, in Markdown."""
    rows: dict[str, list[list[str]]] = {part: [] for part in parts}
    for rung, direction in CASES if {"traffic", "instructions"} & set(parts) else ():
        found = count(rung, direction)
        for part, row in (("traffic", traffic_row), ("instructions", instructions_row)):
            if part in parts:
                rows[part].append(row(rung, direction, found))
        print(f"{rung.title}, {direction}: {found.launch.kernel} {found.launch.defines}", flush=True)
    if "kernels" in parts:
        rows["kernels"] = kernel_rows()
    return {part: table(PARTS[part], rows[part]) for part in parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="commas between them (default: all)")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with the documents")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := sorted(set(parts) - set(PARTS)):
        parser.error(f"unknown parts {', '.join(unknown)}; known are {', '.join(PARTS)}")
    made = tables_of(parts)
    for name in DOCUMENTS:
        document = options.root / name
        text = document.read_text(encoding="utf-8")
        old = current(text)
        known = dict.fromkeys(PARTS, (None, None))
        text = fill(text, lambda part, half, old=old: made.get(part, old[part]), "counts", known)
        document.write_text(text, encoding="utf-8")
    print(f"filled {', '.join(parts)} in {' and '.join(DOCUMENTS)}")


def current(text: str) -> dict[str, str]:
    """What stands between a document's markers: {part: table}."""
    found: dict[str, str] = {}
    for part in PARTS:
        begin, end = f"<!-- counts: {part} -->\n", f"\n<!-- /counts: {part} -->"
        if begin in text:
            found[part] = text.partition(begin)[2].partition(end)[0]
    return found


if __name__ == "__main__":
    main()
