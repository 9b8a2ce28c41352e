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
            if settings.get("untimed"):  # for the sanitizer: see sanitizer.py
                xp.cuda.set_allocator(None)
        self.xp: Any = xp
        self.cache = int(xp.cuda.Device().attributes["L2CacheSize"])
        self.timed = not self.simulated and not settings.get("untimed")
        self.values: Array | None = None
        self.restart()

    def copies(self, nbytes: int) -> int:
        """How many sets of inputs of this size to take in turn: none is still in the cache when its turn comes."""
        if not self.timed:
            return 1
        return max(2, min(64, -(-3 * self.cache // max(nbytes, 1))))

    def seconds(self, calls: Sequence[Call], budget: float = 0.3) -> dict[str, Any]:
        """Median time of one of the calls, which are made one after another, by events: {"seconds", "spread", "timed"}.

        The calls are captured in a graph, whose replays are timed: between them nothing waits for Python. Where they
        cannot be captured the calls themselves are timed ("timed": "calls"), and short ones look longer than they are.
        Replays are made for `budget` seconds, at least two; spread: how far apart the quartiles are. Where nothing is
        to be timed (simulator, sanitizer) each call is made once.
        """
        if not self.timed:
            calls[0]()
            return {"timed": "no"}
        cuda = self.xp.cuda
        cuda.Device().synchronize()
        stream = cuda.Stream(non_blocking=True)
        how = "graph"
        with stream:
            # Compiles, and fills what the memory pool keeps for this stream: nothing can be allocated in a capture.
            kept = [call() for call in calls]
            del kept
            stream.synchronize()
            try:
                work = captured(stream, calls)
            except Exception as error:
                how = f"calls; not captured: {type(error).__name__}: {error}"[:200]
                work = lambda: [call() for call in calls]  # noqa: E731
            first = self.elapsed(work, stream)  # of a graph, the first replay is the slowest
            runs = max(2, min(3 if self.quick else 20, int(budget / first)))
            times = [self.elapsed(work, stream) / len(calls) for _ in range(runs)]
        low, _, high = statistics.quantiles(times, n=4)
        return {"seconds": statistics.median(times), "spread": high - low, "timed": how, "runs": runs}

    def elapsed(self, work: Call, stream: Any) -> float:
        """Seconds on the device between before and after the work."""
        begin, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        begin.record(stream)
        work()
        end.record(stream)
        end.synchronize()
        return 1e-3 * float(self.xp.cuda.get_elapsed_time(begin, end))

    def called_seconds(self, work: Call, block: int) -> float | None:
        """Median seconds of one call, by events around `block` of them: the host may run ahead of the device."""
        work()
        if not self.timed:
            return None
        stream = self.xp.cuda.get_current_stream()
        blocks = [self.elapsed(lambda: [work() for _ in range(block)], stream) for _ in range(3 if self.quick else 12)]
        return statistics.median(blocks) / block

    def restart(self) -> None:
        """Begin again with the random values."""
        self.random_calls = self.offset = 0

    def random(self, shape: tuple[int, ...]) -> Array:
        """Standard normal values on the device: a few million, which large arrays repeat. Others at each call."""
        count = int(np.prod(shape))
        if self.simulated:
            self.random_calls += 1
            return self.xp.asarray(np.random.default_rng(self.random_calls).standard_normal(shape, dtype=np.float32))
        if self.values is None:
            self.values = self.xp.asarray(np.random.default_rng(0).standard_normal(4_000_037, dtype=np.float32))
        out, values = self.xp.empty(count, np.float32), self.values
        done = 0
        while done < count:
            part = values[self.offset : self.offset + count - done]
            out[done : done + part.size] = part
            done, self.offset = done + part.size, (self.offset + part.size) % values.size
        return out.reshape(shape)


def captured(stream: Any, calls: Sequence[Call]) -> Call:
    """A function that starts the calls as one graph, on the stream, which must be current."""
    stream.begin_capture()
    try:
        kept = [call() for call in calls]  # results must live until the end, or their memory serves several calls
    finally:
        graph = stream.end_capture()
    del kept
    return lambda: graph.launch(stream)


def network_of(settings: dict[str, Any]) -> tuple[int, int, int]:
    """(pixels, base, depth) of the network that is timed: the paper's, or a tiny one."""
    return (20, 8, 1) if settings["tiny"] else (572, 64, 4)


def relative_error(found: Array, exact: Array) -> float:
    """rms of the difference / rms of `exact`, both brought to float64 on the host. NaN stays NaN."""
    found, exact = (on_host(a).astype(np.float64) for a in (found, exact))
    if found.shape != exact.shape:
        raise ValueError(f"relative_error: shapes are {found.shape} and {exact.shape}")
    return float(np.sqrt(np.mean((found - exact) ** 2)) / max(np.sqrt(np.mean(exact**2)), 1e-300))


def device_error(xp: Any, found: Array, exact: Array) -> float:
    """rms of the difference / rms of `exact` (float64, of the library `xp`), computed there."""
    difference = wide(found) - exact
    ratio = xp.sqrt((difference * difference).mean() / (exact * exact).mean())
    return float(on_host(ratio))


def wide(array: Array) -> Array:
    """The values in float64, in the same memory order."""
    return (array.astype(np.float32) if array.itemsize == 2 else array).astype(np.float64)


def on_host(array: Array) -> Any:
    """The array in host memory."""
    return array if isinstance(array, np.ndarray | np.generic) else array.get()


def earlier(settings: dict[str, Any], stage: str) -> dict[str, Any]:
    """The rows that an earlier stage wrote, those that failed left out: {item: row}."""
    path = Path(settings["earlier"])
    rows = json.loads(path.read_text())["stages"].get(stage, {}).get("items", {}) if path.exists() else {}
    return {name: row for name, row in rows.items() if not {"failed", "skipped"} & set(row)}
