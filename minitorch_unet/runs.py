"""A training run between two steps: made afresh, written to a checkpoint, read back.

All random numbers of a step are derived from (seed, step), so "where am I" is one number, and a run that was
killed and resumed computes exactly what an uninterrupted one does.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from . import functional as F
from . import optim
from .amp import GradScaler
from .backend import get_num_threads
from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig, config_from
from .data import Dataset
from .errors import DataError
from .tensor import NonFiniteError
from .unet import UNet

LAST, BEST, LOG = "last.safetensors", "best.safetensors", "log.jsonl"


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
    scaler: GradScaler | None = None  # of the loss, where maps are float16

    def __post_init__(self) -> None:
        if self.config.precision == "float16" and self.scaler is None:
            self.scaler = GradScaler()

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
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }  # fmt: skip
        save_checkpoint(path, arrays, metadata)


def start(config: TrainConfig, dataset: Dataset, source: dict[str, Any], device: str = "cpu") -> Run:
    """A fresh run: He-initialised network, optimiser, step 0."""
    network = initial_network(config, config.network(dataset.channels, dataset.classes))
    network.to(device)
    return Run(config, network, _optimizer(config, network), _plateau(config), source)


def initial_network(config: TrainConfig, settings: dict[str, Any]) -> UNet:
    """The network as a run of this configuration begins with it; `settings` are UNet's arguments."""
    F.manual_seed(config.seed)
    return UNet(**settings)


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
        if run.scaler is not None and metadata.get("scaler"):
            run.scaler.load_state_dict(metadata["scaler"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no run that this version can continue ({error})") from None
    remarks = [f"resumed at step {run.step}"]
    if metadata["threads"] != get_num_threads():
        remarks.append(
            f"note: saved with {metadata['threads']} threads, now {get_num_threads()}; the last bits may differ from "
            f"an uninterrupted run; --threads {metadata['threads']} makes them equal"
        )
    return run, remarks


def read_log(path: Path) -> list[dict[str, Any]]:
    """The events of a run's log; none without a file. An unfinished last line is left out."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


def _optimizer(config: TrainConfig, network: UNet) -> optim.Optimizer:
    params, lr, decay = network.parameters(), config.start_lr, config.weight_decay
    if config.optimizer == "sgd":
        return optim.SGD(params, lr, momentum=config.momentum, weight_decay=decay)
    kind = {"adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop}[config.optimizer]
    return kind(params, lr, weight_decay=decay)


def _plateau(config: TrainConfig) -> optim.Plateau | None:
    return optim.Plateau(config.start_lr, mode="min", patience=3) if config.schedule == "plateau" else None
