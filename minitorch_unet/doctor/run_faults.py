"""Faults that a run's log, weights and predictions show: functions Evidence -> diagnoses.

Losses of single steps jump from tile to tile, so medians of fifths of the run are compared.
"""

from __future__ import annotations

import numpy as np

from ..metrics.overlap import dice as per_class_dice
from .evidence import Evidence, RunRecord
from .record import ERROR, WARNING, Diagnosis

FEWEST_STEPS = 25  # fewer say nothing about a curve
_FEWEST_EPOCHS = 5


def not_finite(evidence: Evidence) -> list[Diagnosis]:
    """NaN or infinity: as the log says, or met when the network is tried."""
    run = evidence.run
    if run is None:
        return []
    advice = f"lower the learning rate (it was {_rate(run):g}) by a factor of 10, or add --warm-up 100 or --clip 1"
    if run.config.precision == "float16":
        advice += "; --precision bfloat16 has the range of float32"
    if run.failure:
        last = f"; the losses before: {_listed(run.losses[-4:])}" if run.losses.size else ""
        what = "the run ended in a loss or weights that are not finite"
        return [Diagnosis(ERROR, "not-finite", what, run.failure.split("; ")[0] + last, advice)]
    if not np.isfinite(run.losses).all():
        step = int(np.flatnonzero(~np.isfinite(run.losses))[0]) + 1
        what = "the loss became NaN or infinite"
        return [Diagnosis(ERROR, "not-finite", what, f"first at step {step}: {run.losses[step - 1]}", advice)]
    if evidence.probe is not None and evidence.probe.failure:
        what = "the network does not give finite numbers on an image"
        return [Diagnosis(ERROR, "not-finite", what, evidence.probe.failure, advice)]
    return []


def rate_too_high(evidence: Evidence) -> list[Diagnosis]:
    """The loss leaps far above its first value and does not come back below it, or falls and then climbs again."""
    run = evidence.run
    if run is None or not _has_curve(run):
        return []
    first, highest, levels = run.losses[0], run.losses.max(), _levels(run.losses)
    lowest, end = levels.min(), levels[-1]
    leapt = highest > 5 * first and end > 0.8 * first
    climbed = end > 1.5 * lowest and end - lowest > 0.25 * max(first - lowest, 0.0) and end > 0.3 * first
    if not leapt and not climbed:
        return []
    evidence_text = (
        f"first loss {first:.3g}, highest {highest:.3g} at step {int(run.losses.argmax()) + 1}; medians of fifths: "
        f"{_listed(levels)}; learning rate {_rate(run):g}"
    )
    advice = f"lower it by a factor of 3 to 10 (--lr {_rate(run) / 5:.1g}), or add --warm-up 100 or --clip 1"
    return [Diagnosis(ERROR, "rate-too-high", "the learning rate is too high", evidence_text, advice)]


def rate_too_low(evidence: Evidence) -> list[Diagnosis]:
    """The weights are still where they began, and the loss with them."""
    run = evidence.run
    if run is None or not _has_curve(run) or not _stands_still(run, 0.1) or not _barely_moved(run):
        return []
    levels = _levels(run.losses)
    seen = (
        f"in {run.losses.size} steps the weights moved by {run.moved:.3%} of their length; loss, medians of fifths: "
        f"{_listed(levels)}; learning rate {_rate(run):g}"
    )
    advice = "raise it by a factor of 10 to 100: usual are 0.001 for adam, 0.002 for sgd with momentum 0.99"
    return [Diagnosis(ERROR, "rate-too-low", "the learning rate is too low", seen, advice)]


