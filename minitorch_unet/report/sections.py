"""The parts of the page that show something, each with a sentence that says what: a Story in, HTML out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..pages import escape, png_uri
from . import pictures
from .curves import Line, chart, number, running_mean
from .examples import Tile
from .parts import duration, figure, panel
from .story import Story

_ROW = 14  # pixels, height of a layer's row
_COLUMNS = 240  # of the picture of norms, at most


def head(story: Story) -> str:
    """Name, state, and the numbers asked for first."""
    best, last = story.best, story.epochs[-1] if story.epochs else None
    facts = [("state", story.status())]
    if best is not None and last is not None:
        facts.append(("best mean IoU", f"{best['mean_iou']:.4f} (epoch {best['epoch']})"))
        facts.append(("validation loss at the end", number(last["loss"])))
    facts += [("time", duration(story.seconds())), ("parameters", f"{story.parameter_count:,}")]
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    name = story.folder.resolve().name
    return f'<header><h1>Training run {escape(name)}</h1><dl class="facts">{cells}</dl></header>'


def curves(story: Story) -> str:
    """Loss, scores, learning rate, norm of the gradient."""
    steps, epochs = story.steps, story.epochs
    x = np.array([event["step"] for event in steps])
    losses = np.array([event["loss"] for event in steps], np.float64)
    at = [event["step"] for event in epochs]
    window = max(1, len(x) // 30)
    lines = []
    if len(x):
        lines = [Line("training, each step", x, losses, "blue", faint=window > 1)]
        if window > 1:
            smooth = running_mean(losses, window)
            lines.append(Line(f"training, mean of {window} steps", x[window - 1 :], smooth, "blue"))
    lines.append(Line("validation, unweighted", at, [event["loss"] for event in epochs], "orange", dots=True))
    numbers = [event["epoch"] for event in epochs]
    scores = [
        Line(name, numbers, [event.get(key, np.nan) for event in epochs], colour, dots=True)
        for name, key, colour in (
            ("mean IoU", "mean_iou", "blue"), ("mean Dice", "mean_dice", "green"),
            ("pixels right", "pixel_accuracy", "orange"),
        )
    ]  # fmt: skip
    at_norms, _, norms = story.gradient_norms()
    whole = np.sqrt((norms**2).sum(1)) if len(norms) else np.array([])
    rate = Line("learning rate", x, [event["lr"] for event in steps], "green")
    return "".join(
        [
            '<section class="columns">',
            figure(
                "Loss", chart(lines, "step", "loss"),
                "How wrong the network is: in training in the measure that it lowers, with its weights; single steps "
                "jump because each sees other tiles. In validation it is the mean of −log p of the right class, always "
                "the same measure. If that rises while the training loss falls, it is learning by heart.",
            ),
            figure(
                "Scores", chart(scores, "epoch", "score", limits=(0, 1)),
                "How much of the objects is found, on images that are not trained on: IoU is what prediction and label "
                "share over what either covers, Dice weighs the shared part twice; both mean the classes but the "
                "background.",
            ),
            figure("Learning rate", chart([rate], "step", "learning rate"), _about_rate(story.config)),
            figure(
                "Norm of the gradient", chart([Line("all layers together", at_norms, whole, "blue")], "step",
                                              "norm", log=True),
                "How steep the loss is where the weights stand: a norm that climbs without end comes before a run that "
                "bursts, one that sinks to nothing before one that stands still.",
            ),
            "</section>",
        ]
    )  # fmt: skip


def _about_rate(config: Mapping[str, Any]) -> str:
    schedule, warm_up = config.get("schedule", "constant"), config.get("warm_up", 0)
    text = f"By what the update of the weights is multiplied in each step: schedule “{schedule}”"
    return text + (f", rising from 0 over the first {warm_up} steps." if warm_up else ".")


def layers(story: Story) -> str:
    """The norms of each layer's gradient as a picture, a row for each layer."""
    steps, names, norms = story.gradient_norms()
    if not names:
        return panel("Gradients by layer", '<p class="quiet">This run recorded none.</p>')
    with np.errstate(divide="ignore"):
        logs = np.log10(norms)
    logs[~np.isfinite(logs)] = np.nan
    finite = logs[np.isfinite(logs)]
    low, high = np.percentile(finite, (2, 98)) if finite.size else (0.0, 1.0)
    high = max(high, low + 0.1)
    columns = [_mean(logs[piece]) for piece in np.array_split(np.arange(len(logs)), min(_COLUMNS, len(logs)))]
    picture = pictures.shaded((np.stack(columns, axis=1) - low) / (high - low))
    rows = "".join(
        f'<span title="first {number(first)}, last {number(last)}">{escape(name)}</span>'
        for name, first, last in zip(names, norms[0], norms[-1], strict=True)
    )
    height = _ROW * len(names)
    scale = png_uri(pictures.shaded(np.linspace(0, 1, 120)[None]))
    body = (
        f'<div class="layers" style="--row:{_ROW}px"><div class="names">{rows}</div>'
        f'<img src="{png_uri(picture)}" alt="norm of the gradient of {len(names)} layers over {len(norms)} steps" '
        f'style="height:{height}px"></div>'
        f'<p class="scale small">step {steps[0]:,} to {steps[-1]:,}, left to right; norm {number(10**low)} '
        f'<img src="{scale}" alt="dark to bright"> {number(10**high)} (logarithmic)</p>'
    )
    text = (
        "The length of each layer's gradient, from the input at the top to the scores at the bottom: a dark band is a "
        "layer that the loss hardly depends on (plain SGD hardly moves it; Adam and its like divide by the gradient's "
        "size), and rows that brighten together are steps that shook the whole network."
    )
    return panel("Gradients by layer", f"<p>{text}</p>{body}")


