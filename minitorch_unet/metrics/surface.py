"""Distances between the outlines of two regions. Symbol key: H rows, W columns, S(A) the outline of region A."""

import numpy as np


def outline(region: np.ndarray) -> np.ndarray:
    """The outline (H, W) bool of a region: its pixels with one of four neighbours outside it or outside the image."""
    from scipy import ndimage

    region = np.asarray(region, bool)
    return region & ~ndimage.binary_erosion(region)


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each pixel of S(prediction) to the nearest of S(truth), and the other way round.

    The regions (H, W) are booleans, `spacing` the size of a pixel (rows, columns), the unit of the result. Where one
    region is empty, the distances to it are infinite. Raises ValueError.
    """
    from scipy import ndimage

    regions = np.asarray(prediction, bool), np.asarray(truth, bool)
    if regions[0].shape != regions[1].shape or regions[0].ndim != 2:
        raise ValueError(
            f"surface_distances: prediction has shape {regions[0].shape}, truth {regions[1].shape}; legal are equal "
            "shapes (H, W)"
        )
    if not all(step > 0 for step in spacing):
        raise ValueError(f"surface_distances: spacing is {spacing}, both must be positive")
    outlines = [outline(region) for region in regions]
    fields = [
        ndimage.distance_transform_edt(~line, spacing) if line.any() else np.full(line.shape, np.inf)
        for line in outlines
    ]
    return fields[1][outlines[0]], fields[0][outlines[1]]


def average_surface_distance(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Mean of all distances of `surface_distances`, both directions together.

    0 where both regions are empty, infinite where one is.
    """
    return average_distance(*surface_distances(prediction, truth, spacing))


def hausdorff_95(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """The larger of the two directions' 95th percentiles (linear between neighbours); empty regions as above.

    The Hausdorff distance proper takes the maximum, which one stray pixel decides.
    """
    return percentile_distance(*surface_distances(prediction, truth, spacing))


def average_distance(there: np.ndarray, back: np.ndarray) -> float:
    """`average_surface_distance` of distances that are already known."""
    distances = np.concatenate([there, back])
    return float(distances.mean()) if distances.size else 0.0


def percentile_distance(there: np.ndarray, back: np.ndarray, percentile: float = 95.0) -> float:
    """`hausdorff_95` of distances that are already known."""
    if not there.size and not back.size:
        return 0.0
    if not there.size or not back.size:
        return np.inf
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))
