"""Simple augmentation. Symbol key: C channels, H rows, W columns."""

from typing import Any

import numpy as np


def augment(
    rng: np.random.Generator,
    image: np.ndarray,
    *maps: np.ndarray | None,
    flips: bool = True,
    rotations: bool = True,
    grey: float = 0.1,
) -> tuple[Any, ...]:
    """Draw one random change, apply it to an image (C, H, W) and to every map (H, W) of it, return them all.

    Flips along rows and columns and rotations by 0, 90, 180 or 270 degrees move the image and all maps alike
    (label, instance ids, weights; a map that is None stays None). Grey values change in the image only, which
    should lie near 0..1: x -> gain sign(x) |x|^gamma + offset, gain from 1 -+ `grey`, offset from -+ `grey`,
    ln gamma from -+ `grey`. With everything off the result equals the input. The inputs are not changed;
    types are kept. Raises `ValueError` where a map's size differs from the image's, and for a negative
    `grey`.
    """
    if image.ndim != 3:
        raise ValueError(f"augment: image has shape {image.shape}, legal is (C, H, W)")
    if grey < 0:
        raise ValueError(f"augment: grey is {grey}, it must not be negative")
    for position, plane in enumerate(maps):
        if plane is not None and plane.shape != image.shape[1:]:
            raise ValueError(
                f"augment: map {position} has shape {plane.shape}, the image has {image.shape[1:]}"
            )
    flip_rows, flip_columns = rng.integers(2, size=2) if flips else (0, 0)
    turns = int(rng.integers(4)) if rotations else 0

    def moved(array: np.ndarray) -> np.ndarray:
        array = array[..., ::-1, :] if flip_rows else array
        array = array[..., ::-1] if flip_columns else array
        return np.ascontiguousarray(np.rot90(array, turns, axes=(-2, -1)))

    picture = moved(image)
    if grey:
        gain, offset, log_gamma = rng.uniform(-grey, grey, size=3)
        curved = np.sign(picture) * np.abs(picture) ** np.exp(log_gamma)
        picture = ((1 + gain) * curved + offset).astype(image.dtype)
    return (picture, *(None if plane is None else moved(plane) for plane in maps))
