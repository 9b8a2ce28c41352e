"""Faults that images and labels show by themselves, before anything is trained: functions Evidence -> diagnoses."""

from __future__ import annotations

import numpy as np

from ..data.check import duplicates, suspicions
from ..errors import FieldOfViewError
from .evidence import Evidence, Part
from .record import ERROR, WARNING, Diagnosis

RARE = 0.02  # share of all pixels, below which a class drowns unless the loss is told
PLAIN_LOSSES = ("cross_entropy", "binary_cross_entropy")  # those in which a rare class is cheap to miss
MOSTLY = 0.85  # share of class 1, from which on one asks whether it is the background
_UNDECIDED = 0.1  # nearer to one half than this, a share says nothing about polarity
_SHOWN = 4

# For each kind of suspicion that `minitorch-unet data` warns of and that spoils a training: its severity, name, what it
# is and what to do.
SPOILING = {
    "absent class": (
        ERROR, "absent-class", "a class does not occur in any label: the network will never predict it",
        "look at the label values (minitorch-unet data); --foreground N says which value is class 1",
    ),
    "constant image": (
        ERROR, "constant-image", "images without any content", "look at how they were converted, or remove them",
    ),
    "all pixels of the label are ignored": (
        WARNING, "ignored-label", "labels in which every pixel is ignored", "255 means ignored among class indices; "
        "if it is a class, say --foreground 255 or name the classes by --colours",
    ),
    "almost empty label": (
        WARNING, "almost-empty-label", "labels with next to no foreground",
        "look whether they are finished; remove those that are not",
    ),
    "almost full label": (
        WARNING, "almost-full-label", "labels with next to no background",
        "look whether they are labels at all, or have the other polarity",
    ),
    "inverted label": (
        ERROR, "inverted-labels", "some labels have the other polarity than the rest",
        "invert these files (new = 255 - old), so that one value means one thing",
    ),
    "ignored index": (
        ERROR, "label-255", "255 beside small numbers is taken for 'ignored', and much of the labels is 255",
        "if 255 is the foreground, say --foreground 255; if it is a class of several, name them by --colours",
    ),
}  # fmt: skip


def field_of_view(evidence: Evidence) -> list[Diagnosis]:
    """Masks of a camera's field of view in the place of labels."""
    return [
        Diagnosis(
            ERROR, "field-of-view", f"{part.name}: the labels are masks of the field of view", str(part.fault),
            "put the true labels in their place (DRIVE: 1st_manual, not mask)",
        )
        for part in evidence.parts
        if isinstance(part.fault, FieldOfViewError)
    ]  # fmt: skip


def unclear_labels(evidence: Evidence) -> list[Diagnosis]:
    """Files of which no data set can be made at all."""
    return [
        Diagnosis(
            ERROR, "unreadable-data", f"{part.name}: cannot be used as a data set", str(part.fault),
            "mend or remove the file that is named, or say what the values mean (--labels, --foreground, --colours)",
        )
        for part in evidence.parts
        if part.fault is not None and not isinstance(part.fault, FieldOfViewError)
    ]  # fmt: skip


def unusable_pairs(evidence: Evidence) -> list[Diagnosis]:
    """Pairs that cannot be read or do not fit together."""
    return [
        Diagnosis(
            ERROR, "unusable-pairs", f"{part.name}: {len(part.errors)} pairs cannot be used",
            "; ".join(part.errors[:_SHOWN]) + _more(len(part.errors)), "mend or remove these files",
        )
        for part in evidence.parts
        if part.errors
    ]  # fmt: skip


def suspicious(evidence: Evidence) -> list[Diagnosis]:
    """What `minitorch-unet data` warns of, as far as it spoils a training; see SPOILING."""
    found = []
    for part in evidence.parts:
        every = [] if part.dataset is None else suspicions(part.dataset, part.findings)
        kinds = {each.kind for each in every}
        for each in every:
            absent = "absent class" in kinds and each.kind.startswith("almost ")  # then that is said already
            if each.kind in SPOILING and not absent:
                severity, name, what, advice = SPOILING[each.kind]
                found.append(Diagnosis(severity, name, what, f"{part.name}: {each.text}", advice))
    return found


def inverted_parts(evidence: Evidence) -> list[Diagnosis]:
    """Parts whose labels have the polarity of another part's background."""
    found: list[Diagnosis] = []
    shares = {part.name: np.median([f.share for f in part.findings]) for part in _binary(evidence)}
    (first, mine), *others = shares.items() or [("", 0.5)]
    for name, share in others:
        if min(abs(mine - 0.5), abs(share - 0.5)) > _UNDECIDED and abs(share - (1 - mine)) < abs(share - mine):
            found.append(
                Diagnosis(
                    ERROR, "inverted-labels", f"the labels of {name} have the other polarity than those of {first}",
                    f"class 1 covers {share:.0%} of an image in {name}, {mine:.0%} in {first} (median)",
                    "open one of them with --foreground and the other value, or invert its files",
                )
            )  # fmt: skip
    return found


