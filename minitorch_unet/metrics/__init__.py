"""Scores for segmentations: plain NumPy, no engine."""

from minitorch_unet.metrics.overlap import confusion_matrix, dice, iou, per_class_scores, pixel_accuracy

__all__ = ["confusion_matrix", "dice", "iou", "per_class_scores", "pixel_accuracy"]