def _mean(logs: np.ndarray) -> np.ndarray:
    """Means (L,) over the first axis of what is there; NaN where nothing is."""
    there = np.isfinite(logs)
    counts = there.sum(0)
    return np.where(counts, np.where(there, logs, 0).sum(0) / np.maximum(counts, 1), np.nan)


def examples(story: Story) -> str:
    """The same tiles again and again, as the network learnt."""
    found = story.examples
    if not found.tiles or not found.epochs:
        return panel("Examples", '<p class="quiet">This run kept none.</p>')
    kind = "Probability of the foreground (white: certain)" if story.classes == 2 else "Predicted classes"
    text = (
        f"{kind} on the same pieces of validation images, before the first step (epoch 0), after epochs 1, 2, 4, 8 and "
        "so on, and after the last one; below each where it differs from the label."
    )
    legend = "".join(
        f'<span><i style="background:rgb{tuple(int(v) for v in colour)}"></i>{name}</span>'
        for colour, name in zip(
            pictures.ERRORS, ("right", "missed", "false, or another class", "not judged"), strict=True
        )
    )
    parts = [f'<p>{text}</p><div class="legend">{legend}</div>']
    return panel("Examples over time", "".join([*parts, *(_tile(tile, story.classes) for tile in found.tiles)]))


def _tile(tile: Tile, count: int) -> str:
    rows, columns = tile.window
    known = [("image", pictures.image(tile)), ("label", pictures.classes(tile.label.astype(np.int64), count))]
    weights = pictures.weights(tile)
    if weights is not None and tile.weights is not None:
        low, high = float(tile.weights.min()), float(tile.weights.max())
        known.append((f"loss weight {number(low)} to {number(high)}", weights))
    figures = [_picture(text, picture) for text, picture in known]
    for epoch in tile.predictions:
        share = f"epoch {epoch}: {100 * pictures.right_share(tile, epoch):.1f} % right"
        figures.append(_picture(share, pictures.prediction(tile, epoch, count), pictures.errors(tile, epoch)))
    where = f"rows {rows.start}–{rows.stop - 1}, columns {columns.start}–{columns.stop - 1}"
    return f'<h3>{escape(tile.name)} <span class="quiet">{where}</span></h3><div class="tiles">{"".join(figures)}</div>'


def _picture(caption: str, *images: np.ndarray) -> str:
    shown = "".join(f'<img src="{png_uri(picture)}" alt="">' for picture in images)
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"