def mostly_foreground(evidence: Evidence) -> list[Diagnosis]:
    """Binary labels whose class 1 is nearly everything, which nobody asked for."""
    found = []
    for part in _binary(evidence):
        assert part.dataset is not None
        share, low = _share(part), min(finding.share for finding in part.findings)
        values = part.dataset.rule.values
        if part.dataset.rule.kind == "binary" and len(values) == 2 and share > MOSTLY and low > 0.5:
            found.append(
                Diagnosis(
                    WARNING, "mostly-foreground", f"{part.name}: class 1 is nearly everything; is it the background?",
                    f"the value {part.dataset.rule.foreground} is class 1 and covers {share:.1%} of all pixels",
                    f"if the objects are the value {values[0]}, say --foreground {values[0]}",
                )
            )  # fmt: skip
    return found


def class_imbalance(evidence: Evidence) -> list[Diagnosis]:
    """A class so rare that a network does best by never predicting it, unless the loss is told."""
    run = evidence.run
    if run and (run.config.weights not in ("none", "gaps") or run.config.loss not in PLAIN_LOSSES):
        return []
    found = []
    for part in evidence.parts:
        counts = np.sum([finding.counts for finding in part.findings], axis=0) if part.findings else np.zeros(0)
        shares = counts / max(1, counts.sum())
        rare = [k for k, share in enumerate(shares) if 0 < share < RARE]
        if rare:
            listed = ", ".join(f"class {k}: {shares[k]:.2%}" for k in rare)
            had = f"; the run had weights {run.config.weights}, loss {run.config.loss}" if run else ""
            found.append(
                Diagnosis(
                    WARNING, "class-imbalance", f"{part.name}: a class is rare; it is cheap to miss it",
                    f"{listed} of all pixels{had}",
                    "train with --weights balanced or border (the default), or --loss cross_entropy+dice; judge by "
                    "Dice or IoU of the class, not by accuracy",
                )
            )  # fmt: skip
    return found


def illegal_sizes(evidence: Evidence) -> list[Diagnosis]:
    """Images whose size the network cannot take whole, in any part.

    This project's own commands cut tiles, so a size matters only to a loop that feeds whole images: where most images
    have legal sizes and no run of this project uses them, or where `whole` says so.
    """
    if evidence.run is not None and not evidence.whole:
        return []
    sizes = evidence.sizes
    by_part = {name: list(findings) for name, findings in evidence.sides.items()}
    everything = [f for findings in by_part.values() for f in findings]
    bad = {f.image_file: f for f in everything if not all(map(sizes.is_legal, f.size))}
    if not bad or (not evidence.whole and 2 * len(bad) >= len(everything)):
        return []
    told = []
    for name, findings in by_part.items():
        here = [f for f in findings if f.image_file in bad]
        listed = ", ".join(f"{f.name} ({f.size[0]}x{f.size[1]})" for f in here[:_SHOWN]) + _more(len(here))
        told.append(f"{len(here)} of {len(findings)} in {name}" + (f": {listed}" if here else ""))
    sides = sorted({side for f in bad.values() for side in f.size if not sizes.is_legal(side)})[:_SHOWN]
    near = "; ".join(f"{side}: {' or '.join(map(str, sizes.nearest_legal(side)))}" for side in sides)
    return [
        Diagnosis(
            WARNING, "illegal-sizes", f"images that a network of depth {sizes.depth} with {sizes.padding} convolutions "
            "cannot take whole", "; ".join(told), f"crop or mirror them to a legal size ({near}); minitorch-unet's own "
            "train and predict cut legal tiles from any size",
        )
    ]  # fmt: skip


def shared_images(evidence: Evidence) -> list[Diagnosis]:
    """Images on both sides of a split, equal or almost."""
    return [
        Diagnosis(
            ERROR if equal else WARNING, "shared-images" if equal else "similar-images",
            f"{'the same' if equal else 'almost the same'} images in {one} and {other}: the score says too much", names,
            "remove one of each" if equal else "split in order or by groups (--split), with --gap for neighbours",
        )
        for equal, one, other, names in duplicates(evidence.sides)
    ]  # fmt: skip


def repeated_images(evidence: Evidence) -> list[Diagnosis]:
    """Equal images on one side: they count twice."""
    found = []
    for name, findings in evidence.sides.items():
        first: dict[str, str] = {}
        twice = [
            f"{first[f.digest]} = {f.name}" for f in findings if first.setdefault(f.digest, f.name) != f.name
        ]
        constant = {f.digest for f in findings if any(kind == "constant image" for kind, _ in f.remarks)}
        if twice and not constant:
            found.append(
                Diagnosis(
                    WARNING, "repeated-images", f"{name}: the same image more than once",
                    ", ".join(twice[:_SHOWN]) + _more(len(twice)), "remove one of each, or the labels may disagree",
                )
            )  # fmt: skip
    return found


def _binary(evidence: Evidence) -> list[Part]:
    return [p for p in evidence.parts if p.dataset is not None and p.findings and p.dataset.classes == 2]


def _share(part: Part) -> float:
    counts = np.sum([finding.counts for finding in part.findings], axis=0)
    return float(counts[1:].sum() / max(1, counts.sum()))


def _more(count: int) -> str:
    return f" and {count - _SHOWN} more" if count > _SHOWN else ""


DIAGNOSES = (
    field_of_view, unclear_labels, unusable_pairs, suspicious, inverted_parts, mostly_foreground, class_imbalance,
    illegal_sizes, shared_images, repeated_images,
)  # fmt: skip
