"""What a run's folder tells: log, record, examples and settings, read once, with the few numbers drawn from them."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..errors import DataError
from ..predict import load_network
from ..runs import LAST, LOG, read_log
from .examples import EXAMPLES, Examples
from .record import read_record, settings_of

_OPENING = ("layout", "labels", "foreground", "channels", "colours", "ignore_border", "surroundings")
_SPLITTING = ("validation", "split", "split_seed", "gap")


class Story:
    """A run as its folder has it. Raises DataError for a folder that holds no run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give the folder of a run")
        self.events = read_log(folder / LOG)
        self.record = read_record(folder)
        if "config" not in self.record:  # of a run from before there were records
            network, metadata = load_network(folder / LAST if (folder / LAST).is_file() else folder)
            if "config" not in metadata:
                raise DataError(f"{folder}: its checkpoint is of no run")
            self.record |= settings_of(metadata["config"], network, metadata.get("source") or {})
        self.steps = [event for event in self.events if event["event"] == "step"]
        self.epochs = [event for event in self.events if event["event"] == "epoch"]
        self.examples = Examples.load(folder / EXAMPLES) if (folder / EXAMPLES).is_file() else Examples([])

    @property
    def config(self) -> dict[str, Any]:
        """The settings by name."""
        return self.record["config"]

    @property
    def classes(self) -> int:
        """How many classes the network tells apart."""
        return max(2, self.record["network"]["num_classes"])

    @property
    def source(self) -> dict[str, Any]:
        """How the data were opened and split."""
        return self.record["source"]

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Each time that the run was begun or gone on with."""
        return self.record.get("sessions", [])

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(math.prod(shape) for _, shape in self.record["parameters"])

    @property
    def best(self) -> dict[str, Any] | None:
        """The event of the best epoch."""
        return max(self.epochs, key=lambda epoch: epoch["mean_iou"], default=None)

    def status(self) -> str:
        """How far the run is, and why it is not further."""
        if not self.steps:
            return "nothing trained yet"
        done, wanted = self.steps[-1]["step"], self.steps[-1]["steps_in_all"]
        last = self.events[-1]
        if last["event"] == "failed":
            return f"failed after step {done:,} of {wanted:,}: {last['reason']}"
        if done >= wanted:
            return f"finished: {done:,} steps"
        why = {"patience": ", as validation got no better", "max_hours": ", as its time was up"}
        reason = why.get(last["reason"], "") if last["event"] == "stop" else ""
        return f"at step {done:,} of {wanted:,}{'; stopped' + reason if reason else ''}"

    def seconds(self) -> float:
        """Time that the run took, all sessions together; what was computed and lost again is not in it."""
        starts = [session["step"] for session in self.sessions] or [0]
        longest = dict.fromkeys(starts, 0.0)
        for event in self.events:
            began = max((start for start in starts if start < event["step"]), default=starts[0])
            longest[began] = max(longest[began], event.get("seconds", 0.0))
        return sum(longest.values())

    def gradient_norms(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Steps (T,), names of layers (L,) from input to scores, norms (T, L); NaN for what is not finite."""
        noted = [event for event in self.steps if event.get("gradients")]
        layers = sorted(noted[0]["gradients"], key=_place) if noted else []
        values = [[event["gradients"].get(layer) for layer in layers] for event in noted]
        return np.array([event["step"] for event in noted]), layers, np.array(values, np.float64)

    def changed_settings(self) -> dict[str, Any]:
        """The settings that are not their defaults; those that this version does not know are left out."""
        default = TrainConfig()
        known = {name: value for name, value in self.config.items() if hasattr(default, name)}
        return {name: value for name, value in known.items() if value != getattr(default, name)}

    def command(self) -> str | None:
        """What computes the same again in another folder; None for a run that a script began with data of its own."""
        last = self.sessions[-1] if self.sessions else {}
        machine = ["--threads", str(last["threads"])] if "threads" in last else []
        if last.get("device", "cpu") != "cpu":
            machine += ["--device", last["device"]]
        output = ["--output", f"{self.folder}-again"]
        if self.source.get("data") == "demo":
            chosen = ["--quick"] if self.source.get("quick") else []
            chosen += ["--seed", str(self.config["seed"])]
            return shlex.join(["minitorch-unet", "demo", *chosen, *machine, *output])
        if "validation" not in self.source:
            return None
        words = ["minitorch-unet", "train", "--data", str(self.source["data"])]
        for name in (*_OPENING, *_SPLITTING):
            value = self.source.get(name)
            if value not in (None, "auto", "ignored") and not (value == 0 and name in ("split_seed", "gap")):
                words += [_option(name), str(value)]
        for name, value in self.changed_settings().items():
            words += [f"--{'' if value else 'no-'}{_option(name)[2:]}"] if isinstance(value, bool) else [
                _option(name), str(value),
            ]  # fmt: skip
        return shlex.join([*words, *machine, *output])


def _place(layer: str) -> tuple[int, int, bool]:
    """Where a layer of the U-Net stands on the way through it: an up-convolution comes before the block it feeds."""
    part, _, rest = layer.partition(".")
    number = rest.partition(".")[0]
    return {"down": 0, "up": 1, "merge": 1}.get(part, 2), int(number) if number.isdigit() else 0, part == "merge"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
