"""What concerns the whole graph of a thread: whether it is recorded, what is remade, checked, named and measured."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class NonFiniteError(FloatingPointError):
    """Raised in anomaly mode at the first operation that turns finite numbers into NaN or infinity."""


class _State(threading.local):
    """Per thread: is the graph recorded, are results remade, anomaly mode on, modules named, and which one runs.

    `profiler`, where there is one, runs the rules of the operations in their callers' place: see profiler/recording.py.
    new_parameters: those made since the outermost call of a module began; None outside of calls.
    """

    recording = True
    remaking = False
    anomaly = False
    naming = False
    module_path = ""
    module_names: dict[int, str] | None = None
    profiler: Any = None
    new_parameters: list[Any] | None = None


state = _State()


@contextlib.contextmanager
def changed(**values: Any) -> Iterator[None]:
    """Within it the state has these values."""
    before = {name: getattr(state, name) for name in values}
    vars(state).update(values)
    try:
        yield
    finally:
        vars(state).update(before)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Within `with no_grad():` (or a function decorated with `@no_grad()`) no history is kept."""
    return changed(recording=False)


def enable_grad() -> contextlib.AbstractContextManager[None]:
    """Within `with enable_grad():` history is kept again, also inside `no_grad`."""
    return changed(recording=True)


def remade(on: bool = True) -> contextlib.AbstractContextManager[None]:
    """Within `with remade():` whatever keeps a result for its backward rule keeps the way to make it again instead.

    To save memory with operations that are quickly done and whose inputs are kept anyway: a pooled map is remade from
    the map, an upsampled one by its up-convolution. The same routine runs on the same arrays, so no bit changes.
    """
    return changed(remaking=on)


def is_grad_enabled() -> bool:
    """Whether operations on Tensors are being recorded."""
    return state.recording


def detect_anomaly() -> contextlib.AbstractContextManager[None]:
    """Check every result and gradient; raise NonFiniteError naming op, module and element of the first bad one."""
    return changed(anomaly=True, naming=True)


def named_operations() -> contextlib.AbstractContextManager[None]:
    """Within it each operation knows the path of its module: `state.module_path`, in the backward pass, too."""
    return changed(naming=True)


def module_scope(path: str, names: dict[int, str]) -> contextlib.AbstractContextManager[None]:
    """Within it, operations belong to the module at `path`; `names` holds the paths of all modules below the root."""
    return changed(module_path=path, module_names=names)
