"""What `minitorch-unet info` prints: versions, threads, devices, kernels."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from minitorch_unet import __version__

from .backend import available_cores, cuda_unavailable_reason, get_num_threads, library, simulator_unavailable_reason
from .backend.compiled import status
from .kernels import source_folder

OPTIONAL = ("scipy", "pillow", "safetensors", "tqdm", "matplotlib", "tifffile", "ml_dtypes")
CUPY_PACKAGES = ("cupy-cuda13x", "cupy-cuda12x", "cupy")


def environment() -> list[tuple[str, str]]:
    """(what, value) pairs that a bug report or a benchmark needs."""
    import numpy as np
    from threadpoolctl import threadpool_info

    rows = [
        ("minitorch_unet", __version__),
        ("python", f"{sys.version.split()[0]} on {platform.platform()}"),
        ("numpy", np.__version__),
    ]
    rows += [(name, _version(name)) for name in OPTIONAL]
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            kind = f"{pool['internal_api']} {pool['version']}, {pool.get('architecture', '?')}"
            rows.append(("matrix products", f"{kind}, {pool['num_threads']} threads"))
    forced = os.environ.get("OPENBLAS_CORETYPE")
    if forced:
        rows.append(("warning", f"OPENBLAS_CORETYPE={forced} fixes the processor type; unset it for full speed"))
    rows += [
        ("threads", f"{get_num_threads()} (of {available_cores()} cores this process may use)"),
        *_devices(),
        ("kernel sources", str(source_folder())),
        ("compiled kernels", status()),
    ]
    return rows


def versions() -> dict[str, str]:
    """The versions that decide what is computed: Python, NumPy, SciPy, and CuPy where it is installed."""
    found = {"python": sys.version.split()[0], "numpy": _version("numpy"), "scipy": _version("scipy")}
    cupy = {name: _version(name) for name in CUPY_PACKAGES}
    return found | {name: version for name, version in cupy.items() if version != "not installed"}


def processor() -> str:
    """The processor's name as the system tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _devices() -> list[tuple[str, str]]:
    """What `--device` may be here, and why it may not."""
    installed = [f"{name} {_version(name)}" for name in CUPY_PACKAGES if _version(name) != "not installed"]
    rows = [("cupy", ", ".join(installed) or "not installed")]
    reason = cuda_unavailable_reason()
    rows.append(("cuda", f"not available: {reason}" if reason else "available"))
    if not reason:
        runtime = library("cuda:0").cuda.runtime
        versions = [f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.runtimeGetVersion(), runtime.driverGetVersion())]
        rows.append(("cuda versions", f"runtime {versions[0]}, driver for up to {versions[1]}"))
        for number in range(runtime.getDeviceCount()):
            found = runtime.getDeviceProperties(number)
            memory = f"{found['totalGlobalMem'] / 2**30:.1f} GiB, {found['multiProcessorCount']} multiprocessors"
            capability = f"compute capability {found['major']}.{found['minor']}"
            rows.append((f"cuda:{number}", f"{found['name'].decode()}, {memory}, {capability}"))
    reason = simulator_unavailable_reason()
    rows.append(("simulate", f"not available: {reason}" if reason else "available: CUDA kernels on the processor"))
    return rows


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
