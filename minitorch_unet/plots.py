"""Pictures of a run by matplotlib: the loss curve, and panels of image, label, prediction and errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data import Sample
from .data.weights import IGNORE

ERROR_COLOURS = {"right": (0.93, 0.93, 0.93), "missed": (0.10, 0.35, 0.80), "false": (0.85, 0.20, 0.15)}


def matplotlib_missing() -> str | None:
    """None if pictures can be drawn, else what to install."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "matplotlib is not installed, so no pictures are drawn; pip install 'minitorch-unet[plots]'"
    return None


def _figure(width: float, height: float) -> Any:
    """A figure that needs no screen and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def loss_curve(log: Path, picture: Path) -> None:
    """Training loss by step (thin: each step, thick: running mean), validation loss and IoU by epoch."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [e for e in events if e["event"] == "step"]
    epochs = [e for e in events if e["event"] == "epoch"]
    figure = _figure(9, 4)
    left, right = figure.subplots(1, 2)
    if steps:
        x, y = np.array([e["step"] for e in steps]), np.array([e["loss"] for e in steps])
        window = max(1, len(y) // 30)
        left.plot(x, y, color="tab:blue", alpha=0.25, linewidth=0.8, label="training, each step")
        smooth = np.convolve(y, np.ones(window) / window, mode="valid")
        left.plot(x[window - 1 :], smooth, color="tab:blue", label=f"training, mean of {window}")
        left.set_ylim(0, np.percentile(y, 99) * 1.1)
    left.plot([e["step"] for e in epochs], [e["loss"] for e in epochs], "o-", color="tab:orange", label="validation")
    left.set(xlabel="step", ylabel="loss", title="Loss")
    left.legend()
    for name, text in (("mean_iou", "IoU"), ("mean_dice", "Dice")):
        right.plot([e["epoch"] for e in epochs], [e[name] for e in epochs], "o-", label=text)
    right.set(xlabel="epoch", ylabel="mean of foreground classes", title="Validation", ylim=(0, 1))
    right.legend(loc="lower right")
    figure.savefig(picture)


def panel(samples: Sequence[Sample], probabilities: Sequence[np.ndarray], picture: Path) -> None:
    """A row for each sample: image, label, predicted classes, and where they differ.

    In the last column blue is foreground that was missed, red is foreground that is not there (or another class),
    hatched grey is ignored.
    """
    figure = _figure(12, 3.1 * len(samples))
    axes = figure.subplots(len(samples), 4, squeeze=False)
    for row, (sample, probability) in enumerate(zip(samples, probabilities, strict=True)):
        classes, prediction = probability.shape[0], probability.argmax(0)
        counted = sample.label != IGNORE
        errors = np.empty((*sample.label.shape, 3))
        errors[:] = ERROR_COLOURS["right"]
        wrong = counted & (prediction != sample.label)
        errors[wrong & (prediction == 0)] = ERROR_COLOURS["missed"]
        errors[wrong & (prediction != 0)] = ERROR_COLOURS["false"]
        errors[~counted] = 0.75
        image = np.clip(np.moveaxis(sample.image, 0, -1), 0, 1)
        axes[row, 0].imshow(image if image.shape[2] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
        shown = np.where(counted, sample.label, 0)
        for column, values in ((1, shown), (2, prediction)):
            axes[row, column].imshow(values, cmap="gray", vmin=0, vmax=max(1, classes - 1), interpolation="nearest")
        axes[row, 3].imshow(errors, interpolation="nearest")
        share = 1 - wrong.sum() / max(1, counted.sum())
        titles = (sample.name, "label", "prediction", f"errors ({100 * share:.1f} % of pixels right)")
        for axis, title in zip(axes[row], titles, strict=True):
            axis.set_title(title, fontsize=10)
            axis.set_axis_off()
    figure.supxlabel("errors: blue = missed foreground, red = false foreground, darker grey = not judged", fontsize=9)
    figure.savefig(picture)
