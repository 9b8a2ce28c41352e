"""What the figures were measured with: device, driver, versions, clocks; and the compiled CPU kernels, built here."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpu_child import Failed, Item, Skipped
from gpu_device import Device
from processes import cores, processor

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "numpy", "scipy", "cupy-cuda13x", "cupy-cuda12x", "nvidia-cuda-nvrtc", "torch", "triton", "pytest", "hypothesis",
    "ml_dtypes", "safetensors", "pillow", "matplotlib",
)  # fmt: skip
QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit,temperature.gpu"


def items(settings: dict[str, Any]) -> list[Item]:
    return [
        ("machine", machine),
        ("device", lambda: device(Device(settings))),
        ("nvidia-smi", nvidia_smi),
        ("CPU kernels", build_cpu_kernels),
    ]


def machine() -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    tools = {tool: shutil.which(tool) for tool in ("nvcc", "g++", "compute-sanitizer", "ncu")}
    commit = output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    return {
        "python": sys.version.split()[0], "system": platform.platform(), "processor": processor(), "cores": cores(),
        "versions": versions, "tools": tools, "commit": commit,
    }  # fmt: skip


def device(d: Device) -> dict[str, Any]:
    runtime = d.xp.cuda.runtime
    properties = runtime.getDeviceProperties(d.xp.cuda.Device().id)
    row = {
        "name": properties["name"].decode(), "compute_capability": str(d.xp.cuda.Device().compute_capability),
        "multiprocessors": properties["multiProcessorCount"], "memory_mib": properties["totalGlobalMem"] >> 20,
        "l2_mib": d.cache >> 20,
    }  # fmt: skip
    if not d.simulated:
        row |= {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}
        row["nvrtc"] = list(d.xp.cuda.nvrtc.getVersion())
    return row


def nvidia_smi() -> dict[str, Any]:
    if shutil.which("nvidia-smi") is None:
        raise Skipped("nvidia-smi is not there")
    values = output("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader").splitlines()[0].split(", ")
    return dict(zip(QUERY.split(","), values, strict=True))


def build_cpu_kernels() -> dict[str, Any]:
    """A fresh checkout has none; tests and comparisons with the processor want them."""
    if shutil.which("g++") is None:
        raise Skipped("there is no g++")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j", "8"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    from minitorch_unet.backend.compiled import available, status

    if not available():
        raise Failed(f"not in use: {status()}; the build said: {done.stderr[-400:]}")
    return {"status": status()}


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
