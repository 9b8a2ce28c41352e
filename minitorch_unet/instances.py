"""Objects from a map of probabilities: plain NumPy and SciPy, no engine. Symbol key: H rows, W columns, M objects.

An image of object ids (H, W) int32 holds 0 for background and 1..M for the objects; objects are 4-connected.
"""

import numpy as np

SPLITS = ("components", "distance", "probability")


def label_objects(
    probability: np.ndarray,
    threshold: float = 0.5,
    split: str = "components",
    depth: float | None = None,
    min_area: int = 0,
    fill_holes: bool = True,
    clear_border: bool = False,
    seam: int = 0,
    grow: int = 0,
) -> np.ndarray:
    """Object ids (H, W) int32 of a map (H, W) of probabilities of being inside an object.

    threshold     pixels with probability > threshold belong to objects
    split         "components": what hangs together is one object. "distance" parts objects at their waists, by a
                  watershed of the distance to the background; "probability" at their least certain pixels
    depth         for the two watersheds: a part stays on its own if its summit is this far above the pass to a
                  higher one. Pixels for "distance" (default 1), probability for "probability" (default 0.1)
    min_area      objects of fewer pixels are dropped
    fill_holes    background enclosed by a single object is added to it
    clear_border  objects that touch the image's border are dropped
    seam          background between two objects is divided between them where it is at most so many pixels wide;
                  2 takes back what training takes from touching objects
    grow          at last objects grow by so many pixels, as far as there is background

    The steps are taken in the order: threshold, components, holes, split, area, border, seam, growth. Raises
    TypeError and ValueError for illegal arguments.
    """
    probability = np.asarray(probability)
    if probability.ndim != 2 or probability.dtype.kind != "f":
        raise TypeError(
            f"label_objects: probability is {probability.dtype} {probability.shape}, legal are floats (H, W)"
        )
    if split not in SPLITS:
        raise ValueError(f"label_objects: split is {split!r}, legal are {', '.join(SPLITS)}")
    if depth is None:
        depth = 1.0 if split == "distance" else 0.1
    if not 0 <= threshold < 1:
        raise ValueError(f"label_objects: threshold is {threshold}, legal are 0 to below 1: it is a probability")
    if not depth > 0:
        raise ValueError(f"label_objects: depth is {depth}, it must be positive")
    for name, value in (("min_area", min_area), ("seam", seam), ("grow", grow)):
        if value < 0:
            raise ValueError(f"label_objects: {name} is {value}, it must not be negative")
    from scipy import ndimage

    ids = ndimage.label(probability > threshold)[0].astype(np.int32)
    if fill_holes:
        ids = _fill_holes(ids)
    if split == "distance":
        # Outside the image is no background: an object that the border cuts is not thought to end there.
        height = ndimage.distance_transform_edt(ids > 0) if not (ids > 0).all() else np.zeros(ids.shape)
        ids = _watershed(height, ids > 0, depth)
    elif split == "probability":
        ids = _watershed(probability, ids > 0, depth)
    areas = np.bincount(ids.ravel())
    dropped = areas < min_area
    if clear_border:
        dropped[np.concatenate([ids[0], ids[-1], ids[:, 0], ids[:, -1]])] = True
    ids[dropped[ids]] = 0
    ids = _close_seams(ids, seam)
    if grow and ids.any():
        distance, (rows, columns) = ndimage.distance_transform_edt(ids == 0, return_indices=True)
        ids = np.where(distance <= grow, ids[rows, columns], 0)
    return renumber(ids)


def renumber(ids: np.ndarray) -> np.ndarray:
    """The same objects (H, W) int32 under the numbers 1..M, in ascending order of their ids."""
    present = np.unique(np.append(ids, 0), return_inverse=True)[1][:-1]
    return present.reshape(ids.shape).astype(np.int32)


