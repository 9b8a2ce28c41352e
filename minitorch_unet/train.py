"""Training: a loop to be read from top to bottom, which can be stopped at any step and continued bit for bit.

All random numbers of a step are derived from (seed, step), so "where am I" is one number, and a run that was
killed and resumed computes exactly what an uninterrupted one does. Symbols: C channels, H W rows columns, K classes.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import optim
from .batches import Ahead, TileMaker
from .config import TrainConfig
from .data import Dataset, split_dataset
from .data.check import describe, examine_all, warn_of_duplicates
from .evaluate import evaluate
from .files import atomic_write
from .gradients import GradientNorms
from .runs import BEST, LAST, LOG, Run, resume, start
from .steps import graphed_step, train_step
from .tensor import NonFiniteError
from .tiled import EXACT

__all__ = ["BEST", "LAST", "LOG", "Event", "Interrupted", "Run", "prepare", "resume", "start", "train", "train_step"]

Event = dict[str, Any]
NORMS_AN_EPOCH = 10


class Interrupted(Exception):
    """A signal asked the run to stop; everything up to `step` is saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step = number, step


def train(
    run: Run, dataset: Dataset, validation: Dataset, folder: Path,
    report: Callable[[Event], None] = lambda event: None, max_hours: float = math.inf, graph: bool = False,
    see: Callable[[int, np.ndarray], None] | None = None,
    around: Callable[[int], contextlib.AbstractContextManager[Any]] = lambda step: contextlib.nullcontext(),
) -> Run:  # fmt: skip
    """Train until the last epoch, early stop or a signal; `folder` gets last and best checkpoint and log.jsonl.

    `report` sees every event that is logged, `see(i, probability)` the prediction of each validation image; each step,
    counted from 0, runs within the context that `around(step)` gives. With `graph` (on a GPU) steps are replayed as one
    CUDA graph. About ten times an epoch a step's event holds `gradients`, the norm of each layer's gradient. Raises
    Interrupted after SIGINT or SIGTERM (a second SIGINT stops at once), NonFiniteError naming the operation where the
    loss first became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, network, began = run.config, run.network, time.monotonic()
    tiles = TileMaker(config, network, dataset)
    total = config.epochs * tiles.steps_per_epoch
    recorded = graphed_step(run) if graph else None
    norms_every = max(1, tiles.steps_per_epoch // NORMS_AN_EPOCH)
    schedule = _schedule(config, total)
    _drop_log_after(folder / LOG, run.step)
    if run.step == 0:
        run.save(folder / LAST)  # from now on a killed run can be resumed, and an unwritable disk has shown itself

    def log(event: Event) -> None:
        with open(folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": run.step, **event}) + "\n")
        report({"step": run.step, **event})

    # Overflow is not warned about: each loss is looked at, and each checkpoint's values.
    quiet = np.errstate(over="ignore", invalid="ignore")
    watch = GradientNorms(network, run.scaler)
    with _catch_signals() as caught, Ahead(tiles) as ahead, quiet, _failure_logged(log), watch as norms:
        while run.step < total and not _gave_up(run):
            images, labels, weights = ahead.batch(run.step)
            lr = run.plateau.lr if run.plateau else schedule(run.step)
            read_norms = run.step % norms_every == 0
            norms.watching = read_norms or graph
            with around(run.step):
                loss = train_step(run, images, labels, weights, lr, recorded)
            run.step += 1
            seconds = round(time.monotonic() - began, 3)
            noted = {"gradients": norms.read()} if read_norms else {}
            log({"event": "step", "loss": loss, "lr": lr, "steps_in_all": total, "seconds": seconds, **noted})

            if run.step % tiles.steps_per_epoch == 0:
                scores = evaluate(network, validation, None, (), EXACT, see)
                improved = scores["mean_iou"] > run.best
                run.best, run.bad_epochs = (scores["mean_iou"], 0) if improved else (run.best, run.bad_epochs + 1)
                if run.plateau:
                    run.plateau.update(scores["loss"])
                if improved:
                    run.save(folder / BEST)
                epoch = run.step // tiles.steps_per_epoch
                seconds = round(time.monotonic() - began, 3)
                log({"event": "epoch", "epoch": epoch, "best": improved, "seconds": seconds, **scores})

            out_of_time = time.monotonic() - began > 3600 * max_hours
            at_epoch = run.step % tiles.steps_per_epoch == 0
            if at_epoch or run.step % config.save_every == 0 or caught or out_of_time:
                run.save(folder / LAST)
            if caught:
                raise Interrupted(caught[0], run.step)
            if out_of_time or _gave_up(run):
                log({"event": "stop", "reason": "patience" if _gave_up(run) else "max_hours"})
                break
    run.save(folder / LAST)
    return run


def _gave_up(run: Run) -> bool:
    """Whether validation has not improved for `patience` epochs."""
    return 0 < run.config.patience <= run.bad_epochs


def _schedule(config: TrainConfig, total: int) -> optim.Schedule:
    lr = config.start_lr
    schedules = {
        "step": optim.step_decay(lr, max(1, total // 3)),
        "cosine": optim.cosine(lr, total),
        "poly": optim.poly(lr, total),
    }
    return optim.warm_up(schedules.get(config.schedule, optim.constant(lr)), config.warm_up)


def prepare(
    dataset: Dataset, validation: str | float, by: str = "auto", seed: int = 0, gap: int = 0
) -> tuple[Dataset, Dataset, list[str]]:
    """Check every pair, then split (see `split_dataset`); returns (training, validation, the check's lines)."""
    findings = examine_all(dataset)
    training, held_out = split_dataset(dataset, validation, by, seed, gap)
    by_name = {finding.name: finding for finding in findings}
    parts = {"training": training, "validation": held_out}
    alike = warn_of_duplicates({name: [by_name[each] for each in part.names] for name, part in parts.items()})
    counts = f"{len(training)} images to train on, {len(held_out)} to validate on"
    return training, held_out, [*describe(dataset, findings), *alike, counts]


def _drop_log_after(path: Path, step: int) -> None:
    """Forget what was logged after the checkpoint that a resumed run continues from; unfinished lines too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    atomic_write(path, "".join(kept).encode())


@contextlib.contextmanager
def _failure_logged(log: Callable[[Event], None]) -> Iterator[None]:
    """Enter in the log, too, why a run ended in NaN or infinity; `minitorch-unet doctor` reads it."""
    try:
        yield
    except NonFiniteError as error:
        log({"event": "failed", "reason": str(error)})
        raise


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of stopping; a second SIGINT acts as usual. Only in the main thread."""
    caught: list[int] = []
    before = {}

    def note(number: int, frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    with contextlib.suppress(ValueError):  # not the main thread: signals do not come here
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
