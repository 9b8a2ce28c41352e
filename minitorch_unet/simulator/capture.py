"""Stream capture: which stream is current, and the work recorded while one is being captured.

What CUDA does, and the stand-in: between begin_capture and end_capture nothing runs, launches are only recorded.
Results of recorded work exist (their shapes are known) but hold nothing yet; an array that the work changes in place
keeps its values until the graph is launched. Whatever needs a value on the host, and every transfer, is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from . import stats


class CaptureError(RuntimeError):
    """Something that CUDA does not allow while a stream is being captured."""


class Recording:
    """The work of one capture, in order."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.work: list[tuple[str, Callable[[], Any]]] = []

    def add(self, name: str, redo: Callable[[], Any]) -> None:
        """Record one launch."""
        self.work.append((name, redo))
        stats.note("captured", name)

    def replay(self) -> None:
        """Run everything."""
        for name, redo in self.work:
            redo()
            stats.note("replayed", name)


class _State:
    """The streams made current with `with`, the innermost last, and the capture that is under way."""

    streams: list[Any] = []  # noqa: RUF012 - one state for the module; the stand-in serves a single thread
    recording: Recording | None = None
    dry: bool = False


state = _State()


@contextlib.contextmanager
def dry() -> Iterator[None]:
    """Within it memory is handed out but never touched: nothing is launched, copied, filled or changed in place.

    To learn what work will need. Shapes and types are right, values are not; kernels are not even built.
    """
    before, state.dry = state.dry, True
    try:
        yield
    finally:
        state.dry = before


def dry_running() -> bool:
    """Whether a `dry` block is under way."""
    return state.dry


def capturing(what: str) -> Recording | None:
    """The recording that a launch belongs to, None outside a capture; raises for a launch on another stream."""
    recording = state.recording
    if recording is not None and (not state.streams or state.streams[-1] != recording.stream):
        raise CaptureError(f"{what}: launched on a stream other than the one that is being captured")
    return recording


def refuse_while_capturing(what: str) -> None:
    """Raise if a capture is under way: the host cannot wait for work that has not run."""
    if state.recording is not None:
        raise CaptureError(f"{what}: not permitted while a stream is being captured")


def synchronised(name: str) -> None:
    """The host waits for the device: counted, and refused during a capture."""
    refuse_while_capturing(name)
    stats.note("syncs", name)


def transferred(what: str, name: str, size: int) -> None:
    """`size` bytes go from the host ("upload") or to it ("download"): counted, and refused during a capture."""
    refuse_while_capturing(name)
    stats.note_bytes(what, size)