def check_mask_ids(ids: np.ndarray) -> np.ndarray:
    """Object ids as uint16, the type of Cell Tracking Challenge masks; raises ValueError for more than 65,535."""
    highest = int(ids.max(initial=0))
    if highest > np.iinfo(np.uint16).max:
        raise ValueError(
            f"{highest:,} objects: a mask of 16 bits holds at most 65,535; a larger min_area drops small ones"
        )
    return ids.astype(np.uint16)


def _fill_holes(ids: np.ndarray) -> np.ndarray:
    """Give 8-connected pieces of background that touch one object only, and not the image's border, to that object."""
    from scipy import ndimage

    # The frame makes one piece of all background at the border.
    framed = np.pad(ids, 1)
    pieces, count = ndimage.label(framed == 0, np.ones((3, 3)))
    lowest, highest = np.full(count + 1, np.iinfo(np.int32).max), np.zeros(count + 1, np.int32)
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        beside = np.roll(framed, (down, right), (0, 1))
        touching = (pieces > 0) & (beside > 0)
        np.minimum.at(lowest, pieces[touching], beside[touching])
        np.maximum.at(highest, pieces[touching], beside[touching])
    owner = np.where(lowest == highest, highest, 0)
    owner[[0, pieces[0, 0]]] = 0
    return ids + owner[pieces[1:-1, 1:-1]]


def _watershed(height: np.ndarray, inside: np.ndarray, depth: float) -> np.ndarray:
    """Divide the pixels `inside` (H, W) into the basins of `height`, turned upside down; basins of little depth merge.

    Pixels are visited from the highest to the lowest. One with no visited neighbour is a new summit; any other joins
    its highest visited neighbour. Where it connects two parts, the one with the lower summit is merged into the
    other if that summit is less than `depth` above the pixel.
    """
    width = inside.shape[1] + 2
    framed = np.pad(inside, 1)
    ground = np.full(framed.shape, -np.inf)
    ground[1:-1, 1:-1] = height
    order = np.flatnonzero(framed)
    order = order[np.argsort(-ground.ravel()[order], kind="stable")]
    heights, part = ground.ravel().tolist(), [0] * framed.size
    merged_into, summits = [0], [0.0]

    def root(name: int) -> int:
        while merged_into[name] != name:
            merged_into[name] = name = merged_into[merged_into[name]]
        return name

    for p in order.tolist():
        here = heights[p]
        near = [q for q in (p - width, p - 1, p + 1, p + width) if part[q]]
        if not near:
            merged_into.append(len(summits))
            part[p] = len(summits)
            summits.append(here)
            continue
        part[p] = part[max(near, key=heights.__getitem__)]
        for q in near:
            lower, higher = sorted((root(part[p]), root(part[q])), key=summits.__getitem__)
            if lower != higher and summits[lower] - here < depth:
                merged_into[lower] = higher
    roots = np.array([root(name) for name in range(len(summits))], np.int32)
    return roots[np.array(part).reshape(framed.shape)[1:-1, 1:-1]]


def _close_seams(ids: np.ndarray, width: int) -> np.ndarray:
    """Give background between two objects to the nearer one where the way from one to the other is `width` pixels.

    Such a pixel has d1 + d2 <= width + 1, d1 and d2 being the distances to the nearest and second nearest object in
    steps to any of eight neighbours, as training's 3x3 windows see them. Among equally near objects the one at the
    smaller distance as the crow flies comes first.
    """
    if width == 0:
        return ids
    reach = range(-width, width + 1)
    steps = sorted((max(abs(i), abs(j)), i * i + j * j, i, j) for i in reach for j in reach if i or j)
    framed = np.pad(ids, width)
    nearest, first = np.zeros_like(ids), np.zeros(ids.shape)
    second = np.full(ids.shape, np.inf)
    height, across = ids.shape
    for distance, _, i, j in steps:
        there = framed[width + i : width + i + height, width + j : width + j + across]
        second[(there > 0) & (nearest > 0) & (there != nearest) & np.isinf(second)] = distance
        new = (there > 0) & (nearest == 0)
        nearest[new], first[new] = there[new], distance
    return np.where((ids == 0) & (first + second <= width + 1), nearest, ids)
