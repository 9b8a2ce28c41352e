"""One rule that ran: what a profile is a list of."""

from __future__ import annotations

import dataclasses

Shape = tuple[int, ...]


@dataclasses.dataclass
class Call:
    """One rule that ran. Times are in seconds of `time.perf_counter`."""

    name: str  # of the operation; of the optimiser for an update
    phase: str  # "forward", "backward" or "update"
    module: str  # path of the module that it belongs to, "down.1"; the class's name for the root; "" outside modules
    inputs: list[Shape | None]  # shapes; None for what is no array
    outputs: list[Shape | None]  # of the result; in the backward phase of the gradients, None where none is wanted
    start: float
    end: float
    flops: int | None  # operations that the formula asks for, see ops/flops.py
    bytes: int  # of the results
    kept: int  # bytes kept for the backward rule besides inputs and result
    live: int | None = None  # with profile_memory: bytes in use after it, of what was made since the profile began
    peak: int | None = None  # with profile_memory: the most there were in use while it ran
    self_time: float = 0.0  # seconds without those of the calls inside it (a gradient that is itself recorded)

    @property
    def time(self) -> float:
        """Seconds from its beginning to its end."""
        return self.end - self.start


def set_self_times(calls: list[Call]) -> None:
    """Each call's time without that of the calls directly inside it, which ended before it did."""
    waiting: list[Call] = []  # ended, in order, and not yet found inside another
    for call in calls:
        call.self_time = call.time
        while waiting and waiting[-1].start >= call.start:
            call.self_time -= waiting.pop().time
        waiting.append(call)
