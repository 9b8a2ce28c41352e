"""Training that tells its story: `train`, with the record, the examples and the page kept up to date beside it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..batches import TileMaker, sample_weights
from ..data import Dataset
from ..errors import DataError
from ..profiler import profile
from ..runs import Run
from ..tensor import NonFiniteError
from ..train import Event, Interrupted, train
from .examples import EXAMPLES, Examples, stays
from .page import write_report
from .record import begin_session, keep_profile, write_record
from .tensorboard import EventFiles

_TIMED = range(2, 7)  # steps that are timed, from 0: by then kernels are compiled and memory is there
_SHARE = 0.005  # of a run's time that may go into pages while it runs


def train_with_report(
    run: Run, dataset: Dataset, validation: Dataset, folder: Path,
    report: Callable[[Event], None] = lambda event: None, max_hours: float = math.inf, graph: bool = False,
    tensorboard: bool = False,
) -> Run:  # fmt: skip
    """`train`, which see, and beside its files report.html, with record.json and examples.npz, from which it is made.

    The page is written after an epoch where that takes less than 0.5 % of the time since it was last written, and
    always at the end, also of a run that was stopped or failed. Steps 3 to 7 are timed, operation by operation (not
    with `graph`). None of it changes what is computed. With `tensorboard` the folder tensorboard/ gets the same figures
    as event files; ValueError where tensorboardX is missing.
    """
    # First: what is missing is said before anything is computed.
    events = EventFiles(folder, run.network.classes) if tensorboard else None
    folder.mkdir(parents=True, exist_ok=True)
    tiles = TileMaker(run.config, run.network, dataset)
    record = begin_session(folder, run, dataset, validation, tiles)
    examples = _examples(run, dataset, validation, folder, tiles)
    written, cost, begun = time.monotonic(), 0.0, False
    watch: profile | None = None
    timed: dict[int, profile] = {}

    def save() -> None:
        write_record(folder, record)
        examples.save(folder / EXAMPLES)

    def around(step: int) -> contextlib.AbstractContextManager[Any]:
        nonlocal watch, begun
        if not begun:  # now that the first checkpoint is written: what can be written at all has shown itself
            save()
            begun = True
        watch = profile() if step in _TIMED and not graph else None
        return watch or contextlib.nullcontext()

    def tell() -> None:
        nonlocal written, cost
        began = time.monotonic()
        if timed:
            keep_profile(folder, record, timed)
        save()
        write_report(folder)
        written = time.monotonic()
        cost = written - began

    def note(event: Event) -> None:
        if watch is not None and event["event"] == "step":  # it came to its end
            timed[event["step"]] = watch
        report(event)
        if event["event"] == "epoch":
            examples.keep(event["epoch"])
        if events is not None:
            events.add(event, examples)
        if event["event"] == "epoch":
            if cost < _SHARE * (time.monotonic() - written):
                tell()
            elif stays(event["epoch"]):
                examples.save(folder / EXAMPLES)

    if events is not None:
        events.begin(run.step, examples, record["sessions"])
    try:
        train(run, dataset, validation, folder, note, max_hours, graph, examples.see, around)
    except (Interrupted, NonFiniteError):
        tell()
        raise
    finally:
        if events is not None:
            events.close()
    tell()
    return run


def _examples(run: Run, dataset: Dataset, validation: Dataset, folder: Path, tiles: TileMaker) -> Examples:
    """Those of the run that goes on, else chosen anew, and predicted by the network that has learnt nothing yet."""
    if run.step:
        with contextlib.suppress(DataError):  # none there, or a damaged file: no reason not to go on
            examples = Examples.load(folder / EXAMPLES)
            if all(validation.names[tile.index : tile.index + 1] == [tile.name] for tile in examples.tiles):
                examples.forget_after(run.step // tiles.steps_per_epoch)
                return examples
    examples = Examples.choose(
        validation, lambda sample: sample_weights(run.config, sample, tiles.class_weights)
    )
    if run.step == 0:
        examples.predict(run.network, validation, 0)
        run.network.train()
    return examples
