"""The U-Nets of the paper and of the tutorials after it, by name: their networks and how they are trained.

A preset is what its settings change of `TrainConfig`'s defaults, nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .backend import dry_run
from .config import TrainConfig, config_from
from .unet import UNet


@dataclasses.dataclass(frozen=True)
class Preset:
    """Where it is from, its settings, and the picture for which it is known: channels and size (two classes)."""

    source: str
    settings: Mapping[str, Any]
    channels: int
    size: int


# What the authors told of training; learning rate and number of steps are not published.
_PAPER = {"optimizer": "sgd", "momentum": 0.99, "elastic": 10.0, "dropout": 0.5}
_PADDED = {"padding": "same", "weights": "none", "optimizer": "adam"}

PRESETS = {
    "paper": Preset("Ronneberger, Fischer, Brox 2015, figure 1, section 3; dropout's share is chosen", _PAPER, 1, 572),
    "phseg_v5": Preset(
        "the authors' released Caffe network: a ReLU after each up-convolution, the last of which keeps its channels; "
        "concatenates (up, skip)",
        _PAPER | {"up_relu": True, "wide_last_up": True, "up_first": True}, 1, 572,
    ),
    "padded_512": Preset(
        "most tutorials: zero-padded convolutions, so that 512x512 pixels give 512x512 scores of two classes",
        _PADDED | {"tile": 512}, 1, 512,
    ),
    "padded_rgb_sigmoid": Preset(
        "tutorials on colour pictures: padded, ReLU after each up-convolution, one map of scores for a sigmoid",
        _PADDED | {"up_relu": True, "loss": "binary_cross_entropy", "tile": 128, "batch": 4}, 3, 128,
    ),
    "batchnorm_adamw": Preset(
        "PyTorch tutorials: padded, batch normalisation, AdamW, cross-entropy and Dice together",
        _PADDED | {
            "norm": "batch", "optimizer": "adamw", "weight_decay": 0.01, "loss": "cross_entropy+dice", "tile": 256,
            "batch": 4,
        }, 1, 256,
    ),
    "nearest_upsampling": Preset(
        "tutorials without transposed convolutions: padded, nearest-neighbour doubling, 2x2 convolution, ReLU; dropout",
        _PADDED | {"up": "nearest", "up_relu": True, "dropout": 0.5, "tile": 256}, 1, 256,
    ),
}  # fmt: skip


def find(name: str) -> Preset:
    """The preset of this name. Raises ValueError, listing what exists, for another."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; known are {', '.join(PRESETS)}")
    return PRESETS[name]


def config(name: str, **changed: Any) -> TrainConfig:
    """The preset's TrainConfig, with other settings `changed`. Raises ValueError for unknown names and values."""
    return config_from({**find(name).settings, **changed})


def build(name: str, **changed: Any) -> UNet:
    """The preset's network, initialised; `changed` are arguments of `UNet`, such as base=8 or num_classes=3."""
    return UNet(**(config(name).network(find(name).channels, 2) | changed))


def outline(name: str, **changed: Any) -> UNet:
    """The same with zeros for weights, which take no memory: to count parameters and to trace shapes."""
    with dry_run():
        return build(name, **changed)
