"""Scores for segmentations: plain NumPy and SciPy, no engine. The page docs/scores.md explains each with an example."""

from minitorch_unet.metrics.curves import pr_auc, roc_auc, threshold_scores
from minitorch_unet.metrics.membranes import (
    MembraneScores,
    pixel_error,
    rand_error,
    v_info,
    v_rand,
    warping_error,
)
from minitorch_unet.metrics.objects import (
    ObjectCounts,
    count_objects,
    mean_average_precision,
    seg,
    seg_scores,
)
from minitorch_unet.metrics.overlap import confusion_matrix, dice, iou, per_class_scores, pixel_accuracy
from minitorch_unet.metrics.partitions import information_scores, rand_scores
from minitorch_unet.metrics.surface import average_surface_distance, hausdorff_95, surface_distances
from minitorch_unet.metrics.thinning import thin_borders
from minitorch_unet.metrics.warping import warp

__all__ = [
    "MembraneScores",
    "ObjectCounts",
    "average_surface_distance",
    "confusion_matrix",
    "count_objects",
    "dice",
    "hausdorff_95",
    "information_scores",
    "iou",
    "mean_average_precision",
    "per_class_scores",
    "pixel_accuracy",
    "pixel_error",
    "pr_auc",
    "rand_error",
    "rand_scores",
    "roc_auc",
    "seg",
    "seg_scores",
    "surface_distances",
    "thin_borders",
    "threshold_scores",
    "v_info",
    "v_rand",
    "warp",
    "warping_error",
]
