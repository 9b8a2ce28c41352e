"""The check of every pair before training, and what is said about a data set.

Symbol key: C channels, H rows, W columns.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from minitorch_unet.data.dataset import Dataset
from minitorch_unet.data.suspicion import Finding, examine, look_alike, look_inverted
from minitorch_unet.errors import DataError

_SHOWN = 4  # names listed in a warning
_MUCH_IGNORED = 0.2  # share of all pixels


class Suspicion(NamedTuple):
    """What looks wrong in a data set: its kind, the same for every data set, and a line with the particulars."""

    kind: str
    text: str


def check_dataset(dataset: Dataset, minimum_size: int | tuple[int, int] | None = None) -> list[str]:
    """Read every pair; return lines on pairs, sizes, channels, label polarity, class shares, and warnings.

    Raises `DataError` naming the file for the first pair that cannot be read, whose label has another size
    than its image or an illegal value, whose channels differ from the others', or that is smaller than
    `minimum_size` (pixels; rows, columns). Lines that begin with "warning:" do not stop a training but should
    be looked at.
    """
    return describe(dataset, examine_all(dataset, minimum_size))


def examine_all(
    dataset: Dataset, minimum_size: int | tuple[int, int] | None = None, errors: list[str] | None = None
) -> list[Finding]:
    """What `examine` finds in every pair. With a list `errors`, its lines are added there instead of raising the first.

    Raises as `check_dataset`.
    """
    if not len(dataset):
        raise DataError(f"{dataset.source}: holds no pairs")
    least = (minimum_size,) * 2 if isinstance(minimum_size, int) else minimum_size or (1, 1)
    findings = []
    for index, entry in enumerate(dataset.entries):
        try:
            image, label, instances = dataset.raw(index)
            height, width = label.shape
            if height < least[0] or width < least[1]:
                raise DataError(
                    f"{entry.image_file}: is {height}x{width}, at least {least[0]}x{least[1]} is needed"
                )
        except DataError as error:
            if errors is None:
                raise
            errors.append(str(error))
        else:
            findings.append(examine(entry, image, label, instances, dataset.classes))
    return findings


def describe(dataset: Dataset, findings: Sequence[Finding]) -> list[str]:
    """Lines on a data set and its findings, the warnings last."""
    pixels = np.sum([finding.counts for finding in findings], axis=0) if findings else np.zeros(dataset.classes)
    total, ignored = max(int(pixels.sum()), 1), sum(finding.ignored for finding in findings)
    shares = ", ".join(f"class {number}: {100 * count / total:.1f} %" for number, count in enumerate(pixels))
    ignored_share = f"; ignored: {100 * ignored / (total + ignored):.1f} % of all pixels" if ignored else ""
    sizes = Counter(finding.size for finding in findings)
    listed = ", ".join(f"{count} of {height}x{width}" for (height, width), count in sorted(sizes.items())[:8])
    more = f", and {len(sizes) - 8} other sizes" if len(sizes) > 8 else ""
    lines = [*dataset.describe(), f"sizes: {listed}{more}", f"shares: {shares}{ignored_share}"]
    objects = [finding.objects for finding in findings if finding.objects is not None]
    if objects:
        lines.append(f"objects: {sum(objects)}, from {min(objects)} to {max(objects)} in an image")
    lines += _resemblance(findings)
    return lines + [f"warning: {found.text}" for found in suspicions(dataset, findings)]


def _resemblance(findings: Sequence[Finding]) -> list[str]:
    """A line where neighbours in order look more alike than others do, as slices of a stack or frames of a film."""
    if len(findings) < 6:
        return []
    thumbnails = np.stack([finding.thumbnail for finding in findings])
    alike = thumbnails @ thumbnails.T
    near = float(np.diag(alike, 1).mean())
    far = float(alike[np.triu_indices(len(findings), 2)].mean())
    if near - far < 0.15:
        return []
    return [f"order: neighbours look alike (correlation {near:.2f}, others {far:.2f}): split in order, not at random"]


def suspicions(dataset: Dataset, findings: Sequence[Finding]) -> list[Suspicion]:
    """What looks wrong in a data set of which these are the findings; remarks of one kind are one line."""
    if not findings:  # no pair could be read: that is said elsewhere, and nothing is known of the rest
        return []
    pixels = np.sum([finding.counts for finding in findings], axis=0)
    found = [Suspicion("absent class", f"class {number} does not occur") for number in np.flatnonzero(pixels == 0)]
    by_kind: dict[str, list[str]] = {}
    for finding in findings:
        for kind, detail in finding.remarks:
            by_kind.setdefault(kind, []).append(finding.image_file + (f" ({detail})" if detail else ""))
    found += [Suspicion(kind, f"{kind}: {_some(files)}") for kind, files in by_kind.items()]
    if inverted := look_inverted(findings):
        files = _some([f.label_file for f in inverted])
        found.append(Suspicion("inverted label", f"looks inverted beside the other labels: {files}"))
    equal, almost = look_alike(findings)
    if equal:
        listed = _some([f"{a} = {b}" for a, b in equal])
        found.append(Suspicion("same image", f"the same image twice: {listed}"))
    if almost:
        listed = _some([f"{a} ~ {b}" for a, b in almost])
        text = f"almost the same image ({len(almost)} pairs; they must not be parted by a split): {listed}"
        found.append(Suspicion("similar images", text))
    if all(finding.grey for finding in findings):
        text = "all images are grey although stored in three channels; one is enough (channels=1)"
        found.append(Suspicion("grey in colour", text))
    ignored = sum(finding.ignored for finding in findings)
    total = max(int(pixels.sum()), 1) + ignored
    if dataset.rule.kind == "indices" and ignored > _MUCH_IGNORED * total:
        text = (
            f"{100 * ignored / total:.0f} % of all pixels are ignored; if 255 is a class, choose it (foreground=255) "
            "or name the classes by a table of colours"
        )
        found.append(Suspicion("ignored index", text))
    return found


def duplicates(parts: Mapping[str, Sequence[Finding]]) -> Iterator[tuple[bool, str, str, str]]:
    """(equal, one part, another, names) wherever images occur in two parts, equal pixel by pixel or almost."""
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            for equal, pairs in zip((True, False), look_alike(parts[one], parts[other]), strict=True):
                if pairs:
                    yield equal, one, other, _some([f"{a} and {b}" for a, b in pairs])


def warn_of_duplicates(parts: Mapping[str, Sequence[Finding]]) -> list[str]:
    """Warnings about images that occur in two parts (training and validation, say), equal or almost."""
    return [
        f"warning: {'the same' if equal else 'almost the same'} image in {one} and {other}: {listed}"
        for equal, one, other, listed in duplicates(parts)
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
