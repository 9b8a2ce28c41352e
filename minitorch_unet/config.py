"""The settings of a training run: one dataclass, which the command line and TOML files both fill."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import DataError

# The settings that are UNet's own arguments.
OF_NETWORK = ("base", "depth", "padding", "up", "norm", "dropout", "up_relu", "wide_last_up", "up_first")


def setting(
    default: Any, text: str, choices: tuple[str, ...] = (), least: float | None = None, bare: Any = None
) -> Any:
    """A field of TrainConfig: its default, its help text, what is legal, and what its option means without a value."""
    return dataclasses.field(default=default, metadata={"help": text, "choices": choices, "least": least, "bare": bare})


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes; a checkpoint keeps it. Checked when it is made (ValueError)."""

    base: int = setting(64, "channels of the first block; 64 is the paper's network, 16 trains on a laptop", least=1)
    depth: int = setting(4, "number of poolings", least=1)
    padding: str = setting("valid", "convolutions without or with a zero border", ("valid", "same"))
    up: str = setting("transpose", "2x2 up-convolution, or (padding same) nearest doubling", ("transpose", "nearest"))
    norm: str = setting("none", "normalisation after each convolution", ("none", "batch", "group", "instance"))
    dropout: float = setting(0.0, "dropout probability at the end of the contracting path", least=0)
    up_relu: bool = setting(False, "a ReLU after each up-convolution")
    wide_last_up: bool = setting(False, "the last up-convolution keeps its number of channels")
    up_first: bool = setting(False, "concatenate (upsampled, skip) rather than (skip, upsampled)")

    precision: str = setting(
        "float32", "arithmetic of the convolutions: float32, or on a GPU quicker with shorter factors",
        ("float32", "tf32", "bfloat16", "float16"),
    )  # fmt: skip

    epochs: int = setting(20, "passes over the training pixels", least=1)
    tile: int = setting(0, "size of the predicted square of a training tile, made legal; 0: up to 388", least=0)
    batch: int = setting(1, "tiles a step; the paper takes 1 large tile", least=1)
    optimizer: str = setting("sgd", "update rule", ("sgd", "adam", "adamw", "rmsprop"))
    lr: float = setting(0.0, "learning rate; 0: 0.002 for sgd, 0.001 otherwise", least=0)
    momentum: float = setting(0.99, "momentum of sgd", least=0)
    weight_decay: float = setting(0.0, "weight decay", least=0)
    schedule: str = setting("constant", "learning rate over the run", ("constant", "step", "cosine", "poly", "plateau"))
    warm_up: int = setting(0, "steps over which the learning rate rises from 0", least=0)
    clip: float = setting(0.0, "limit for the norm of all gradients together; 0: none", least=0)
    loss: str = setting(
        "cross_entropy", "what is minimised; binary_cross_entropy: the network gives one map of scores, for a sigmoid",
        ("cross_entropy", "dice", "cross_entropy+dice", "focal", "binary_cross_entropy"),
    )  # fmt: skip
    weights: str = setting(
        "border", "loss weights: equation 2; its gaps alone, without class shares; the authors' later formula; class "
        "shares alone; or 1", ("border", "gaps", "later", "balanced", "none"),
    )  # fmt: skip
    border_weight: float = setting(10.0, "w0 of equation 2: weight of the gap between touching objects", least=0)
    border_sigma: float = setting(5.0, "sigma of equation 2, pixels", least=0.1)
    flips: bool = setting(True, "augment by mirroring")
    rotations: bool = setting(True, "augment by quarter turns")
    elastic: float = setting(
        0.0, "augment by elastic deformation: standard deviation in pixels of the displacements of a coarse grid; "
        "0: none; without a number: 10, the paper's", least=0, bare=10.0,
    )  # fmt: skip
    elastic_grid: int = setting(3, "nodes a side of that grid over a tile; the paper: 3", least=2)
    shift: float = setting(0.0, "augment by shifts of up to this many pixels, beside a tile's random place", least=0)
    angle: float = setting(0.0, "augment by turns of up to this many degrees either way", least=0)
    zoom: float = setting(0.0, "augment by scale: 0.2 is from 1/1.2 to 1.2", least=0)
    grey: float = setting(0.1, "augment by contrast, brightness and gamma of this strength; 0: none", least=0)
    blur: float = setting(0.0, "augment by a blur of up to this standard deviation in pixels", least=0)
    noise: float = setting(0.0, "augment by noise of up to this standard deviation; images lie in 0..1", least=0)
    patience: int = setting(0, "stop after this many epochs without a better validation score; 0: never", least=0)
    save_every: int = setting(50, "steps between checkpoints, beside one at each epoch's end", least=1)
    seed: int = setting(0, "start of all random numbers", least=0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not kind:
                raise ValueError(f"{field.name} is {value!r}; it must be of type {kind.__name__}")
            choices, least = field.metadata["choices"], field.metadata["least"]
            if choices and value not in choices:
                raise ValueError(f"{field.name} is {value!r}; legal are {', '.join(choices)}")
            if least is not None and not least <= value < float("inf"):
                raise ValueError(f"{field.name} is {value}; it must be a finite number of at least {least}")
        if self.up == "nearest" and self.padding == "valid":
            raise ValueError("up is 'nearest', which needs padding 'same': its convolution pads with zeros")
        if self.dropout >= 1:
            raise ValueError(f"dropout is {self.dropout}; it must be below 1")

    @property
    def start_lr(self) -> float:
        """The learning rate with its default filled in."""
        return self.lr or (0.002 if self.optimizer == "sgd" else 0.001)

    def network(self, channels: int, classes: int) -> dict[str, Any]:
        """The arguments of UNet for this run. Raises ValueError where the loss cannot tell so many classes apart."""
        outputs = classes
        if self.loss == "binary_cross_entropy":
            if classes > 2:
                raise ValueError(
                    f"loss is 'binary_cross_entropy', which tells 2 classes apart; the labels have {classes}: take "
                    "cross_entropy"
                )
            outputs = 1
        return {"in_channels": channels, "num_classes": outputs} | {name: getattr(self, name) for name in OF_NETWORK}


def config_from(values: Mapping[str, Any]) -> TrainConfig:
    """A TrainConfig with these settings; raises ValueError for an unknown name, listing what exists."""
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return TrainConfig(**values)


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The settings in a TOML file; raises DataError for a file that cannot be read."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as TOML: {error}") from None
