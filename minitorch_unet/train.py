"""Training: a loop to be read from top to bottom, which can be stopped at any step and continued bit for bit.

All random numbers of a step are derived from (seed, step), so "where am I" is one number, and a run that was
killed and resumed computes exactly what an uninterrupted one does. Symbols: C channels, H W rows columns, K classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import functional as F
from . import optim
from .backend import get_num_threads, to_device, to_numpy
from .batches import Ahead, TileMaker
from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig, config_from
from .data import Dataset, split_dataset
from .data.check import describe, examine_all, warn_of_duplicates
from .errors import DataError
from .evaluate import evaluate
from .files import atomic_write
from .nn import Module
from .tensor import NonFiniteError, Tensor, detect_anomaly
from .unet import UNet

LAST, BEST, LOG = "last.safetensors", "best.safetensors", "log.jsonl"

Event = dict[str, Any]


class Interrupted(Exception):
    """A signal asked the run to stop; everything up to `step` is saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number, self.step = number, step


@dataclasses.dataclass
class Run:
    """A run between two steps: the network, what trains it, and the few numbers that say where it is."""

    config: TrainConfig
    network: UNet
    optimizer: optim.Optimizer
    plateau: optim.Plateau | None
    source: dict[str, Any]  # how the data were opened, to be compared at resume
    step: int = 0
    best: float = -math.inf
    bad_epochs: int = 0

    def save(self, path: Path) -> None:
        """Write the checkpoint; a network with values that are not finite is refused with NonFiniteError."""
        arrays = {f"model.{name}": a for name, a in self.network.state_dict().items()}
        broken = next((name for name, a in arrays.items() if not np.isfinite(a).all()), None)
        if broken is not None:
            raise NonFiniteError(f"{broken[6:]} holds values that are not finite after step {self.step}")
        arrays |= {f"optimizer.{name}": a for name, a in self.optimizer.state_dict().items()}
        metadata = {
            "config": dataclasses.asdict(self.config), "network": self.network.config, "source": self.source,
            "step": self.step, "best": self.best, "bad_epochs": self.bad_epochs, "threads": get_num_threads(),
            "plateau": self.plateau.state_dict() if self.plateau else None,
        }  # fmt: skip
        save_checkpoint(path, arrays, metadata)


def start(config: TrainConfig, dataset: Dataset, source: dict[str, Any], device: str = "cpu") -> Run:
    """A fresh run: He-initialised network, optimiser, step 0."""
    F.manual_seed(config.seed)
    network = UNet(**config.network(dataset.channels, dataset.classes))
    network.to(device)
    return Run(config, network, _optimizer(config, network), _plateau(config), source)


