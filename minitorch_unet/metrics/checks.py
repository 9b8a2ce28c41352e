"""What the scores accept, checked in one place. Symbol key: D slices, H rows, W columns."""

from collections.abc import Iterator

import numpy as np

IGNORE = -100  # label value of a pixel that no score looks at


def slices(
    function: str, probability: np.ndarray, truth: np.ndarray, ignore_index: int = IGNORE
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of a map and its truth, slice by slice: (map float64 (H, W), truth bool (H, W), judged bool (H, W)).

    Both arrays are one slice (H, W) or a stack (D, H, W). The map is rounded to float32, as the challenge's program
    holds it. `truth` is boolean or integer, foreground above 0; ignored pixels are background in both. Raises
    TypeError and ValueError, naming `function`.
    """
    probability, truth = np.asarray(probability), np.asarray(truth)
    if probability.shape != truth.shape or probability.ndim not in (2, 3):
        raise ValueError(
            f"{function}: probability has shape {probability.shape}, truth {truth.shape}; legal are equal shapes "
            "(H, W) or (D, H, W)"
        )
    if truth.dtype.kind not in "biu":
        raise TypeError(f"{function}: truth has dtype {truth.dtype}, legal are booleans and integers")
    check_probability(function, probability)
    planes = (1, *truth.shape)[-3:]
    for plane, label in zip(probability.reshape(planes), truth.reshape(planes), strict=True):
        judged = label != ignore_index if label.dtype != bool else np.ones(label.shape, bool)
        yield np.where(judged, plane.astype(np.float32).astype(np.float64), 0.0), judged & (label > 0), judged


def check_probability(function: str, probability: np.ndarray) -> None:
    """Raise unless every value is a probability; uint8 pictures must be divided by 255 first."""
    if probability.dtype.kind not in "fb":
        raise TypeError(f"{function}: probability has dtype {probability.dtype}, legal are floats from 0 to 1")
    if probability.size and not (probability.min() >= 0 and probability.max() <= 1):  # a NaN is caught here too
        raise ValueError(
            f"{function}: probability holds {probability.min()}..{probability.max()}, legal are values from 0 to 1"
        )


def check_ids(function: str, **labels: np.ndarray) -> list[np.ndarray]:
    """Images of object ids (H, W) int64, 0 = background, of equal shapes; raises TypeError and ValueError."""
    arrays = [np.asarray(label) for label in labels.values()]
    shapes = ", ".join(f"{name} has shape {array.shape}" for name, array in zip(labels, arrays, strict=True))
    if any(array.shape != arrays[0].shape for array in arrays) or arrays[0].ndim != 2:
        raise ValueError(f"{function}: {shapes}; legal are equal shapes (H, W)")
    for name, array in zip(labels, arrays, strict=True):
        if array.dtype.kind not in "biu":
            raise TypeError(f"{function}: {name} has dtype {array.dtype}, legal are integer object ids")
        if array.size and array.min() < 0:
            raise ValueError(f"{function}: {name} holds the id {array.min()}, legal are 0 (background) and above")
    return [array.astype(np.int64) for array in arrays]
