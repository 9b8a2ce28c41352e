"""Learning rates: functions from the number of a step (from 0) to its rate, and one that watches a score."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """The same learning rate throughout."""
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """lr * factor^floor(step / every)."""
    if every < 1:
        raise ValueError(f"step_decay: every is {every}; it must be at least 1")
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, total: int, minimum: float = 0.0) -> Schedule:
    """Half a cosine from lr at step 0 to minimum at step `total`, and minimum from then on."""
    return lambda step: minimum + (lr - minimum) * (1 + math.cos(math.pi * min(step / max(1, total), 1))) / 2


def poly(lr: float, total: int, power: float = 0.9) -> Schedule:
    """lr (1 - step / total)^power, 0 from step `total` on."""
    return lambda step: lr * (1 - min(step / max(1, total), 1)) ** power


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """The schedule times (step + 1) / steps during its first `steps` steps."""
    return lambda step: schedule(step) * min(1.0, (step + 1) / max(1, steps))


def _only_fall(values: list[float]) -> bool:
    """Whether values fell at three of four steps, never rose above the first and end at their lowest."""
    falls = sum(b < a for a, b in itertools.pairwise(values))
    steps = len(values) - 1
    return steps >= 4 and 4 * falls >= 3 * steps and max(values[1:]) < values[0] and values[-1] == min(values)


class Plateau:
    """Multiplies the learning rate by `factor` when a score has not improved for more than `patience` updates.

    mode "min" for losses, "max" for scores such as IoU: a loss in mode "max" would lower the rate just when it is good.
    Warns (UserWarning) when mode "max" lowers the rate because of values that have fallen nearly all the time.
    """

    def __init__(
        self, lr: float, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        minimum: float = 0.0,
    ) -> None:  # fmt: skip
        if mode not in ("min", "max"):
            raise ValueError(f"Plateau: mode is {mode!r}; legal are 'min' (for a loss) and 'max' (for a score)")
        self.lr, self.factor, self.patience, self.threshold, self.minimum = lr, factor, patience, threshold, minimum
        self.sign = 1 if mode == "min" else -1
        self.best = math.inf
        self.bad = 0
        self._scores: list[float] = []

    def update(self, score: float) -> float:
        """Take in a new score; return the learning rate from now on."""
        value = self.sign * score
        margin = self.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if value < self.best - margin:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        self._scores.append(score)
        if self.bad > self.patience:
            if self.sign < 0 and _only_fall(self._scores):
                warnings.warn(
                    f"Plateau: mode 'max' lowers the learning rate after {len(self._scores)} values that fell from "
                    f"{self._scores[0]:.3g} to {score:.3g}; if they are losses, the mode must be 'min'", stacklevel=2,
                )  # fmt: skip
            self.lr, self.bad = max(self.minimum, self.lr * self.factor), 0
        return self.lr

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` needs to continue."""
        return {"lr": self.lr, "best": self.best, "bad": self.bad}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a saved state."""
        self.lr, self.best, self.bad = float(state["lr"]), float(state["best"]), int(state["bad"])
