"""Augmentation: one draw moves an image and all its maps alike, then the image's grey values change.

Symbol key: C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minitorch_unet.data.elastic import PAPER_GRID, draw_warp, ndimage_of


def augment(
    rng: np.random.Generator, image: Any, *maps: Any, flips: bool = True, rotations: bool = True, grey: float = 0.1,
    elastic: float = 0.0, grid: int = PAPER_GRID, shift: float = 0.0, angle: float = 0.0, zoom: float = 0.0,
    blur: float = 0.0, noise: float = 0.0, xp: Any = np,
) -> tuple[Any, ...]:  # fmt: skip
    """Draw one random change, apply it to an image (C, H, W) and to every map (H, W) of it, return them all.

    What moves the image and all maps alike (label, instance ids, weights; a map that is None stays None):

    elastic, grid, shift, angle, zoom   one field, see `draw_warp`: the image bilinearly, maps at the nearest pixel,
                                        mirrored at the borders; `elastic=10` is the paper's
    flips, rotations                    mirroring along rows and columns; turns by 0, 90, 180 or 270 degrees

    What changes the image only: grey, blur, noise, see `change_greys`. With everything off the result equals the input.
    The inputs are not changed; types are kept. `xp` is the module of the arrays, numpy or cupy; all numbers are drawn
    from `rng` on the host, so that both draw the same. Raises `ValueError` where a map's size differs from the image's,
    and for a negative strength.
    """
    if image.ndim != 3:
        raise ValueError(f"augment: image has shape {image.shape}, legal is (C, H, W)")
    for position, plane in enumerate(maps):
        if plane is not None and plane.shape != image.shape[1:]:
            raise ValueError(f"augment: map {position} has shape {plane.shape}, the image has {image.shape[1:]}")
    flip_rows, flip_columns = rng.integers(2, size=2) if flips else (0, 0)
    turns = int(rng.integers(4)) if rotations else 0
    warp = draw_warp(rng, image.shape[1:], elastic, grid, shift, angle, zoom)
    if warp is not None:
        image = warp.image(image, xp=xp)
        maps = tuple(warp.maps(*maps, xp=xp)[0]) if any(plane is not None for plane in maps) else maps

    def moved(array: Any) -> Any:
        array = array[..., ::-1, :] if flip_rows else array
        array = array[..., ::-1] if flip_columns else array
        return xp.ascontiguousarray(xp.rot90(array, turns, axes=(-2, -1)))

    picture = change_greys(rng, moved(image), grey, blur, noise, xp)
    return (picture, *(None if plane is None else moved(plane) for plane in maps))


def change_greys(
    rng: np.random.Generator, image: Any, grey: float = 0.1, blur: float = 0.0, noise: float = 0.0, xp: Any = np
) -> Any:
    """Draw a change of grey values of an image (C, H, W), which should lie near 0..1; the image itself at strength 0.

    blur   Gaussian of a standard deviation between 0 and `blur` pixels, mirrored at the borders
    grey   contrast, brightness, gamma: x -> gain sign(x) |x|^gamma + offset, gain from 1 -+ `grey`, offset from
           -+ `grey`, ln gamma from -+ `grey`
    noise  white Gaussian noise of a standard deviation between 0 and `noise`, after the other two

    All are drawn uniformly, once for all channels (noise: pixel by pixel). Raises `ValueError` for a strength that is
    negative or not finite.
    """
    for name, value in (("grey", grey), ("blur", blur), ("noise", noise)):
        if not 0 <= value < math.inf:
            raise ValueError(f"augment: {name} is {value}, it must be a finite number of at least 0")
    gain, offset, log_gamma = map(float, rng.uniform(-grey, grey, size=3)) if grey else (0.0, 0.0, 0.0)
    picture = image
    if blur:
        sigma = rng.uniform(0, blur)
        filtered = ndimage_of(xp).gaussian_filter
        picture = filtered(picture, (0, sigma, sigma), mode="mirror", truncate=3.0)
    if grey:
        picture = (1 + gain) * xp.copysign(xp.abs(picture) ** math.exp(log_gamma), picture) + offset
    if noise:
        deviation = float(rng.uniform(0, noise))
        picture = picture + xp.asarray(deviation * rng.standard_normal(image.shape, dtype=np.float32))
    return picture.astype(image.dtype, copy=False)
