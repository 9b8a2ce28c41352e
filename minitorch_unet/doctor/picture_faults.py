"""Faults that files of predictions show, whoever made them: functions Evidence -> diagnoses.

An activation that is applied twice squeezes everything into a narrow range: a sigmoid of probabilities lies in 0.5..
0.731, a softmax of the probabilities of K classes in 1/(e + K - 1) .. e/(e + K - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .evidence import Evidence
from .pictures import Picture
from .record import ERROR, WARNING, Diagnosis

_ROUNDING = 0.006  # of 256 greys, and of sums
_REACHED = 0.05  # share of the narrow range that may be missing at either end
_SHOWN = 3


def not_finite_pictures(evidence: Evidence) -> list[Diagnosis]:
    """NaN or infinity in files."""
    bad = [picture for picture in evidence.pictures if picture.not_finite]
    seen = ", ".join(f"{p.file} ({p.not_finite} of {p.size} values)" for p in bad[:_SHOWN])
    what, advice = "predictions that are not finite", "look for the first NaN in training: minitorch-unet doctor RUN"
    return [Diagnosis(ERROR, "not-finite", what, seen, advice)] if bad else []


def raw_scores(evidence: Evidence) -> list[Diagnosis]:
    """Values outside 0..1: scores before the softmax or sigmoid."""
    maps = _maps(evidence)
    bad = [p for p in maps if p.exact and (p.low < -_ROUNDING or p.high > 1 + _ROUNDING)]
    if not bad:
        return []
    seen = f"{min(p.low for p in bad):.3g} to {max(p.high for p in bad):.3g} in {_files(bad)}"
    advice = "apply softmax (or sigmoid) once, then threshold at 0.5; of raw scores in one channel the threshold is 0"
    return [Diagnosis(ERROR, "raw-scores", "the files hold scores, not probabilities", seen, advice)]


def activation_twice(evidence: Evidence) -> list[Diagnosis]:
    """Probabilities that went through sigmoid or softmax once more."""
    maps = _maps(evidence)
    if not maps or raw_scores(evidence):
        return []
    low, high = min(p.low for p in maps), max(p.high for p in maps)
    k = max(p.classes for p in maps)
    ranges = {"sigmoid": (0.5, 1 / (1 + math.exp(-1))), "softmax": (1 / (math.e + k - 1), math.e / (math.e + k - 1))}
    for name, (bottom, top) in ranges.items():
        slack = _REACHED * (top - bottom) + _ROUNDING
        if bottom - _ROUNDING <= low <= bottom + slack and top - slack <= high <= top + _ROUNDING:
            return [
                Diagnosis(
                    ERROR, "activation-twice", f"{name} was applied twice",
                    f"all values lie in {low:.3f}..{high:.3f}; {name} of probabilities gives {bottom:.3f}..{top:.3f} "
                    f"({_files(maps)})",
                    "apply it once: cross-entropy losses take raw scores and apply it themselves, so the network must "
                    "end without it",
                )
            ]  # fmt: skip
    return []


def flat_pictures(evidence: Evidence) -> list[Diagnosis]:
    """Files in which nothing can be told apart: black, white, grey."""
    maps, masks = _maps(evidence), [p for p in evidence.pictures if p.mask]
    if raw_scores(evidence) or activation_twice(evidence):
        return []
    # The range in which nearly all values of all files lie; a mask has two values, so its extremes count.
    if maps:
        low, high = min(p.quantiles[1] for p in maps), max(p.quantiles[3] for p in maps)
        seen = f"values from {low:.3f} to {high:.3f} (1 % to 99 %) in {_files(maps)}"
        if high - low < 0.1 and 0.1 < (low + high) / 2 < 0.9:
            return [_flat("grey", seen, "train longer, look at the loss curve: minitorch-unet doctor RUN")]
        top = max(p.high for p in maps)
        if top < 0.5:
            advice = f"nothing passes the threshold of 0.5; try {top / 2:.2g}, then --weights balanced in training"
            return [_flat("black", f"the greatest value is {top:.3f} in {_files(maps)}", advice)]
        if min(p.low for p in maps) > 0.5:
            return [_flat("white", seen, "all pass the threshold of 0.5; look at the labels' polarity")]
    elif masks and max(p.high for p in masks) == 0:
        advice = "look whether any probability passes the threshold; minitorch-unet doctor RUN tells more"
        return [_flat("black", f"nothing but 0 in {_files(masks)}", advice)]
    elif masks and all(p.low == p.high for p in masks):
        return [_flat("white", f"one value only in {_files(masks)}", "look at the labels' polarity")]
    return []


def dim_masks(evidence: Evidence) -> list[Diagnosis]:
    """Class numbers 0, 1, 2 ... saved as greys: right, and black to the eye."""
    dim = [p for p in evidence.pictures if p.mask and not p.exact and 0 < p.high < 16]
    if not dim:
        return []
    seen = f"greys of at most {max(p.high for p in dim):.0f} of 255 in {_files(dim)}"
    advice = "the masks are there: multiply by 255 to see them (minitorch-unet predict spreads the classes over 0..255)"
    return [Diagnosis(WARNING, "dim-masks", "the masks only look black: they hold class numbers", seen, advice)]


def _maps(evidence: Evidence) -> list[Picture]:
    return [picture for picture in evidence.pictures if not picture.mask]


def _flat(colour: str, seen: str, advice: str) -> Diagnosis:
    return Diagnosis(ERROR, f"{colour}-predictions", f"the predictions are all {colour}", seen, advice)


def _files(pictures: Sequence[Picture]) -> str:
    return pictures[0].file + (f" and {len(pictures) - 1} more" if len(pictures) > 1 else "")


DIAGNOSES = (not_finite_pictures, raw_scores, activation_twice, flat_pictures, dim_masks)
