"""Loss weights and separation borders from instance ids. Symbol key: H rows, W columns."""

import math
from collections.abc import Sequence

import numpy as np

IGNORE = -100  # label value of a pixel that neither loss nor score looks at


def separate_touching(instances: np.ndarray) -> np.ndarray:
    """Class label (H, W) int64 of instance ids (H, W): 1 = inside one object, 0 = background and border.

    A pixel becomes border where its 3x3 neighbourhood holds two different non-zero ids, so that touching
    objects are parted by a line of background two pixels wide (paper, section 3).
    """
    from scipy import ndimage

    ids = _checked("separate_touching", instances)
    highest = ndimage.maximum_filter(ids, 3, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(ids == 0, np.iinfo(ids.dtype).max, ids), 3, mode="nearest")
    return ((ids > 0) & (highest == lowest)).astype(np.int64)


def connected_components(label: np.ndarray, foreground: int = 1) -> np.ndarray:
    """Instance ids (H, W) int32, from 1: 4-connected components of class `foreground` in `label` (H, W)."""
    from scipy import ndimage

    return ndimage.label(np.asarray(label) == foreground)[0].astype(np.int32)


def weight_map(
    instances: np.ndarray,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
    label: np.ndarray | None = None,
    background_only: bool = False,
) -> np.ndarray:
    """Loss weights (H, W) float32 that stress the gaps between neighbouring objects (paper, equation 2).

    w(x) = w_c(x) + w0 exp(-(d1(x) + d2(x))^2 / (2 sigma^2)), where d1 and d2 are the distances in pixels from
    x to the nearest and second nearest object (0 inside an object). With fewer than two objects the second
    term is 0.

    `instances` are ids (H, W), 0 = background. `class_weights` gives w_c per class, read at `label` (H, W),
    which defaults to `separate_touching(instances)`; without it w_c = 1. Pixels whose label is -100 get
    weight 0. With `background_only` the second term is left out where label > 0, as in the authors' later
    plugin. Raises `ValueError` for wrong shapes, ids, labels and a sigma that is not positive.
    """
    ids = _checked("weight_map", instances)
    if not sigma > 0:
        raise ValueError(f"weight_map: sigma is {sigma}, it must be positive")
    label = separate_touching(ids) if label is None else np.asarray(label)
    if label.shape != ids.shape:
        raise ValueError(f"weight_map: label has shape {label.shape}, instances have {ids.shape}")
    used = label != IGNORE
    weights = used.astype(np.float64)
    if class_weights is not None:
        per_class = np.asarray(class_weights, np.float64)
        if used.any() and not (label[used].min() >= 0 and label[used].max() < len(per_class)):
            raise ValueError(
                f"weight_map: label holds {label[used].min()}..{label[used].max()}, class_weights has "
                f"{len(per_class)} entries"
            )
        weights[used] = per_class[label[used]]
    stressed = used & (label == 0) if background_only else used
    nearest, second = border_distances(ids, 6 * sigma)
    weights[stressed] += w0 * np.exp(-((nearest + second)[stressed] ** 2) / (2 * sigma**2))
    return weights.astype(np.float32)


def later_weight_map(
    instances: np.ndarray, label: np.ndarray | None = None, rest: float = 0.1, gap: float = 50.0,
    gap_sigma: float = 6.0, near_sigma: float = 10.0,
) -> np.ndarray:  # fmt: skip
    """Loss weights (H, W) float32 by the formula of the authors' later plugin.

    1 in the foreground (label > 0); in the background
    w(x) = rest + gap exp(-(d1 + d2)^2 / (2 gap_sigma^2)) + (1 - rest) exp(-d1^2 / (2 near_sigma^2)),
    with the distances of `border_distances`: high in the gaps between objects, near 1 beside an object, `rest` far from
    all of them; 0 where the label is -100. With fewer than two objects the second term is 0.

    `instances` are ids (H, W), 0 = background; `label` (H, W) defaults to `separate_touching(instances)`. The defaults
    are the plugin's. Raises `ValueError` for wrong shapes, ids and sigmas.
    """
    ids = _checked("later_weight_map", instances)
    for name, sigma in (("gap_sigma", gap_sigma), ("near_sigma", near_sigma)):
        if not sigma > 0:
            raise ValueError(f"later_weight_map: {name} is {sigma}, it must be positive")
    label = separate_touching(ids) if label is None else np.asarray(label)
    if label.shape != ids.shape:
        raise ValueError(f"later_weight_map: label has shape {label.shape}, instances have {ids.shape}")
    nearest, second = border_distances(ids, 6 * max(gap_sigma, near_sigma))
    background = (
        rest
        + gap * np.exp(-((nearest + second) ** 2) / (2 * gap_sigma**2))
        + (1 - rest) * np.exp(-(nearest**2) / (2 * near_sigma**2))
    )
    return np.where(label == IGNORE, 0.0, np.where(label > 0, 1.0, background)).astype(np.float32)


def border_distances(instances: np.ndarray, reach: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Distances d1, d2 (H, W) float64 in pixels to the nearest and second nearest object of ids (H, W).

    0 inside an object; infinite where there is no such object within `reach` pixels of the object's bounding box. With
    a reach of 6 sigma, beyond which a Gaussian is 1.5e-8, less than float32 keeps beside 1, a window around each object
    is looked at instead of the whole image.
    """
    from scipy import ndimage

    ids = _checked("border_distances", instances)
    nearest, second = np.full(ids.shape, np.inf), np.full(ids.shape, np.inf)
    margin = math.ceil(min(reach, max(ids.shape)))
    # Compact numbers 1.. first: find_objects lists every number up to the highest.
    found, compact = np.unique(np.append(ids, 0), return_inverse=True)
    ids = compact[:-1].reshape(ids.shape)
    for number, box in enumerate(ndimage.find_objects(ids, max_label=len(found) - 1), start=1):
        window = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)
        distance = ndimage.distance_transform_edt(ids[window] != number)
        second[window] = np.minimum(second[window], np.maximum(nearest[window], distance))
        nearest[window] = np.minimum(nearest[window], distance)
    return nearest, second


def _checked(function: str, instances: np.ndarray) -> np.ndarray:
    """Instance ids as an int32 (H, W) array."""
    ids = np.asarray(instances)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(f"{function}: instances is {ids.dtype} {ids.shape}, legal are integers (H, W)")
    if ids.size and not (ids.min() >= 0 and ids.max() < np.iinfo(np.int32).max):
        raise ValueError(
            f"{function}: instances holds ids {ids.min()}..{ids.max()}, legal are 0 to 2147483646"
        )
    return ids.astype(np.int32, copy=False)
