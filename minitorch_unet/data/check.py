"""The check of every pair before training. Symbol key: C channels, H rows, W columns."""

from collections import Counter

import numpy as np

from minitorch_unet.data.dataset import Dataset, to_channels
from minitorch_unet.data.weights import IGNORE
from minitorch_unet.errors import DataError


def check_dataset(dataset: Dataset, minimum_size: int | tuple[int, int] | None = None) -> list[str]:
    """Read every pair; return lines on pairs, sizes, channels, label polarity, class shares, and warnings.

    Raises `DataError` naming the file for the first pair that cannot be read, whose label has another size
    than its image or an illegal value, whose channels differ from the others', or that is smaller than
    `minimum_size` (pixels; rows, columns). Lines that begin with "warning:" do not stop a training but should
    be looked at.
    """
    if not len(dataset):
        raise DataError(f"{dataset.source}: holds no pairs")
    least = (minimum_size,) * 2 if isinstance(minimum_size, int) else minimum_size or (1, 1)
    sizes: Counter[tuple[int, int]] = Counter()
    pixels = np.zeros(dataset.classes, np.int64)
    ignored = 0
    warnings = []
    for entry in dataset.entries:
        image = to_channels(entry.image(), dataset.channels, entry.image_file)
        label, _ = dataset.rule.apply(entry.label(), entry.label_file)
        height, width = image.shape[1:]
        if label.shape != (height, width):
            raise DataError(
                f"{entry.label_file}: the label is {label.shape[0]}x{label.shape[1]}, "
                f"the image {height}x{width}"
            )
        if height < least[0] or width < least[1]:
            raise DataError(
                f"{entry.image_file}: is {height}x{width}, at least {least[0]}x{least[1]} is needed"
            )
        if (image == image[:, :1, :1]).all():
            warnings.append(f"warning: {entry.image_file} is constant")
        counts = np.bincount(label[label != IGNORE], minlength=dataset.classes)
        sizes[height, width] += 1
        pixels += counts
        ignored += label.size - int(counts.sum())
    total = max(int(pixels.sum()), 1)
    shares = ", ".join(f"class {number}: {100 * count / total:.1f} %" for number, count in enumerate(pixels))
    ignored_share = f"; ignored: {100 * ignored / (total + ignored):.1f} % of all pixels" if ignored else ""
    listed = ", ".join(f"{count} of {height}x{width}" for (height, width), count in sorted(sizes.items())[:8])
    warnings += [f"warning: class {number} does not occur" for number in np.flatnonzero(pixels == 0)]
    more = f", and {len(sizes) - 8} other sizes" if len(sizes) > 8 else ""
    return [*dataset.describe(), f"sizes: {listed}{more}", f"shares: {shares}{ignored_share}", *warnings]
