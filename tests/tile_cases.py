"""Networks, pictures, files and passes over the whole that the tests of tiles share."""

import functools

import numpy as np
import tifffile

from minitorch_unet import Tensor, UNet, manual_seed, no_grad
from minitorch_unet import functional as F

VARIANTS = {
    "paper": {},
    "batch norm": {"norm": "batch"},
    "released": {"up_relu": True, "up_first": True, "wide_last_up": True},
    "padded": {"padding": "same"},
    "padded, nearest": {"padding": "same", "up": "nearest"},
    "padded, batch norm": {"padding": "same", "norm": "batch", "up_first": True},
}
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


@functools.cache
def network(depth: int, dtype: type, variant: str = "paper", **options) -> UNet:
    manual_seed(depth)
    made = UNet(base=2, depth=depth, dtype=dtype, **VARIANTS[variant], **options)
    rng = np.random.default_rng(depth)
    state = made.state_dict()
    for name, value in state.items():  # biases and running statistics that are not 0 and 1
        if name.endswith(("bias", "running_mean", "running_var")):
            # Variances near those of the maps: much smaller ones would magnify the rounding of float32 layer by layer.
            drawn = rng.uniform(0.8, 1.6, value.shape) if name.endswith("var") else rng.uniform(0.1, 0.4, value.shape)
            state[name] = drawn.astype(value.dtype)
    made.load_state_dict(state)
    made.eval()
    return made


def picture(height: int, width: int, dtype: type, seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (channels, height, width)).astype(dtype)


def whole(model: UNet, image: np.ndarray) -> np.ndarray:
    """One pass over the whole image, mirrored by NumPy's own padding as far as the network needs."""
    sizes = model.sizes
    halo = sizes.halo if sizes.padding == "valid" else 0
    height, width = image.shape[1:]
    after = [sizes.input_size(n) - halo - n for n in (height, width)]
    padded = np.pad(image, [(0, 0), (halo, after[0]), (halo, after[1])], mode="reflect")
    with no_grad():
        return F.softmax(model(Tensor(padded[None])), 1).data[0, :, :height, :width]


def values(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


# Files of images that can be mapped, by name: each a function that writes the file.
FILES = {
    "grey.npy": lambda p: np.save(p, values("uint8", 40, 33)),
    "colour.npy": lambda p: np.save(p, values("uint16", 40, 33, 3)),
    "stack.npy": lambda p: np.save(p, values("float32", 3, 40, 33)),
    "columns.npy": lambda p: np.save(p, np.asfortranarray(values("float64", 40, 33))),
    "swapped.npy": lambda p: np.save(p, values("uint16", 40, 33).astype(">u2")),
    "grey.tif": lambda p: tifffile.imwrite(p, values("uint16", 40, 33)),
    "swapped.tif": lambda p: tifffile.imwrite(p, values("float32", 40, 33), byteorder=">"),
    "colour.tif": lambda p: tifffile.imwrite(p, values("uint8", 40, 33, 3), photometric="rgb"),
    "planes.tif": lambda p: tifffile.imwrite(p, values("uint8", 3, 40, 33), photometric="rgb", planarconfig="separate"),
    "stack.tif": lambda p: tifffile.imwrite(p, values("uint8", 3, 40, 33), photometric="minisblack"),
    "rows.tif": lambda p: tifffile.imwrite(p, values("uint8", 40, 33), rowsperstrip=7),
    "big.tif": lambda p: tifffile.imwrite(p, values("int16", 40, 33), bigtiff=True),
}
