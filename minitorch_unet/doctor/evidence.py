"""What the diagnoses look at: data sets, a run, predictions; gathered once, so that each of them only compares numbers.

Symbol key: N images, C channels, H W rows columns, K classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import load_checkpoint
from ..config import TrainConfig, config_from
from ..data import Dataset, SyntheticCells, open_dataset, split_dataset
from ..data.check import examine_all
from ..data.layouts import find_entries
from ..data.suspicion import Finding
from ..errors import DataError
from ..predict import find_images, load_network
from ..runs import BEST, LAST, LOG, initial_network, read_log
from ..unet import UNet, UNetSizes
from .pictures import Picture, read_picture
from .probe import Probe

DEMO = "demo"  # the data of `minitorch-unet demo`, which is in no folder
_DEMO_SIZE, _DEMO_COUNT = 256, 3


@dataclasses.dataclass(frozen=True)
class Part:
    """A data set or a part of one. `dataset` is None where `fault` says why it could not be opened."""

    name: str
    dataset: Dataset | None
    findings: Sequence[Finding] = ()
    errors: Sequence[str] = ()
    fault: DataError | None = None


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run left behind. `losses` of all steps and events `epochs` are empty without a log."""

    path: Path
    config: TrainConfig
    source: Mapping[str, Any]
    step: int
    last: UNet
    best: UNet
    losses: np.ndarray
    rates: np.ndarray
    epochs: Sequence[Mapping[str, Any]]
    failure: str | None

    @functools.cached_property
    def moved(self) -> float:
        """Length of the way of all convolution weights since their first values, over these values' length."""
        begin = initial_network(self.config, self.last.config)
        now, then = ({n: p.data for n, p in net.named_parameters() if p.ndim == 4} for net in (self.last, begin))
        way = sum(float(np.square(now[name] - then[name], dtype=np.float64).sum()) for name in then)
        return float(np.sqrt(way / sum(float(np.square(a, dtype=np.float64).sum()) for a in then.values())))


@dataclasses.dataclass
class Evidence:
    """Everything there is to look at; what is missing is None or empty."""

    parts: list[Part]
    run: RunRecord | None
    pictures: list[Picture]
    sizes: UNetSizes
    whole: bool
    notes: list[str]
    splits: dict[str, Dataset] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def sides(self) -> dict[str, Sequence[Finding]]:
        """Findings of what must not share images: training and validation, or the folders given."""
        if not self.splits:
            return {part.name: part.findings for part in self.parts if part.findings}
        by_name = {finding.name: finding for finding in self.parts[0].findings}
        return {name: [by_name[each] for each in part.names] for name, part in self.splits.items()}

    @functools.cached_property
    def probe(self) -> Probe | None:
        """The run's network applied to some of the images; None where one of both is missing."""
        sets = self.splits or {p.name: p.dataset for p in self.parts if p.dataset is not None and p.findings}
        if self.run is None or not sets:
            return None
        try:
            return Probe(self.run.last, self.run.best, sets)
        except DataError as error:
            self.notes.append(f"the network was not tried on images: {error}")
            return None


def gather(
    data: Sequence[Path], run: Path | None, predictions: Sequence[Path], opening: Mapping[str, Any],
    splitting: Mapping[str, Any], sizes: UNetSizes, whole: bool = False,
) -> Evidence:  # fmt: skip
    """Read all that is given; without `data` those that the run was trained on, if they are still there.

    Raises DataError for what is not there at all; what is there but faulty is kept for the diagnoses.
    """
    record = None if run is None else read_run(run)
    notes: list[str] = []
    how, split = dict(opening), dict(splitting)
    paths: list[Path | str] = list(data)
    if record is not None:
        sizes = record.last.sizes
        how = _as_trained(how, record, bool(data))
        where = record.source.get("data")
        if not data and where is not None:
            if where == DEMO or Path(where).is_dir():
                paths = [where]
                split = _splitting(record.source, split)
            else:
                notes.append(f"{where}, which the run was trained on, is not there: say where (--data)")
    parts = [_part(path, how) for path in paths]
    evidence = Evidence(parts, record, _pictures(predictions), sizes, whole, notes)
    if len(parts) == 1 and parts[0].dataset is not None and not parts[0].errors:
        try:
            training, validation = split_dataset(parts[0].dataset, **split)
            evidence.splits = {"training": training, "validation": validation}
        except ValueError as error:
            notes.append(f"no split was looked at: {error}")
    return evidence


def read_run(path: Path) -> RunRecord:
    """The run of a folder or of a checkpoint file. Raises DataError for what is missing, damaged or no run."""
    folder = path if path.is_dir() else path.parent
    best = load_network(path)[0]
    saved = path if path.is_file() else folder / (LAST if (folder / LAST).is_file() else BEST)
    last = load_network(saved)[0]
    metadata = load_checkpoint(saved).metadata
    try:
        config, source, step = config_from(metadata["config"]), metadata.get("source") or {}, int(metadata["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{saved}: holds no run ({error})") from None
    events = read_log(folder / LOG) if path.is_dir() else []
    steps = [event for event in events if event["event"] == "step"]
    losses, rates = (np.array([event[key] for event in steps], np.float64) for key in ("loss", "lr"))
    failed = events[-1]["reason"] if events and events[-1]["event"] == "failed" else None
    epochs = [event for event in events if event["event"] == "epoch"]
    return RunRecord(path, config, source, step, last, best, losses, rates, epochs, failed)


def _part(path: Path | str, how: Mapping[str, Any]) -> Part:
    if path == DEMO:
        dataset: Dataset = SyntheticCells(_DEMO_COUNT, _DEMO_SIZE)
        return Part("the demonstration's cells", dataset, examine_all(dataset))
    find_entries(Path(path), how["layout"])  # nothing there: the user's mistake, not the data's
    try:
        dataset = open_dataset(path, **how)
    except DataError as error:
        return Part(str(path), None, fault=error)
    errors: list[str] = []
    return Part(str(path), dataset, examine_all(dataset, errors=errors), errors)


def _as_trained(how: dict[str, Any], record: RunRecord, other_data: bool) -> dict[str, Any]:
    """How to open the data: as in training, except for what is said otherwise."""
    known = {name: record.source[name] for name in how if name in record.source}
    if other_data:  # the layout of another folder may be another one
        known = {name: value for name, value in known.items() if name in ("labels", "foreground", "colours")}
    said = how["labels"] != "auto" or how["foreground"] is not None or how["colours"] is not None
    how = how if said else how | known
    return how | {"channels": how["channels"] or record.last.config["in_channels"]}


def _splitting(source: Mapping[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    names = {"validation": "validation", "by": "split", "seed": "split_seed", "gap": "gap"}
    return {argument: source.get(name, default[argument]) for argument, name in names.items()}


def _pictures(paths: Sequence[Path]) -> list[Picture]:
    return [read_picture(path) for path in find_images(paths)] if paths else []
