"""What `minitorch-unet info` prints: versions, threads, devices, kernels."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

from minitorch_unet import __version__

from .backend import available_cores, cuda_unavailable_reason, get_num_threads
from .backend.compiled import status
from .kernels import source_folder

OPTIONAL = ("scipy", "pillow", "safetensors", "tqdm", "matplotlib", "tifffile", "cupy")


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
        ("cuda", cuda_unavailable_reason() or "available"),
        ("kernel sources", str(source_folder())),
        ("compiled kernels", status()),
    ]
    return rows


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
