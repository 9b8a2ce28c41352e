"""Images, labels, tiles, weights and augmentation: plain NumPy on the host, no engine."""

from minitorch_unet.data.augment import augment, change_greys
from minitorch_unet.data.check import check_dataset
from minitorch_unet.data.dataset import Dataset, Sample, normalise, open_dataset
from minitorch_unet.data.elastic import Warp, draw_warp
from minitorch_unet.data.images import read_image, read_stack, write_image
from minitorch_unet.data.splits import folds, select, split_dataset
from minitorch_unet.data.synthetic import SyntheticCells, touching_cells
from minitorch_unet.data.tiles import extract, predict_tiled, reflect_index, tile_origins
from minitorch_unet.data.weights import (
    IGNORE,
    border_distances,
    connected_components,
    later_weight_map,
    separate_touching,
    weight_map,
)

__all__ = [
    "IGNORE",
    "Dataset",
    "Sample",
    "SyntheticCells",
    "Warp",
    "augment",
    "border_distances",
    "change_greys",
    "check_dataset",
    "connected_components",
    "draw_warp",
    "extract",
    "folds",
    "later_weight_map",
    "normalise",
    "open_dataset",
    "predict_tiled",
    "read_image",
    "read_stack",
    "reflect_index",
    "select",
    "separate_touching",
    "split_dataset",
    "tile_origins",
    "touching_cells",
    "weight_map",
    "write_image",
]
