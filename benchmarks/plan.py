"""What run.py measures, in which order, and about how long each measurement takes."""

from __future__ import annotations

import dataclasses
from typing import Any

from network import unet_layers

SECTIONS = ("steps", "memory", "layers", "scaling", "engines")  # the most important first: time may run out
ROUNDS = 2
TORCH_FLOAT32 = ("torch contiguous", "torch channels_last", "torch compiled")
SMALL_ENGINES = ("mygrad", "dezero", "tinygrad")

# FLOP of direct arithmetic a second, by which a measurement's time is guessed before any is known: as on two cores with
# which PyTorch needs 6 s for a training step of the paper's network. What was measured already corrects the guess.
SPEED = {"ours": 3e11, "ours recompute": 3e11, "ours numpy": 1.2e11, "torch bfloat16": 3e11}
TORCH_SPEED = 1.5e11
STARTING = 4.0  # seconds until a process has imported what it needs
COMPILING = 40.0  # of torch.compile the first time; afterwards its cache on disk answers


@dataclasses.dataclass(frozen=True)
class Group:
    """Contenders that are compared on one piece of work. `kind`: step, layers, ladder or engine."""

    section: str
    kind: str
    size: int
    base: int
    batch: int
    contenders: tuple[str, ...]
    rounds: int
    runs: int

    @property
    def key(self) -> str:
        """Name in the result file."""
        return f"{self.section}: {self.kind}, size {self.size}, base {self.base}, batch {self.batch}"

    def record(self) -> dict[str, Any]:
        """What the result file says about the group, beside its rounds."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in ("contenders", "rounds")}


def plan(quick: bool, rounds: int, runs: int | None = None) -> list[Group]:
    """All groups in order; `runs` timed calls in a process instead of each group's own number.

    quick: a narrow network, small images, one round, no compilation; to try the whole way.
    """
    size, base, rounds = (188, 16, 1) if quick else (572, 64, rounds)
    bases = (8, 16) if quick else (16, 32)
    sizes = (284, 380) if quick else (188, 380, 764)
    batches = (1, 2, 4)  # at the smallest size: a batch of large images asks for much memory
    float32 = TORCH_FLOAT32[:2] if quick else TORCH_FLOAT32
    all_ours = ("ours", "ours recompute")
    scales = [(s, base, 1) for s in sizes] + [(size, b, 1) for b in bases] + [(188, base, n) for n in batches]
    scales = [scale for scale in dict.fromkeys(scales) if scale != (size, base, 1)]  # which is the group of the steps
    few, many = (runs or 1, runs or 1) if quick else (runs or 2, runs or 3)
    return [
        Group("steps", "step", size, base, 1, (*all_ours, *float32, "torch bfloat16", "ours numpy"), rounds, many),
        *(Group("memory", "step", s, base, 1, (*all_ours, *TORCH_FLOAT32[:2]), 1, 1) for s in (size, *sizes)),
        Group("layers", "layers", size, base, 1, ("ours", "torch"), rounds, many),
        Group("layers", "ladder", size, base, 1, ("ours",), 1, few),
        *(Group("scaling", "step", *scale, ("ours", *float32), rounds, few) for scale in scales),
        Group("engines", "engine", 64, 64, 1, ("ours", *SMALL_ENGINES), rounds, runs or 5),
    ]


def guessed_seconds(group: Group, contender: str, first: bool) -> float:
    """About how long one process takes. `first`: the contender's first round in this group."""
    if group.kind == "engine":
        return STARTING + 1
    forward = sum(layer.flops for layer in unet_layers(group.size, group.base, group.batch))
    compiled = contender == "torch compiled"
    speed = SPEED.get(contender, TORCH_SPEED)
    calls = group.runs + (2 if compiled else 1)  # those that are not counted come first
    if group.kind == "ladder":
        naive = 45 * calls  # about a second for each layer and pass
        return STARTING + naive + 3 * calls * forward * sum(1 / s for s in (1.2e11, 2e11, 3e11, 3e11, 3e11))
    if group.kind == "layers":  # PyTorch in two layouts; ours and its errors against float64
        work = 3 * calls * forward / speed
        return STARTING + (2 * work if contender == "torch" else work + 20)
    extra = COMPILING if compiled and first else 0
    return STARTING + extra + calls * 4 * forward / speed  # a forward pass, and a step of three times its arithmetic


def missing(group: Group, entry: dict[str, Any]) -> list[tuple[int, str]]:
    """(round, contender) that a result's entry of the group lacks or that failed, in the order of measuring."""
    rounds = entry.get("rounds", [])
    found = []
    for number in range(group.rounds):
        row = rounds[number] if number < len(rounds) else {}
        shift = number % len(group.contenders)
        order = group.contenders[shift:] + group.contenders[:shift]
        found += [(number, who) for who in order if "failed" in row.get(who, {"failed": "not measured"})]
    return found


class Clock:
    """Guesses the time that is left, better with every measurement."""

    def __init__(self) -> None:
        self.took = self.guessed = 60.0  # so that the first measurements, short or failed, do not mislead

    def add(self, guessed: float, took: float) -> None:
        """A measurement guessed at so many seconds took so many."""
        self.took += took
        self.guessed += guessed

    def minutes(self, jobs: list[tuple[Group, int, str]]) -> float:
        """For measurements (group, round, contender) yet to be made."""
        total = sum(guessed_seconds(group, contender, number == 0) for group, number, contender in jobs)
        return total * self.took / self.guessed / 60
