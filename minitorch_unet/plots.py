"""Pictures by matplotlib: the loss curve, panels of image, label, prediction and errors, memory over a step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data import Sample
from .data.weights import IGNORE
from .shades import class_colours

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


def _short(name: str, length: int = 28) -> str:
    """`name`, its middle left out where it would run into the next picture's title."""
    return name if len(name) <= length else f"{name[: length // 2]}...{name[3 - length // 2 :]}"


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
    darker grey is ignored.
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
        for column, values in ((1, np.where(counted, sample.label, 0)), (2, prediction)):
            axes[row, column].imshow(class_colours(classes)[values], interpolation="nearest")
        axes[row, 3].imshow(errors, interpolation="nearest")
        share = 1 - wrong.sum() / max(1, counted.sum())
        titles = (_short(sample.name), "label", "prediction", f"errors ({100 * share:.1f} % of pixels right)")
        for axis, title in zip(axes[row], titles, strict=True):
            axis.set_title(title, fontsize=10)
            axis.set_axis_off()
    figure.supxlabel("errors: blue = missed foreground, red = false foreground, darker grey = not judged", fontsize=9)
    figure.savefig(picture)


def weight_panel(
    label: np.ndarray, weights: np.ndarray, nearest: np.ndarray, second: np.ndarray, gradient: np.ndarray, picture: Path
) -> None:
    """How a weight map (H, W) comes about: label, distances d1 and d2 in pixels, w, and the gradient dE/dscore."""
    figure = _figure(17, 3.9)
    axes = figure.subplots(1, 5)
    finite = [np.where(np.isfinite(d), d, np.nan) for d in (nearest, second)]
    far = max([1.0, *(float(np.nanpercentile(d, 99)) for d in finite if np.isfinite(d).any())])
    largest = max(1e-12, float(np.abs(gradient).max()))
    shown: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
        ("label: 1 inside an object", np.where(label == IGNORE, np.nan, label), {"cmap": "gray", "vmin": 0, "vmax": 1}),
        ("d1, pixels to the nearest object", finite[0], {"cmap": "viridis", "vmin": 0, "vmax": far}),
        ("d2, pixels to the second nearest", finite[1], {"cmap": "viridis", "vmin": 0, "vmax": far}),
        ("w, loss weight", weights, {"cmap": "magma", "vmin": 0, "vmax": max(1e-12, float(weights.max()))}),
        ("dE/dscore of the foreground", gradient, {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}),
    )
    for axis, (title, values, how) in zip(axes, shown, strict=True):
        drawn = axis.imshow(values, interpolation="nearest", **how)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        if axis is not axes[0]:
            figure.colorbar(drawn, ax=axis, shrink=0.72)
    figure.savefig(picture)


def augmentation_panel(drawn: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], picture: Path) -> None:
    """A column for each (image (C, H, W), instances (H, W), lines (H, W)): the first as it was, the others augmented.

    Rows: the image with the objects' borders, the objects in colours that they keep, the lines, which show the field.
    """
    figure = _figure(2.9 * len(drawn), 8.6)
    axes = figure.subplots(3, len(drawn), squeeze=False)
    for column, (image, instances, lines) in enumerate(drawn):
        grey = np.clip(np.moveaxis(image, 0, -1), 0, 1)
        coloured = np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey.copy()
        border = (instances[1:, 1:] != instances[:-1, 1:]) | (instances[1:, 1:] != instances[1:, :-1])
        coloured[1:, 1:][border] = (1.0, 0.75, 0.1)
        shades = np.where(instances == 0, np.nan, instances * 7 % 20)  # neighbouring numbers far apart
        rows: tuple[tuple[np.ndarray, dict[str, Any]], ...] = (
            (coloured, {}), (shades, {"cmap": "tab20", "vmin": 0, "vmax": 19}), (1 - lines, {"cmap": "gray"}),
        )  # fmt: skip
        for row, (values, how) in enumerate(rows):
            axes[row, column].imshow(values, interpolation="nearest", **how)
            axes[row, column].set_axis_off()
        axes[0, column].set_title("as it was" if column == 0 else f"draw {column}", fontsize=10)
    figure.savefig(picture)


MEMORY_COLOURS = {
    "parameters and state": "#c3c9ce", "kept maps": "#2f6fae", "gradients": "#e2862f", "temporaries": "#f3cf7a",
}  # fmt: skip


def _positions(moments: Sequence[Any]) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """A place on the x axis for every moment, one unit wide for each stage of each pass, and the stages in turn."""
    stages: list[tuple[str, str]] = []
    counts: list[int] = []
    for moment in moments:
        if not stages or stages[-1] != (moment.phase, moment.stage):
            stages.append((moment.phase, moment.stage))
            counts.append(0)
        counts[-1] += 1
    places = [i + (np.arange(count) + 0.5) / count for i, count in enumerate(counts)]
    return np.concatenate(places), stages


def memory_over_a_step(
    moments: Sequence[Any], picture: Path, constant: int, title: str, measured: dict[str, Sequence[float]] | None = None
) -> None:
    """The live bytes of a step's moments (see planner.Moment), stacked by kind over what is always there, `constant`.

    measured: lines drawn over it, name -> bytes at each of the moments.
    """
    x, stages = _positions(moments)
    mib = 1 / 2**20
    layers = [np.full(len(x), constant), *(np.array([getattr(m, k) for m in moments]) for k in ("kept", "gradients",
              "temporaries"))]  # fmt: skip
    total = np.sum(layers, axis=0) * mib
    figure = _figure(11, 4.8)
    axis = figure.subplots()
    axis.stackplot(
        x, [layer * mib for layer in layers], labels=list(MEMORY_COLOURS), colors=list(MEMORY_COLOURS.values()),
        step="post", linewidth=0,
    )  # fmt: skip
    for (name, values), style in zip((measured or {}).items(), ("-", ":"), strict=False):
        axis.step(x, np.array(values) * mib, style, where="post", color="#222222", linewidth=1.2, label=name)
    turn = next(i for i, (phase, _) in enumerate(stages) if phase == "backward")
    axis.axvline(turn, color="#222222", linewidth=1)
    highest = max([total.max(), *(np.max(v) * mib for v in (measured or {}).values())])
    top = 1.25 * highest
    for text, at, side in (("forward  ", turn, "right"), ("  backward", turn, "left")):
        axis.text(at, 0.985 * top, text, ha=side, va="top", fontsize=11)
    peak = int(total.argmax())
    axis.annotate(
        f"{total[peak]:.0f} MiB", (x[peak], total[peak]), (x[peak], highest + 0.04 * top), ha="center", fontsize=9,
        arrowprops={"arrowstyle": "-", "linewidth": 0.8},
    )  # fmt: skip
    axis.set(xlim=(0, len(stages)), ylim=(0, top), ylabel="MiB", title=title)
    axis.set_xticks(np.arange(len(stages)) + 0.5, [stage for _, stage in stages], rotation=60, ha="right", fontsize=8,
                    rotation_mode="anchor")  # fmt: skip
    axis.tick_params(axis="x", length=0)
    for edge in range(1, len(stages)):
        axis.axvline(edge, color="white", linewidth=0.5, alpha=0.5)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.legend(loc="upper left", frameon=False, fontsize=9, ncols=2)
    figure.savefig(picture)
