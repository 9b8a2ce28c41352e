"""What a run is: its data, and who computed it when and on what; kept as record.json in the run's folder.

The log says what happened from step to step, the checkpoint holds the settings; this is what neither of both knows.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..backend import available_cores, describe_device, get_num_threads
from ..batches import TileMaker
from ..data import IGNORE, Dataset
from ..files import atomic_write
from ..info import processor, versions
from ..profiler import profile
from ..runs import Run
from ..unet import UNet

RECORD, FLAME = "record.json", "step.svg"
_NAMES = 200  # of images that are listed


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run's folder; empty where there is none, or none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace the record."""
    atomic_write(folder / RECORD, json.dumps(record, indent=1).encode())


def begin_session(folder: Path, run: Run, training: Dataset, validation: Dataset, tiles: TileMaker) -> dict[str, Any]:
    """The run's record with the entry that it begins or goes on, here and now; not yet written."""
    record = read_record(folder) if run.step else {}
    device = run.network.parameters()[0].device
    record["data"] = {"training": summary(training), "validation": summary(validation)}
    record["tiles"] = {"input": tiles.in_size, "output": tiles.out_size}
    record |= settings_of(dataclasses.asdict(run.config), run.network, run.source)
    session = {
        "began": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "step": run.step,
        "version": __version__, "versions": versions(), "machine": f"{processor()}, {platform.platform(terse=True)}",
        "cores": available_cores(), "threads": get_num_threads(), "device": device,
        "device_name": describe_device(device),
    }  # fmt: skip
    sessions = [each for each in record.get("sessions", []) if each["step"] < run.step]
    record["sessions"] = [*sessions, session]
    return record


def keep_profile(folder: Path, record: dict[str, Any], timed: Mapping[int, profile]) -> None:
    """Enter where the time of the quickest of these steps (from 1) went, and leave its picture beside the record.

    What else the machine does only makes steps longer.
    """
    step, watched = min(timed.items(), key=lambda item: item[1].total_time)
    kept = ("op", "module", "phase", "calls", "time", "flops")
    rows = {
        by: [{name: row[name] for name in kept if name in row} for row in watched.rows(by)] for by in ("op", "module")
    }
    record["profile"] = {"step": step, "of": [min(timed), max(timed)], "seconds": watched.total_time, **rows}
    atomic_write(folder / FLAME, watched.flame_svg().encode())


def settings_of(config: dict[str, Any], network: UNet, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint knows, too, but only tells when all of it is read."""
    layers = [(name, list(p.shape)) for name, p in network.named_parameters()]
    return {"config": config, "network": network.config, "source": dict(source), "parameters": layers}


def summary(dataset: Dataset) -> dict[str, Any]:
    """Numbers of a data set: images, sizes, pixels of each class and of none, and what its labels mean."""
    counts, ignored = np.zeros(dataset.classes, np.int64), 0
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    for sample in dataset:
        counted = sample.label[sample.label != IGNORE]
        counts += np.bincount(counted, minlength=dataset.classes)
        ignored += sample.label.size - counted.size
        sizes[sample.label.shape] += 1
    return {
        "source": dataset.source, "images": len(dataset), "channels": dataset.channels, "classes": dataset.classes,
        "sizes": [[height, width, number] for (height, width), number in sizes.most_common()],
        "pixels": counts.tolist(), "ignored": ignored, "names": dataset.names[:_NAMES],
        "labels": dataset.rule.describe(),
    }  # fmt: skip
