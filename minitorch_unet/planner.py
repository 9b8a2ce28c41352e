"""How much memory a U-Net will need, before it is built.

The step is not described a second time here: the engine's own code runs dry (see backend/dry.py), with all its large
arrays asked for and none of them touched, while `backend.memory` reports each that is made and dies. What is planned is
therefore what will be done, also after the code has changed.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import re
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import functional as F
from . import optim
from .backend import assumed_threads, dry_run, get_num_threads, memory
from .tensor import Tensor, named_operations, no_grad, state
from .unet import UNet, UNetSizes

SLOTS = {"sgd": 1, "adam": 2}  # arrays an optimiser keeps for each parameter (sgd: with momentum)
HEAP_PIECE = 32 << 20  # bytes of the largest arrays whose memory the C library (glibc) keeps when they are freed
OVERHEAD = 6 << 20  # bytes: threads, code that is loaded at first use, what the C library keeps of freed small arrays
KINDS = ("kept", "gradients", "temporaries")


class Moment(NamedTuple):
    """Live bytes after an array was made or died."""

    phase: str  # "forward" or "backward"
    stage: str  # "down 0" ... "merge 0", "head"
    kept: int  # maps that the backward pass needs
    gradients: int  # of maps and parameters
    temporaries: int  # inside operations: results that nobody keeps, maps made again, turned weights
    other: int  # everything NumPy and Python hold besides the large arrays, at most until the next moment
    idle: int  # dead arrays' memory that was not given back to the system

    @property
    def live(self) -> int:
        """Bytes of all large arrays."""
        return self.kept + self.gradients + self.temporaries

    @property
    def resident(self) -> int:
        """Bytes of everything that comes and goes in a step."""
        return self.live + self.other + self.idle


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `plan` found. All figures are bytes; `moments` are those of a whole step."""

    parameters: int
    state: int
    scratch: int
    moments: list[Moment]
    prediction: int  # peak of a forward pass alone, network included

    @property
    def peak(self) -> Moment:
        """The moment at which arrays take most; the memory they had stays with the process afterwards."""
        return max(self.moments, key=lambda m: m.live)

    @property
    def resident(self) -> int:
        """The most that what comes and goes in a step takes, idle memory included."""
        return max(m.resident for m in self.moments)

    @property
    def total(self) -> int:
        """Peak of a training step beyond what the process holds after its imports."""
        return self.parameters + self.state + self.scratch + self.resident + OVERHEAD


class Recorder:
    """Collects what becomes of the large arrays: a watcher of backend/memory.py. The caller sets `phase`."""

    def __init__(self, depth: int) -> None:
        self.depth, self.phase, self.stage = depth, "forward", "down 0"
        # Number and bytes of the array, phase, stage, whether of no concern outside its operation, other, idle. At
        # first nothing has happened.
        self.changes = [(0, 0, self.phase, self.stage, False, 0, memory.idle_bytes())]
        self.base = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0

    def __call__(self, number: int, change: int) -> None:
        """An array was made, or died."""
        kind, _, index = state.module_path.partition(".")
        if kind in ("down", "up", "merge"):
            level = int(index.partition(".")[0])
            self.stage = f"{kind} {level if kind == 'down' else self.depth - 1 - level}"
        elif kind == "head":
            self.stage = kind
        inside = change > 0 and self.phase == "backward" and _inside_an_operation()
        self._note_other()
        self.changes.append((number, change, self.phase, self.stage, inside, 0, memory.idle_bytes()))

    def _note_other(self) -> None:
        """Enter the most that other arrays held since the last change."""
        if tracemalloc.is_tracing():
            most = tracemalloc.get_traced_memory()[1] - self.base
            self.changes[-1] = (*self.changes[-1][:5], most, self.changes[-1][6])
            tracemalloc.reset_peak()

    def moments(self) -> list[Moment]:
        """The changes added up, each array counted as what it turned out to be."""
        self._note_other()
        forward: set[int] = set()  # arrays that outlive the forward pass
        for number, change, phase, *_ in self.changes:
            if phase == "forward":
                (forward.add if change > 0 else forward.discard)(number)
        last = {number: i for i, (number, change, phase, *_) in enumerate(self.changes) if phase == "forward"}
        held, found = dict.fromkeys(KINDS, 0), []
        kinds: dict[int, str] = {}
        for i, (number, change, phase, stage, inside, other, idle) in enumerate(self.changes):
            if change > 0 and phase == "forward":  # a number may come again: only its last array can outlive
                kinds[number] = "kept" if number in forward and last[number] == i else "temporaries"
            elif change > 0:
                kinds[number] = "temporaries" if inside else "gradients"
            if number in kinds:
                held[kinds[number]] += change
            kept, gradients, temporaries = (held[kind] for kind in KINDS)
            found.append(Moment(phase, stage, kept, gradients, temporaries, other, idle))
        return found


def _inside_an_operation() -> bool:
    """Whether the array being made in a backward pass is a map made again or a turned weight, and not a gradient."""
    names = []
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name != "gradients":
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return "make" in names or "_turned" in names or ("conv2d" in names and "forward" not in names)


def record(recorder: Recorder, work: Callable[[], Any]) -> list[Moment]:
    """The moments of `work()`."""
    with memory.watched(recorder), named_operations():
        work()
    return recorder.moments()


