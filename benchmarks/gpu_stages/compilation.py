"""Every kernel in every variant, compiled for this device in parallel: what comes later finds it in CuPy's cache.

And what the compiler used on this machine made of each: registers, memory that registers spill to (which must be none).
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from pathlib import Path
from typing import Any

from gpu_child import Failed, Item, Skipped
from gpu_device import Device
from processes import cores

from minitorch_unet.backend.cuda import inspection
from minitorch_unet.backend.cuda.launcher import Launcher
from minitorch_unet.backend.cuda.sources import kernels_in


def items(settings: dict[str, Any]) -> list[Item]:
    return [("kernels", lambda: compile_all(settings))]


def compile_all(settings: dict[str, Any]) -> dict[str, Any]:
    if Device(settings).simulated:
        raise Skipped("the simulator builds a kernel when it is launched")
    jobs = [
        (path, variant)
        for path in inspection.sources()
        for variant in inspection.read_source(path).variants
        if runs_here(inspection.read_source(path), settings)
    ]
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(cores(), 16), context) as pool:
        found = list(pool.map(compiled, [settings] * len(jobs), jobs))
    kernels = {name: figures for by_name in found for name, figures in by_name.items()}
    row = {"seconds": round(time.monotonic() - began, 1), "kernels": kernels}
    if spilling := sorted(name for name, figures in kernels.items() if figures["local"]):
        raise Failed(f"local memory is used by {', '.join(spilling)}", **row)
    return row


def runs_here(source: inspection.Source, settings: dict[str, Any]) -> bool:
    """Whether the source's architectures hold this device's."""
    capability = Device(settings).xp.cuda.Device().compute_capability
    return any(name.rstrip("af") == f"sm_{capability}" for name in source.architectures) or (
        source.architectures == inspection.ARCHITECTURES
    )


def compiled(settings: dict[str, Any], job: tuple[Path, tuple[str, ...]]) -> dict[str, dict[str, Any]]:
    """{kernel and macros: registers, static shared and local bytes} of one variant of a source."""
    path, variant = job
    defines = {name: value or "1" for name, _, value in (define.partition("=") for define in variant)}
    launcher = Launcher(Device(settings).xp)
    figures = {}
    for kernel in kernels_in(path.name):
        raw = launcher.function(path.name, kernel, defines).raw
        figures[" ".join([kernel, *variant])] = {
            "registers": raw.num_regs, "shared": raw.shared_size_bytes, "local": raw.local_size_bytes,
        }  # fmt: skip
    return figures