def resume(folder: Path, device: str = "cpu", **changed: Any) -> tuple[Run, list[str]]:
    """The run in `folder` as it was at its last checkpoint, and remarks; `changed` settings replace the saved ones."""
    config_from(changed)  # a setting that is wrong in itself is not the checkpoint's fault
    path = folder / LAST
    arrays, metadata = load_checkpoint(path)
    try:
        config = config_from(metadata["config"] | changed)
        network = UNet(**metadata["network"])
        network.load_state_dict({name[6:]: a for name, a in arrays.items() if name.startswith("model.")})
        network.to(device)
        run = Run(config, network, _optimizer(config, network), _plateau(config), metadata["source"])
        run.optimizer.load_state_dict({name[10:]: a for name, a in arrays.items() if name.startswith("optimizer.")})
        run.step, run.best, run.bad_epochs = metadata["step"], metadata["best"], metadata["bad_epochs"]
        if run.plateau is not None:
            run.plateau.load_state_dict(metadata["plateau"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no run that this version can continue ({error})") from None
    remarks = [f"resumed at step {run.step}"]
    if metadata["threads"] != get_num_threads():
        remarks.append(
            f"note: saved with {metadata['threads']} threads, now {get_num_threads()}; the last bits may differ from "
            f"an uninterrupted run; --threads {metadata['threads']} makes them equal"
        )
    return run, remarks


def train(
    run: Run, dataset: Dataset, validation: Dataset, folder: Path,
    report: Callable[[Event], None] = lambda event: None, max_hours: float = math.inf,
) -> Run:  # fmt: skip
    """Train until the last epoch, early stop or a signal; `folder` gets last and best checkpoint and log.jsonl.

    `report` sees every event that is logged. Raises Interrupted after SIGINT or SIGTERM (a second SIGINT stops at
    once), NonFiniteError naming the operation where the loss first became NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, network, began = run.config, run.network, time.monotonic()
    tiles = TileMaker(config, network, dataset)
    total = config.epochs * tiles.steps_per_epoch
    schedule = _schedule(config, total)
    _drop_log_after(folder / LOG, run.step)
    if run.step == 0:
        run.save(folder / LAST)  # from now on a killed run can be resumed, and an unwritable disk has shown itself

    def log(event: Event) -> None:
        with open(folder / LOG, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": run.step, **event}) + "\n")
        report({"step": run.step, **event})

    # Overflow is not warned about: each loss is looked at, and each checkpoint's values.
    with _catch_signals() as caught, Ahead(tiles) as ahead, np.errstate(over="ignore", invalid="ignore"):
        while run.step < total and not _gave_up(run):
            images, labels, weights = ahead.batch(run.step)
            lr = run.plateau.lr if run.plateau else schedule(run.step)
            loss = train_step(run, images, labels, weights, lr)
            run.step += 1
            seconds = round(time.monotonic() - began, 3)
            log({"event": "step", "loss": loss, "lr": lr, "steps_in_all": total, "seconds": seconds})

            if run.step % tiles.steps_per_epoch == 0:
                scores = evaluate(network, validation)
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


def train_step(run: Run, images: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, lr: float) -> float:
    """One update on a batch: images (N, C, H, W), labels and weights (N, P, Q). Returns the loss before it."""
    network, optimizer = run.network.train(), run.optimizer
    device = network.parameters()[0].device
    x, target = Tensor(to_device(images, device)), to_device(labels, device)
    pixel_weight = None if weights is None else to_device(weights, device)

    def forward() -> Tensor:
        F.manual_seed((run.config.seed << 40) + run.step)  # dropout's numbers depend on seed and step alone
        return _loss(run.config, network(x), target, pixel_weight)

    loss = forward()
    if not math.isfinite(loss.item()):
        raise NonFiniteError(
            f"the loss is {loss.item()} at step {run.step}: {_first_non_finite(network, forward)}; "
            "a lower learning rate, --warm-up or --clip may help"
        )
    optimizer.lr = lr
    if run.config.clip:
        loss.backward()
        optim.clip_grad_norm_(optimizer.params, run.config.clip)
        optimizer.step()
        optimizer.zero_grad()
    else:
        optimizer.backward_and_step(loss)
    return loss.item()


def _first_non_finite(network: Module, forward: Callable[[], Tensor]) -> str:
    """Where the loss's NaN or infinity comes from: a weight, or an operation found by computing it once more."""
    for name, p in network.named_parameters():
        if not np.isfinite(to_numpy(p.data)).all():
            return f"the last update made values of {name} infinite or NaN"
    try:
        with detect_anomaly():
            forward()
    except NonFiniteError as error:
        return str(error)
    return "the images hold values that are not finite"


def _loss(config: TrainConfig, scores: Tensor, target: Any, pixel_weight: Any) -> Tensor:
    if config.loss == "focal":
        return F.focal_loss(scores, target)
    total = None
    if "cross_entropy" in config.loss:
        total = F.cross_entropy(scores, target, pixel_weight=pixel_weight)
    if "dice" in config.loss:
        dice = F.dice_loss(scores, target)
        total = dice if total is None else total + dice
    return total  # type: ignore[return-value]


def _optimizer(config: TrainConfig, network: UNet) -> optim.Optimizer:
    params, lr, decay = network.parameters(), config.start_lr, config.weight_decay
    if config.optimizer == "sgd":
        return optim.SGD(params, lr, momentum=config.momentum, weight_decay=decay)
    kind = {"adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}[config.optimizer]
    return kind(params, lr, weight_decay=decay)


def _schedule(config: TrainConfig, total: int) -> optim.Schedule:
    lr = config.start_lr
    schedules = {
        "step": optim.step_decay(lr, max(1, total // 3)),
        "cosine": optim.cosine(lr, total),
        "poly": optim.poly(lr, total),
    }
    return optim.warm_up(schedules.get(config.schedule, optim.constant(lr)), config.warm_up)


def _plateau(config: TrainConfig) -> optim.Plateau | None:
    return optim.Plateau(config.start_lr, mode="min", patience=3) if config.schedule == "plateau" else None


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
