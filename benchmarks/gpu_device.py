"""What the stages of gpu.py share: the device and its array library, timing by its events, sets of inputs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = Any
Call = Callable[[], Any]


class Device:
    """A CUDA device, or the simulator: `xp` is CuPy or the stand-in for it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.name, self.quick, self.tiny = (settings[name] for name in ("device", "quick", "tiny"))
        self.simulated = self.name == "simulate"
        if self.simulated:
            from minitorch_unet.simulator import standin as xp
        else:
            import cupy as xp
            if ":" in self.name:
                xp.cuda.Device(int(self.name.partition(":")[2])).use()
        self.xp: Any = xp
        self.cache = int(xp.cuda.Device().attributes["L2CacheSize"])
        self.runs = 3 if self.quick else 20

    def copies(self, nbytes: int) -> int:
        """How many sets of inputs of this size to take in turn: none is still in the cache when its turn comes."""
        if self.simulated:
            return 1
        return max(2, min(64, -(-3 * self.cache // max(nbytes, 1))))

    def seconds(self, calls: Sequence[Call], runs: int | None = None) -> dict[str, Any]:
        """Median time of one of the calls, which are made one after another, by events: {"seconds", "spread", "timed"}.

        The calls are captured in a graph, whose replays are timed: between them nothing waits for Python. Where they
        cannot be captured the calls themselves are timed ("timed": "calls"), and short ones look longer than they are.
        Spread: difference of the quartiles. On the simulator the calls are made once, and no time is told.
        """
        if self.simulated:
            calls[0]()
            return {"timed": "not on the simulator"}
        xp, cuda = self.xp, self.xp.cuda
        for call in calls[:2]:  # compiles, and fills the memory pool
            call()
        cuda.Device().synchronize()
        stream = cuda.Stream(non_blocking=True)
        how = "graph"
        with stream:
            try:
                replay = self.captured(stream, calls)
            except Exception as error:
                how = f"calls; not captured: {type(error).__name__}: {error}"[:200]
                replay = lambda: [call() for call in calls]  # noqa: E731
            times = []
            for _ in range((runs or self.runs) + 2):
                begin, end = cuda.Event(), cuda.Event()
                begin.record(stream)
                replay()
                end.record(stream)
                end.synchronize()
                times.append(1e-3 * xp.cuda.get_elapsed_time(begin, end) / len(calls))
        low, _, high = statistics.quantiles(times[2:], n=4)
        return {"seconds": statistics.median(times[2:]), "spread": high - low, "timed": how}

    def called_seconds(self, work: Call, block: int) -> float | None:
        """Median seconds of one call, by events around `block` of them: the host may run ahead of the device."""
        work()
        if self.simulated:
            return None
        times = []
        for _ in range(3 if self.quick else 12):
            begin, end = self.xp.cuda.Event(), self.xp.cuda.Event()
            begin.record()
            for _ in range(block):
                work()
            end.record()
            end.synchronize()
            times.append(1e-3 * self.xp.cuda.get_elapsed_time(begin, end) / block)
        return statistics.median(times)

    def captured(self, stream: Any, calls: Sequence[Call]) -> Call:
        """A function that starts the calls as one graph."""
        stream.begin_capture()
        try:
            kept = [call() for call in calls]  # results must live until the end, or their memory serves several calls
        finally:
            graph = stream.end_capture()
        del kept
        return lambda: graph.launch(stream)

    def random(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        """Standard normal values on the device."""
        return self.xp.asarray(rng.standard_normal(shape, dtype=np.float32)).astype(dtype)


def network_of(settings: dict[str, Any]) -> tuple[int, int, int]:
    """(pixels, base, depth) of the network that is timed: the paper's, or a tiny one."""
    return (20, 8, 1) if settings["tiny"] else (572, 64, 4)


def relative_error(found: Array, exact: Array) -> float:
    """rms of the difference / rms of `exact`, both brought to float64 on the host. NaN stays NaN."""
    found, exact = (on_host(a).astype(np.float64) for a in (found, exact))
    if found.shape != exact.shape:
        raise ValueError(f"relative_error: shapes are {found.shape} and {exact.shape}")
    return float(np.sqrt(np.mean((found - exact) ** 2)) / max(np.sqrt(np.mean(exact**2)), 1e-300))


def on_host(array: Array) -> np.ndarray:
    """The array in host memory."""
    return array if isinstance(array, np.ndarray) else array.get()


def earlier(settings: dict[str, Any], stage: str) -> dict[str, Any]:
    """The rows that an earlier stage wrote, those that failed left out: {item: row}."""
    path = Path(settings["earlier"])
    rows = json.loads(path.read_text())["stages"].get(stage, {}).get("items", {}) if path.exists() else {}
    return {name: row for name, row in rows.items() if not {"failed", "skipped"} & set(row)}
