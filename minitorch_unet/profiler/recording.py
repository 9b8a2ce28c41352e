"""The recording of a profile, and what it tells: tables, a picture, JSON.

While a profile is open, the thread's `state.profiler` is set, and the engine hands every rule of an operation to it
rather than calling the rule itself: one place each for forward rules, backward rules and updates of parameters. The
profile calls the rule on the same arguments between two looks at the clock, so results do not change by a bit. With no
profile open the engine asks once whether there is one.

Work on a GPU is only queued by the processor. There a profile waits for the device before and after each rule: times
are those of each operation alone, and their sum is more than an unwatched step takes. Device "simulate" is timed as
what it is, work of the processor.
"""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..backend import Kernels, is_array, memory
from ..ops import Op, Part
from ..ops.flops import backward_flops, forward_flops
from ..tables import format_table
from ..tensor import Node, Tensor
from ..tensor.state import changed, state
from ..tensor.walk import memory_of, not_seen, saved_arrays
from . import flame
from .call import Call, set_self_times


class _Memory:
    """Live bytes since the profile began: large arrays by the heap's word, all else by tracemalloc's."""

    def __init__(self) -> None:
        self.heap = self.most = 0
        self.base = tracemalloc.get_traced_memory()[0]

    def watch(self, number: int, change: int) -> None:
        """An array in the heap was made, or died."""
        self.look()
        self.heap += change
        self.look()

    def look(self, pool: Any = None) -> int:
        """Bytes in use now; `most` is the most there were since somebody set it."""
        now, peak = (size - self.base for size in tracemalloc.get_traced_memory())
        tracemalloc.reset_peak()
        device = 0 if pool is None else pool.used_bytes()
        self.most = max(self.most, self.heap + peak + device)
        return self.heap + now + device


