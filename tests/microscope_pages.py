"""Small networks and pages of the microscope that its two test files share."""

import base64
import functools
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minitorch_unet import Tensor, UNet, no_grad
from minitorch_unet import functional as F
from minitorch_unet.checkpoint import save_checkpoint
from minitorch_unet.data import IGNORE, write_image
from minitorch_unet.microscope.record import Recording, record

VARIANTS: dict[str, dict[str, Any]] = {
    "depth 1": {"depth": 1},
    "paper": {"depth": 2},
    "depth 3": {"depth": 3, "num_classes": 5},
    "released": {"depth": 2, "up_relu": True, "wide_last_up": True, "up_first": True, "dropout": 0.5},
    "recompute": {"depth": 2, "recompute": True},
    "same, colour": {"depth": 2, "padding": "same", "in_channels": 3},
    "nearest": {"depth": 2, "padding": "same", "up": "nearest"},
    "batch": {"depth": 2, "norm": "batch", "in_channels": 3, "num_classes": 3},
    "group": {"depth": 2, "norm": "group"},
    "instance": {"depth": 1, "norm": "instance"},
    "one class": {"depth": 1, "num_classes": 1},
}


def network_of(variant: str, base: int = 4, seed: int = 0) -> UNet:
    """A network with random weights, biases and running statistics."""
    F.manual_seed(seed)
    network = UNet(**({"base": base} | VARIANTS[variant]))
    rng = np.random.default_rng(seed)
    for name, p in network.named_parameters():
        if p.ndim == 1:
            p.data[...] = rng.normal(1 if "norm" in name and "weight" in name else 0.1, 0.2, p.shape)
    for name, buffer in network.named_buffers():
        buffer.data[...] = rng.uniform(0.5, 1.5, buffer.shape) if "var" in name else rng.normal(0, 0.3, buffer.shape)
    network.eval()
    return network


def image_of(network: UNet, least: int, seed: int = 0) -> np.ndarray:
    """Random pixels (C, H, W) of a legal size, not square."""
    legal = [n for n in range(least, least + 200) if network.sizes.is_legal(n)]
    shape = network.config["in_channels"], legal[0], legal[1]
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def write_case(folder: Path, network: UNet, height: int, width: int, seed: int = 0) -> tuple[Path, Path, Path]:
    """A checkpoint, an image and a label of its classes as files."""
    rng = np.random.default_rng(seed)
    arrays = {f"model.{name}": array for name, array in network.state_dict().items()}
    save_checkpoint(folder / "net.safetensors", arrays, {"network": network.config, "source": {"labels": "indices"}})
    colours = (3,) if network.config["in_channels"] == 3 else ()
    write_image(folder / "image.png", rng.integers(0, 256, (height, width, *colours)).astype(np.uint8))
    label = rng.integers(0, network.classes, (height, width)).astype(np.uint8)
    label[: height // 3] = 255  # ignored
    write_image(folder / "label.png", label)
    return folder / "net.safetensors", folder / "image.png", folder / "label.png"


def data_of(page: str) -> dict[str, Any]:
    """What the page holds for its scripts."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@functools.cache
def recorded(variant: str) -> tuple[UNet, np.ndarray, np.ndarray, Recording]:
    """A network, an image, a label of which the first rows are ignored, and what was recorded of them."""
    network = network_of(variant)
    image = image_of(network, 44)
    with no_grad():
        out = network(Tensor(image[None])).shape
    label = np.random.default_rng(1).integers(0, network.classes, out[2:])
    label[:3] = IGNORE
    return network, image, label, record(network, image, label, (1, 2))


def unpacked(array: dict[str, Any]) -> np.ndarray:
    kind = "<f4" if "f32" in array else "u1"
    return np.frombuffer(base64.b64decode(array.get("f32", array.get("u8"))), kind).reshape(array["shape"])


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
