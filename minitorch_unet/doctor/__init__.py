"""What is wrong with a data set, a run or predictions: each fault by its evidence, with what to do.

A diagnosis is a function that looks at the `Evidence` and returns what it found; all of them stand in DIAGNOSES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..unet import UNetSizes
from . import data_faults, picture_faults, run_faults
from .evidence import Evidence, gather
from .record import ERROR, WARNING, Diagnosis, Report

__all__ = ["DIAGNOSES", "ERROR", "WARNING", "Diagnosis", "Evidence", "Report", "diagnose", "examine", "gather"]

DIAGNOSES = (*data_faults.DIAGNOSES, *run_faults.DIAGNOSES, *picture_faults.DIAGNOSES)


def examine(
    data: Sequence[Path], run: Path | None, predictions: Sequence[Path], opening: Mapping[str, Any],
    splitting: Mapping[str, Any], sizes: UNetSizes | None = None, whole: bool = False,
) -> Report:  # fmt: skip
    """Look at data sets, a run and predictions, whatever is given; see `gather`. Raises ValueError for nothing at all.

    opening, splitting: arguments of `open_dataset` and `split_dataset`. sizes: of the network, where no run says it.
    whole: images are fed whole to the network, so that their sizes must be legal.
    """
    if not data and run is None and not predictions:
        raise ValueError("nothing to look at: give a run, --data or --predictions")
    return diagnose(gather(data, run, predictions, opening, splitting, sizes or UNetSizes(), whole))


def diagnose(evidence: Evidence) -> Report:
    """The findings of all diagnoses, errors first."""
    found = [diagnosis for look in DIAGNOSES for diagnosis in look(evidence)]
    found.sort(key=lambda diagnosis: diagnosis.severity != ERROR)
    examined = [
        f"{part.name}: " + (f"{len(part.findings)} pairs" if part.dataset is not None else "no usable data set")
        for part in evidence.parts
    ]
    run = evidence.run
    if run is not None:
        log = f"{run.losses.size} steps and {len(run.epochs)} epochs in its log" if run.losses.size else "no log"
        tried = ", its network tried on images" if evidence.probe is not None else ""
        examined.append(f"{run.path}: saved at step {run.step}, {log}{tried}")
    if evidence.pictures:
        examined.append(f"{len(evidence.pictures)} files of predictions")
    return Report(examined, evidence.notes, found)