class profile:
    """Records every operation of this thread within the `with` block; what is there afterwards is in `calls`.

    `profile_memory`: measure live and peak bytes, too. Small arrays are then counted by tracemalloc, which makes Python
    slower. Profiles nest: the outer one has the inner one's calls as well. An exception ends the profile, which keeps
    what it has; the operation that raised is not in it.
    """

    def __init__(self, profile_memory: bool = False) -> None:
        self.calls: list[Call] = []
        self.paths: set[str] = set()  # of all modules that were seen
        self.start = self.end = 0.0
        self._memory: _Memory | None = None
        self._profile_memory = profile_memory
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> profile:
        outer = state.profiler
        self.calls = []
        with contextlib.ExitStack() as stack:
            if self._profile_memory:
                if not tracemalloc.is_tracing():
                    tracemalloc.start()
                    stack.callback(tracemalloc.stop)
                self._memory = _Memory()
                stack.enter_context(memory.watched(self._memory.watch))
            stack.callback(self._finish, outer)
            stack.enter_context(changed(profiler=self, naming=True))
            self._exit = stack.pop_all()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *error: Any) -> None:
        self.end = time.perf_counter()
        self._exit.close()

    def _finish(self, outer: profile | None) -> None:
        set_self_times(self.calls)
        if outer is not None:
            outer.calls += self.calls
            outer.paths |= self.paths

    # ------------------------------------------------------------- called by the engine

    def run_forward(self, op: type[Op], ctx: Any, arrays: Sequence[Any], params: Mapping[str, Any]) -> Any:
        """`op.forward(ctx, *arrays, **params)`, recorded."""
        if state.module_names is not None:
            self.paths.update(state.module_names.values())
        with self._timed(ctx.kernels, op.name, "forward") as call:
            call.inputs = [a.shape if is_array(a) else None for a in arrays]
            made = op.forward(ctx, *arrays, **params)
        call.outputs, call.bytes = [made.shape], made.nbytes
        call.flops = forward_flops(op.name, call.inputs, made.shape, params)
        given = {memory_of(a) for a in (*arrays, made) if is_array(a)}
        call.kept = sum(a.nbytes for a in not_seen(saved_arrays(ctx.saved), given))
        return made

    def run_backward(self, node: Node, kept: Any, given: list[Any]) -> Sequence[Any]:
        """`node.op.backward(kept, given.pop())`, recorded; the list lets the rule release the gradient early."""
        flops = backward_flops(node.op.name, kept, given[0].shape)
        with self._timed(kept.kernels, node.op.name, "backward") as call:
            call.inputs = [given[0].shape]
            found = node.op.backward(kept, given.pop())
        call.outputs = [None if g is None else g.shape for g in found]
        call.bytes, call.flops = sum(map(_bytes, found)), flops
        return found

    def run_update(self, optimizer: Any, kernels: Kernels, params: list[Any], *rest: Any) -> None:
        """`optimizer.update_all(params, *rest)`, recorded."""
        with self._timed(kernels, type(optimizer).__name__, "update") as call:
            call.inputs = [p.shape for p in params]
            optimizer.update_all(params, *rest)

    @contextlib.contextmanager
    def _timed(self, kernels: Kernels, name: str, phase: str) -> Iterator[Call]:
        call = Call(name, phase, state.module_path, [], [], 0.0, 0.0, None, 0, 0)
        pool = kernels.xp.get_default_memory_pool() if kernels.asynchronous and self._memory else None
        _wait(kernels)
        if self._memory is not None:
            self._memory.look(pool)
            before, self._memory.most = self._memory.most, 0
            self._memory.look(pool)
        call.start = time.perf_counter()
        yield call
        _wait(kernels)
        call.end = time.perf_counter()
        if self._memory is not None:
            call.live = self._memory.look(pool)
            call.peak = self._memory.most
            self._memory.most = max(before, call.peak)
        self.calls.append(call)

    # ------------------------------------------------------------------- what was found

    @property
    def total_time(self) -> float:
        """Seconds from the beginning to the end of the `with` block."""
        return self.end - self.start

    @property
    def flops(self) -> int:
        """Operations of all calls whose formula is known."""
        return sum(call.flops or 0 for call in self.calls)

    def rows(self, by: str = "op") -> list[dict[str, Any]]:
        """Calls added up by "op" or "module" (each phase on its own), or singly ("call"), the longest first."""
        if by not in ("op", "module", "call"):
            raise ValueError(f"profile: by is {by!r}; legal are 'op', 'module' and 'call'")
        groups: dict[Any, list[Call]] = {}
        for i, call in enumerate(self.calls):
            key = {"op": call.name, "module": call.module, "call": i}[by]
            groups.setdefault((key, call.phase), []).append(call)
        rows = []
        for calls in groups.values():
            known = [call.flops for call in calls if call.flops is not None]
            peaks = [call.peak for call in calls if call.peak is not None]
            row: dict[str, Any] = {"op": calls[0].name} if by != "module" else {}
            row |= {"module": calls[0].module} if by != "op" else {}
            row |= {
                "phase": calls[0].phase, "calls": len(calls), "time": sum(call.self_time for call in calls),
                "flops": sum(known) if known else None, "bytes": sum(call.bytes for call in calls),
                "kept": sum(call.kept for call in calls), "peak": max(peaks) if peaks else None,
            }  # fmt: skip
            if by == "call":
                row["shapes"] = " ".join(map(str, calls[0].inputs)) + " -> " + " ".join(map(str, calls[0].outputs))
            rows.append(row)
        return sorted(rows, key=lambda row: -row["time"])

    def _cells(self, by: str, limit: int | None) -> tuple[list[str], list[list[str]]]:
        """Head and lines of the table, as texts."""
        rows = self.rows(by)
        inside = sum(row["time"] for row in rows)
        names = [name for name in ("op", "module", "phase") if not rows or name in rows[0]]
        unit, prefix = (1e9, "G") if self.flops >= 1e9 else (1e6, "M")
        head = [*names, "calls", "ms", "%", f"{prefix}FLOP", "GFLOP/s", "MiB made", "MiB kept"]
        head += ["MiB peak"] * self._profile_memory + ["shapes"] * (by == "call")
        lines = []
        for row in rows[:limit]:
            rate = None if not row["flops"] or not row["time"] else row["flops"] / row["time"]
            lines.append([
                *(row[name] or "-" for name in names), str(row["calls"]), f"{row['time'] * 1e3:.2f}",
                f"{100 * row['time'] / self.total_time if self.total_time else 0:.1f}",
                _in(row["flops"], unit), _in(rate, 1e9, 1), _in(row["bytes"], 2**20), _in(row["kept"], 2**20),
                *([_in(row["peak"], 2**20)] * self._profile_memory), *([row["shapes"]] if by == "call" else []),
            ])  # fmt: skip
        if len(rows) > len(lines):
            lines.append([f"... {len(rows) - len(lines)} more"])
        lines.append(["outside operations", *[""] * len(names), f"{(self.total_time - inside) * 1e3:.2f}"])
        lines.append(["total", *[""] * (len(names) - 1), str(len(self.calls)), f"{self.total_time * 1e3:.2f}", "100.0",
                      _in(self.flops, unit)])  # fmt: skip
        return head, lines

    def table(self, by: str = "op", limit: int | None = None) -> str:
        """The rows as text, the longest first: at most `limit` of them, then what time went elsewhere, and all of it.

        "MiB made" are bytes of results, "MiB kept" those kept for the backward pass besides inputs and results.
        """
        return format_table(*self._cells(by, limit))

    def flame_svg(self) -> str:
        """The calls over time, each under its modules, as one self-contained SVG; see flame.py."""
        return flame.draw(self.calls, self.paths, self.start, self.end)

    def to_json(self) -> str:
        """Everything recorded: `total_time` in seconds, and a list of `calls`, their times from the beginning."""
        calls = []
        for call in self.calls:
            values = vars(call) | {"start": call.start - self.start, "end": call.end - self.start}
            calls.append(values)
        return json.dumps({"total_time": self.total_time, "flops": self.flops, "calls": calls})

    def _repr_html_(self) -> str:
        return f"{self.flame_svg()}{format_table(*self._cells('op', 12), html=True)}"


def _bytes(gradient: Any) -> int:
    if isinstance(gradient, Part):
        return gradient.array.nbytes
    data = gradient.data if isinstance(gradient, Tensor) else gradient
    return getattr(data, "nbytes", 0)


def _wait(kernels: Kernels) -> None:
    """Wait for the device, unless its work is being recorded rather than done."""
    if kernels.asynchronous:
        stream = kernels.xp.cuda.get_current_stream()
        if not stream.is_capturing():
            stream.synchronize()


def _in(value: float | None, unit: float, digits: int = 2) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"