def no_learning(evidence: Evidence) -> list[Diagnosis]:
    """The weights move and the loss does not fall."""
    run = evidence.run
    if run is None or not _has_curve(run) or rate_too_high(evidence) or _barely_moved(run) or not_finite(evidence):
        return []
    if not _stands_still(run, 0.05):
        return []
    seen = (
        f"loss {run.losses[0]:.3g} at first; medians of fifths: {_listed(_levels(run.losses))}; the weights moved by "
        f"{run.moved:.1%} of their length"
    )
    advice = (
        "look whether each label belongs to its image (minitorch-unet evaluate RUN --data FOLDER --panel panel.png); "
        "if dead ReLUs are named here, mend these first"
    )
    return [Diagnosis(ERROR, "no-learning", "the network learns nothing from the images", seen, advice)]


def overfitting(evidence: Evidence) -> list[Diagnosis]:
    """Training loss falls on while validation loss has long been rising."""
    run = evidence.run
    if run is None or len(run.epochs) < _FEWEST_EPOCHS or not run.losses.size or not_finite(evidence):
        return []
    held_out = np.array([epoch["loss"] for epoch in run.epochs], np.float64)
    ends = [int(epoch["step"]) for epoch in run.epochs]
    trained = np.array([run.losses[a:b].mean() for a, b in zip([0, *ends], ends, strict=False) if a < b])
    if len(trained) != len(held_out) or not np.isfinite(held_out).all():
        return []
    best = int(held_out.argmin())
    after = len(held_out) - 1 - best
    tail = max(1, after // 2)  # the mean of the later epochs, as single ones jump
    if after < 3 or held_out[-tail:].mean() < 1.25 * held_out[best] or trained[-tail:].mean() > 0.8 * trained[best]:
        return []
    seen = (
        f"validation loss {held_out[best]:.3g} after epoch {best + 1}, {held_out[-1]:.3g} after epoch {len(held_out)}; "
        f"training loss {trained[best]:.3g}, then {trained[-1]:.3g}"
    )
    advice = (
        "more images, or --elastic --angle 180 --grey 0.2, --dropout 0.5, a smaller --base, --patience 10; "
        "best.safetensors is from the best epoch"
    )
    return [Diagnosis(WARNING, "overfitting", "the network learns its training images by heart", seen, advice)]


def flat_predictions(evidence: Evidence) -> list[Diagnosis]:
    """Black, white or grey: predictions that know one class only. From the images tried, and from the log."""
    run = evidence.run
    if run is None:
        return []
    looked = []  # (pixels of each class, whether any of it was predicted, what was seen)
    probe = evidence.probe
    if probe is not None and probe.tried:
        confusion = np.sum([tried.confusion for tried in probe.tried.values()], axis=0)
        outside = np.concatenate([tried.outside for tried in probe.tried.values()])
        if not np.isfinite(outside).all():
            return []  # `not_finite` says so
        low, middle, high = np.quantile(outside, (0.01, 0.5, 0.99))
        seen = f"probability of the foreground {low:.3f} to {high:.3f} (1 % to 99 %) in the images tried"
        if high - low < 0.1 and 0.1 < middle < 0.9:
            return [_flat("grey", f"{seen}: the same everywhere", "it has not learnt yet, or its deep layers are dead")]
        looked.append((confusion.sum(axis=1), confusion.sum(axis=0) > 0, seen))
    if run.epochs:  # the log does not tell what was predicted: a class with an IoU of 0 has no pixel right
        last = run.epochs[-1]
        seen = f"IoU of each class after the last epoch: {_listed(last['iou'])}"
        looked.append((np.array(last["pixels"]), np.array(last["iou"]) > 1e-3, seen))
    advice = "the causes named here come first; else train longer, with --weights balanced or --loss cross_entropy+dice"
    for pixels, predicted, seen in looked:
        if pixels[0] and pixels[1:].sum():
            seen += f"; the foreground is {pixels[1:].sum() / pixels.sum():.1%} of the pixels judged"
            if not predicted[1:].any():
                return [_flat("black", seen, advice)]
            if not predicted[0]:
                return [_flat("white", seen, advice)]
    return []


def dead_relus(evidence: Evidence) -> list[Diagnosis]:
    """Layers in which nearly all channels are 0 at every pixel of every image tried: no gradient passes them."""
    if evidence.probe is None or not_finite(evidence):
        return []
    mostly = {layer: n for layer, n in evidence.probe.dead.items() if n[0] > 0.8 * n[1]}
    if not mostly:
        return []
    silent = any(dead == channels for dead, channels in mostly.values())
    listed = "; ".join(f"{layer}: {dead} of {channels} channels" for layer, (dead, channels) in mostly.items())
    advice = "train afresh with a lower learning rate or --warm-up 100, or with --norm batch; dead units do not revive"
    what = "dead ReLUs: channels that are 0 everywhere"
    return [Diagnosis(ERROR if silent else WARNING, "dead-relus", what, listed, advice)]


def wrong_averages(evidence: Evidence) -> list[Diagnosis]:
    """Batch normalisation whose running averages fit no image, while each image's own statistics do."""
    run, probe = evidence.run, evidence.probe
    if run is None or probe is None or not len(probe.averaged_and_own) or not_finite(evidence):
        return []
    averaged, own = np.mean(probe.averaged_and_own, axis=0)
    if not averaged > max(1.5 * own, 0.05):
        return []
    seen = (
        f"cross-entropy of the last checkpoint, mean of {len(probe.averaged_and_own)} images: {averaged:.3f} with the "
        f"running averages, as predictions have it; {own:.3f} with each image's own statistics, as training with batch "
        f"{run.config.batch} has it"
    )
    advice = "train with --norm group, which has no averages; or with --batch 8 and --schedule cosine"
    what = "batch normalisation: the averages over all images fit few of them"
    return [Diagnosis(WARNING, "wrong-averages", what, seen, advice)]


def inverted_predictions(evidence: Evidence) -> list[Diagnosis]:
    """A part on which the network is right if one swaps its classes."""
    found = []
    for name, tried in (evidence.probe.tried if evidence.probe is not None else {}).items():
        if tried.confusion.shape != (2, 2):
            continue
        dice, swapped = (per_class_dice(matrix) for matrix in (tried.confusion, tried.confusion[::-1]))
        if dice.max() < 0.5 and swapped.min() > 0.6:  # both classes: all black is nearly right of most backgrounds
            found.append(
                Diagnosis(
                    ERROR, "inverted-labels", f"{name}: the labels have the other polarity than the network has learnt",
                    f"Dice of class 1 is {dice[1]:.3f}, and {swapped[1]:.3f} if the labels are inverted",
                    "open the data with --foreground and the other value, or invert the label files",
                )
            )  # fmt: skip
    return found


def _flat(colour: str, seen: str, advice: str) -> Diagnosis:
    what = f"the predictions are all {colour}"
    return Diagnosis(ERROR, f"{colour}-predictions", what, seen, advice)


def _has_curve(run: RunRecord) -> bool:
    return run.losses.size >= FEWEST_STEPS and bool(np.isfinite(run.losses).all()) and not run.failure


def _levels(losses: np.ndarray) -> np.ndarray:
    return np.array([np.median(part) for part in np.array_split(losses, 5)])


def _stands_still(run: RunRecord, least: float) -> bool:
    """Whether the loss fell by less than the share `least`, from a level that was no better than the first loss."""
    levels = _levels(run.losses)
    begin = max(float(run.losses[0]), float(levels[0]))
    return float(levels[-1]) > (1 - least) * begin


def _barely_moved(run: RunRecord) -> bool:
    return run.moved < 0.005


def _rate(run: RunRecord) -> float:
    return float(run.rates.max()) if run.rates.size else run.config.start_lr


def _listed(values: np.ndarray | list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


DIAGNOSES = (
    not_finite, rate_too_high, rate_too_low, dead_relus, wrong_averages, inverted_predictions, no_learning,
    overfitting, flat_predictions,
)  # fmt: skip