def record_step(
    network: UNet, image: Tensor, label: Any, optimizer: optim.Optimizer, recorder: Recorder | None = None
) -> list[Moment]:  # fmt: skip
    """One training step (forward, cross-entropy, backward with updates), and its moments."""
    recorder = recorder or Recorder(network.sizes.depth)

    def step() -> None:
        loss = F.cross_entropy(network(image), label)
        recorder.phase = "backward"
        optimizer.backward_and_step(loss)

    return record(recorder, step)


class _NoState(optim.Optimizer):
    """Stands for any optimiser: its state is counted, not made."""

    def update(self, p: Any, g: Any, slots: dict[str, Any]) -> None:
        """Nothing."""


def plan(
    size: int, base: int = 64, batch: int = 1, depth: int = 4, recompute: bool = False, optimizer: str = "sgd",
    threads: int | None = None, in_channels: int = 1, num_classes: int = 2,
) -> Plan:  # fmt: skip
    """Memory of one training step, and of a prediction, on images of size x size pixels, in float32 with the compiled
    kernels. Raises ValueError for an illegal size or setting."""
    if optimizer not in SLOTS:
        raise ValueError(f"plan: optimizer is {optimizer!r}; legal are {', '.join(map(repr, SLOTS))}")
    output = UNetSizes(depth).output_size(size)
    gc.collect()
    traced_already = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        with memory.another_heap(), assumed_threads(threads or get_num_threads()), dry_run() as dry:
            network = UNet(in_channels, num_classes, base, depth, recompute=recompute)
            updates = _NoState(network.parameters(), 0.0)
            image = np.zeros((batch, in_channels, size, size), np.float32)
            label = np.zeros((batch, output, output), np.int64)
            with no_grad():
                forward = record(Recorder(depth), lambda: network(Tensor(image)))
            for _ in range(2):  # the second begins with what the first left idle
                moments = record_step(network, Tensor(image), label, updates)
    finally:
        if not traced_already:
            tracemalloc.stop()
    parameters = sum(p.data.nbytes for p in network.parameters())
    scratch = dry.scratch_bytes
    inputs = image.nbytes + label.nbytes
    moments = _with_heap(moments, inputs)
    alone = max(m.resident for m in _with_heap(forward, inputs)) + parameters + scratch + OVERHEAD
    return Plan(parameters, SLOTS[optimizer] * parameters, scratch, moments, alone)


def plan_prediction(settings: dict[str, Any], height: int, width: int) -> int:
    """Bytes of one pass of `UNet(**settings)` over an image, to class probabilities, parameters included: on the
    processor, in float32, with the compiled kernels. Raises ValueError for an illegal size or setting."""
    gc.collect()
    traced_already = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        with memory.another_heap(), dry_run() as dry, no_grad():
            network = UNet(**settings)
            network.eval()
            image = np.zeros((1, network.config["in_channels"], height, width), np.float32)
            moments = record(Recorder(network.sizes.depth), lambda: network(Tensor(image)))
    finally:
        if not traced_already:
            tracemalloc.stop()
    parameters = sum(p.data.nbytes for p in network.parameters())
    # Softmax is NumPy's, which a dry run would not spare: the scores and three more arrays like them.
    scores = network.classes * 4 * math.prod(map(network.sizes.output_size, (height, width)))
    most = max(*(m.resident for m in _with_heap(moments, image.nbytes)), image.nbytes + 4 * scores)
    return most + parameters + dry.scratch_bytes + OVERHEAD


def _with_heap(moments: list[Moment], inputs: int) -> list[Moment]:
    """The moments with what really is resident of the other arrays: freed small ones stay with the C library."""
    heap = max((m.other for m in moments if m.other <= HEAP_PIECE), default=0)
    return [m._replace(other=inputs + max(m.other, heap)) for m in moments]


def largest_size(
    budget: int, fits: Callable[[int], int], depth: int = 4, padding: str = "valid", enough: float = math.inf
) -> int | None:
    """The largest legal size for which `fits(size)`, growing with size, is at most `budget`; None if none is.

    `enough`, a legal size, is taken where it fits, however large the budget is.
    """
    sizes = UNetSizes(depth, padding)
    low, step = sizes.nearest_legal(1)[0], sizes.grid
    if fits(low) > budget:
        return None
    if enough < math.inf and fits(int(enough)) <= budget:
        return int(enough)
    reach = 1
    while fits(low + reach * step) <= budget:
        reach *= 2
    fitting, failing = reach // 2, reach
    while failing - fitting > 1:
        middle = (fitting + failing) // 2
        fitting, failing = (middle, failing) if fits(low + middle * step) <= budget else (fitting, middle)
    return low + fitting * step


UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def bytes_of(text: str) -> int:
    """'4GiB', '900 MiB', '8GB' or plain bytes as a number. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B|)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no amount of memory; legal are numbers with {', '.join(UNITS)}, such as 4GiB")
    return int(float(match[1]) * UNITS[match[2] or "B"])


def format_plan(plan: Plan) -> str:
    """The plan as a table, in MiB."""
    at = plan.peak
    rows = [
        ("parameters", plan.parameters),
        ("optimiser's state", plan.state),
        ("maps kept for the backward pass", at.kept),
        ("gradients", at.gradients),
        ("temporaries", at.temporaries),
        ("scratch of the kernels", plan.scratch),
        ("idle, kept for the next arrays", plan.resident - at.live - at.other),
        ("loss, small arrays, interpreter", at.other + OVERHEAD),
        (f"training step, at its fullest ({at.phase}, {at.stage})", plan.total),
        ("prediction alone", plan.prediction),
    ]
    return "\n".join(f"{what:50}{size / 2**20:9.1f} MiB" for what, size in rows)
