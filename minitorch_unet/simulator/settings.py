"""How kernels are built and run where nothing else is said: the mode, and the order of threads."""

from __future__ import annotations

import os

from .build import MODES

MODE, SEED = "MINITORCH_UNET_SIMULATOR", "MINITORCH_UNET_SIMULATOR_SEED"

_mode: str | None = None
_seed: int | None = None


def mode() -> str:
    """How kernels are built.

    "fast"; "check" for races, bounds, uninitialised reads and so on (several times slower); "count" to count accesses.
    What `set_mode` said, else the environment variable MINITORCH_UNET_SIMULATOR, else "fast". Raises ValueError for
    another value of the variable.
    """
    chosen = _mode or os.environ.get(MODE) or "fast"
    if chosen not in MODES:
        raise ValueError(f"{MODE} is {chosen!r}; legal are {', '.join(map(repr, MODES))}")
    return chosen


def set_mode(chosen: str | None) -> None:
    """Build kernels in this mode from now on; None: as the environment variable says. Raises ValueError for others."""
    global _mode
    if chosen is not None and chosen not in MODES:
        raise ValueError(f"set_mode: mode is {chosen!r}; legal are {', '.join(map(repr, MODES))} and None")
    _mode = chosen


def seed() -> int:
    """The start of the random order of threads and blocks; 0: they run in order.

    What `set_seed` said, else the environment variable MINITORCH_UNET_SIMULATOR_SEED, else 0. Raises ValueError for a
    value of the variable that is no whole number from 0 on.
    """
    if _seed is not None:
        return _seed
    text = os.environ.get(SEED) or "0"
    if not text.isdecimal():
        raise ValueError(f"{SEED} is {text!r}; it must be a whole number from 0 on")
    return int(text)


def set_seed(chosen: int | None) -> None:
    """Run threads and blocks in the random order of this number (0: in order); None: as the environment says."""
    global _seed
    if chosen is not None and not 0 <= chosen < 2**64:
        raise ValueError(f"set_seed: seed is {chosen}; legal are 0 to 2**64 - 1 and None")
    _seed = chosen
