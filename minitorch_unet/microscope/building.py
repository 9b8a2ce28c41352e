"""The page of a recorded step: its data as JSON, its pictures, its texts, and the files beside this one around them."""

from __future__ import annotations

from string import Template
from typing import Any

import numpy as np

from .. import functional as F
from ..data import IGNORE
from ..pages import asset, escape, grey8, page, png_uri
from ..shades import IGNORED_COLOUR, class_colours
from ..tables import size_text
from ..tensor import Tensor, no_grad
from .drawing import draw
from .look import packed
from .pixels import axis_fields
from .record import Recording, StageRecord
from .window import Window

SCRIPTS = ("tools.js", "stages.js", "tape.js", "convolution.js", "pixel.js")
SCORE_BYTES = 2_600_000  # of scores on the page; with more, every second pixel is left out, and so on
IGNORED = 255  # class number on the page of a pixel that counts nothing

# The example on paper: a 6 x 6 image, a 3 x 3 kernel, 4 x 4 results of which the first is 37.
_UP, _DOWN, _DOTS = [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [0, 1, 0, 1, 0, 1]
WORKED_IMAGE = [_UP, _DOTS, _DOWN, _DOTS, _UP, _DOTS]
WORKED_KERNEL = [[-1, 2, -3], [4, 5, -6], [7, -8, 9]]

TEXTS = {
    "input": "The image as the network is shown it: greys (or colours) normalised so that most lie between 0 and 1.",
    "conv": "A 3 × 3 convolution: each map is a weighted sum of all maps before it, over windows of 3 × 3 pixels, plus "
    "a bias; {after} the ReLU sets what is negative to 0.",
    "pool": "Max pooling: of each 2 × 2 pixels only the largest value is kept. Maps become half as large, and every "
    "later window sees twice as far.",
    "up": "Up-convolution: every pixel becomes 2 × 2 pixels, by weights that are learned. The way back to full size.",
    "nearest": "Every pixel is repeated 2 × 2 times, then a learned 2 × 2 convolution smooths the steps.",
    "crop": "The maps of the contracting path, cut to the size of the upsampled ones. They carry the fine detail that "
    "pooling threw away. A crop is a view: it needs no memory of its own, and has no arithmetic.",
    "whole crop": "The maps of the contracting path, handed over whole: with padding they are as large as the "
    "upsampled ones. They carry the fine detail that pooling threw away.",
    "scores": "A 1 × 1 convolution: at each pixel a score (logit) for each class, from the maps of that pixel alone.",
}  # fmt: skip


def build(recording: Recording, window: Window, names: dict[str, str]) -> str:
    """The HTML of the whole page. `names`: what to call `checkpoint`, `image` and (perhaps) `label`."""
    network = recording.network
    count = network.parameter_count()
    loss = "its label" if recording.labelled else "the network's own prediction, as no label was given"
    body = Template(asset("page.html", __package__)).substitute(
        image=escape(names["image"]), checkpoint=escape(names["checkpoint"]), parameters=f"{count:,}",
        network=escape(network.describe()), shown=escape(window.describe()),
        out=f"{window.out[0]} × {window.out[1]}", loss=f"{recording.loss:.6g}", against=escape(loss),
        label=f" Its label is <code>{escape(names['label'])}</code>." if "label" in names else "",
        threads=f"{recording.threads} thread{'s' if recording.threads > 1 else ''}",
        top=size_text(max(m.kept + m.held + m.inside for m in recording.moments) + recording.constant),
        drawing=draw(recording.stages, network.up_first),
    )  # fmt: skip
    scripts = [asset(name, __package__) for name in SCRIPTS]
    title = f"{names['image']} in {names['checkpoint']}: inside a U-Net"
    return page(title, body, asset("page.css", __package__), as_data(recording, window), scripts)


def as_data(recording: Recording, window: Window) -> dict[str, Any]:
    """Everything that the scripts show, as plain values."""
    network, numbers = recording.network, {r.stage.name: i for i, r in enumerate(recording.stages)}

    def numbered(names: list[str]) -> list[int]:
        return [numbers[name] for name in names if name in numbers]

    moments = [
        {
            "phase": m.phase, "stage": numbers.get(m.stage, -1), "name": m.stage, "op": m.op, "shapes": m.shapes,
            "ms": round(m.seconds * 1e3, 3), "maps": [0, *numbered(m.maps)], "gradients": numbered(m.gradients),
            "weights": numbered(m.weights), "kept": m.kept, "held": m.held, "inside": m.inside,
        }
        for m in recording.moments
    ]  # fmt: skip
    return {
        "stages": [_stage_data(r, recording) for r in recording.stages],
        "tape": {"moments": moments, "constant": recording.constant},
        "window": {"start": window.start, "shape": window.shape, "halo": window.halo, "out": window.out},
        "pictures": _pictures(recording),
        **_scores(recording),
        "rows": axis_fields(network, window.shape[0]),
        "columns": axis_fields(network, window.shape[1]),
        "coupled": network.config["norm"] in ("group", "instance"),
        "labelled": recording.labelled,
        "loss": recording.loss,
        "pixels": [_pixel_data(p, recording) for p in recording.pixels],
        "windows": recording.windows,
        "worked": worked_example(),
    }


def worked_example() -> dict[str, Any]:
    """The 6 x 6 example, its results computed by the engine."""
    image, kernel = (np.array(values, np.float32)[None, None] for values in (WORKED_IMAGE, WORKED_KERNEL))
    with no_grad():
        result = F.conv2d(Tensor(image), Tensor(kernel))
        pooled = F.max_pool2d(F.relu(result), 2)
    return {
        "image": WORKED_IMAGE, "kernel": WORKED_KERNEL,
        "result": result.numpy()[0, 0].tolist(), "pooled": pooled.numpy()[0, 0].tolist(),
    }  # fmt: skip


def _stage_data(r: StageRecord, recording: Recording) -> dict[str, Any]:
    config, stage = recording.network.config, r.stage
    kind = stage.kind
    if kind == "up" and config["up"] == "nearest":
        kind = "nearest"
    elif kind == "crop" and config["padding"] == "same":
        kind = "whole crop"
    norm = {"none": "then", "batch": "then batch normalisation, and", "group": "then group normalisation, and",
            "instance": "then instance normalisation, and"}[config["norm"]]  # fmt: skip
    return {
        "name": stage.name, "kind": stage.kind, "shape": list(r.shape), "text": TEXTS[kind].format(after=norm),
        "inputs": list(stage.inputs), "relu": stage.relu, "maps": r.maps, "gradients": r.gradients,
        "weights": r.weights, "weightGradient": r.weight_gradient, "bytes": r.bytes,
        "ms": {phase: round(seconds * 1e3, 3) for phase, seconds in r.seconds.items()},
    }  # fmt: skip


def _pixel_data(found: dict[str, Any], recording: Recording) -> dict[str, Any]:
    """A pixel that is worked out, with its scores: it need not be among those of `_scores`."""
    row, column = found["pixel"]
    target = int(recording.target[row, column])
    label = IGNORED if target == IGNORE else target
    return {**found, "logits": recording.scores[:, row, column].tolist(), "label": label}


def _scores(recording: Recording) -> dict[str, Any]:
    """The scores and targets of every pixel, or of every `stride`-th row and column where they are too many."""
    stride = 1
    while recording.scores[:, ::stride, ::stride].nbytes > SCORE_BYTES:
        stride += 1
    target = np.where(recording.target == IGNORE, IGNORED, recording.target).astype(np.uint8)
    return {
        "scores": packed(recording.scores[:, ::stride, ::stride]),
        "target": packed(target[::stride, ::stride]),
        "stride": stride,
    }


def _pictures(recording: Recording) -> dict[str, Any]:
    """The image, the prediction and the label."""
    image, scores = recording.image, recording.scores
    planes = grey8(image, 0, 1)
    shown = np.moveaxis(planes, 0, -1) if len(planes) == 3 else planes[0]
    classes = len(scores)
    found: dict[str, Any] = {"image": png_uri(shown), "classes": class_colours(classes).tolist()}
    if classes == 2:
        found["prediction"] = png_uri(np.rint(255 / (1 + np.exp(scores[0] - scores[1], dtype=np.float64))).astype("u1"))
        found["meaning"] = "black: class 0 is certain, white: class 1 is certain"
    else:
        found["prediction"] = _in_colours(scores.argmax(0), classes)
        found["meaning"] = "the class with the highest score at each pixel"
    if recording.labelled:
        found["label"] = _in_colours(recording.target, classes)
    return found


def _in_colours(labels: np.ndarray, classes: int) -> str:
    colours = np.concatenate([class_colours(classes), [IGNORED_COLOUR]])
    return png_uri(np.where(labels == IGNORE, classes, labels).astype(np.uint8), colours)
