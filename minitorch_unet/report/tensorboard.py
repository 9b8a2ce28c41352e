"""TensorBoard event files of a run, by the library tensorboardX, written from the same events as the log."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..runs import LOG, read_log
from .examples import Examples
from .pictures import strip

FOLDER = "tensorboard"
SCORES = ("mean_iou", "mean_dice", "pixel_accuracy")


def tensorboard_missing() -> str | None:
    """None if event files can be written, else what to install."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        return "--tensorboard needs the library tensorboardX; pip install 'minitorch-unet[tensorboard]'"
    return None


class EventFiles:
    """The folder RUN/tensorboard. Raises ValueError where tensorboardX is not installed.

    A run that goes on from a checkpoint forgets the log's later steps, and what is in an event file cannot be taken out
    of it again; so `begin` writes them anew from the log. No step is in them twice.
    """

    def __init__(self, folder: Path, classes: int) -> None:
        if missing := tensorboard_missing():
            raise ValueError(missing)
        self._folder, self._classes = folder, classes
        self._writer: Any = None

    def begin(self, step: int, examples: Examples, sessions: Sequence[Mapping[str, Any]]) -> None:
        """Begin anew with what the log holds up to this step; the times are those at which it happened."""
        from tensorboardX import SummaryWriter

        target = self._folder / FOLDER
        for old in target.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(target))
        starts = [(each["step"], datetime.datetime.fromisoformat(each["began"]).timestamp()) for each in sessions]
        for event in read_log(self._folder / LOG):
            if event["step"] <= step:
                began = [time for first, time in starts if first < event["step"]]
                self.add(event, examples, began[-1] + event.get("seconds", 0) if began else None)

    def add(self, event: Mapping[str, Any], examples: Examples, time: float | None = None) -> None:
        """One event of the log, at the step that it belongs to; `time` in seconds since 1970, None: now."""
        values: dict[str, float | None] = {}
        if event["event"] == "step":
            values = {"loss/training": event["loss"], "learning_rate": event["lr"]}
            layers = event.get("gradients", {})
            values |= {f"gradient_norm/{layer}": norm for layer, norm in layers.items()}
        elif event["event"] == "epoch":
            values = {"loss/validation": event["loss"], **{f"score/{name}": event.get(name) for name in SCORES}}
            for number, tile in enumerate(examples.tiles):
                if event["epoch"] in tile.predictions:
                    picture = strip(tile, event["epoch"], self._classes)
                    self._writer.add_image(f"example/{number}", picture, event["step"], time, dataformats="HWC")
        for tag, value in values.items():
            if value is not None:
                self._writer.add_scalar(tag, value, event["step"], time)
        if event["event"] != "step":
            self._writer.flush()

    def close(self) -> None:
        """Write what is waiting."""
        if self._writer is not None:
            self._writer.close()
