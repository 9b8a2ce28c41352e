"""A call of every public function, its arguments by name: what their documentation is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minitorch_unet import Tensor

Draw = Callable[[np.random.Generator, Any], dict[str, Any]]


def arguments_of(name: str, seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    """Arguments for the function, of shapes that differ from seed to seed; every Tensor wants a gradient."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Tensor:
        return Tensor(rng.uniform(0.5, 2, shape).astype(dtype), requires_grad=True)

    n, c, k, h, w = (int(rng.integers(low, high)) for low, high in ((2, 4), (2, 6), (2, 6), (18, 25), (18, 25)))
    x = draw(n, c, h, w)
    flat = x.shape
    labels = rng.integers(0, c, (n, h, w))
    pixels = rng.uniform(0.5, 2, (n, h, w)).astype(dtype)
    size = {"kernel_size": (2, 3)}
    running = {"running_mean": Tensor(np.zeros(c, dtype)), "running_var": Tensor(np.ones(c, dtype))}
    affine = {"weight": draw(c), "bias": draw(c)}
    labelled = {"input": x, "target": labels}
    special: dict[str, dict[str, Any]] = {
        "pow": {"input": x, "exponent": draw(*flat)},
        "clamp": {"input": x, "min": 0.7, "max": 1.5},
        "where": {"condition": rng.random(flat) < 0.5, "input": x, "other": draw(*flat)},
        "amax": {"input": x, "dim": (2, 3)}, "amin": {"input": x, "dim": (2, 3)},
        "sum": {"input": x, "dim": (2, 3)}, "mean": {"input": x, "dim": (2, 3)},
        "var": {"input": x, "dim": (2, 3)}, "std": {"input": x, "dim": (2, 3)},
        "max": {"input": x, "dim": 3}, "min": {"input": x, "dim": 3}, "argmax": {"input": x, "dim": 3},
        "logsumexp": {"input": x, "dim": (2, 3)}, "softmax": {"input": x, "dim": 3},
        "log_softmax": {"input": x, "dim": 3},
        "reshape": {"input": x, "shape": (n * c, h * w)},
        "permute": {"input": x, "dims": (0, 2, 3, 1)},
        "transpose": {"input": x, "dim0": 1, "dim1": 3},
        "flip": {"input": x, "dims": (2, 3)},
        "roll": {"input": x, "shifts": 3, "dims": 2},
        "broadcast_to": {"input": draw(n, c, 1, w), "shape": flat},
        "cat": {"tensors": [x, draw(n, k, h, w)], "dim": 1},
        "stack": {"tensors": [x, draw(*flat)], "dim": 1},
        "index_select": {"input": x, "dim": 2, "index": rng.integers(0, h, 7)},
        "gather": {"input": x, "dim": 2, "index": rng.integers(0, h, (n, c, 5, w))},
        "pad": {"input": x, "pad": (1, 2, 3, 1)},
        "crop": {"input": x, "size": (h - 4, w - 6)},
        "matmul": {"input": draw(h, k), "other": draw(k, w)},
        "linear": {"input": draw(h, k), "weight": draw(w, k), "bias": draw(w)},
        "conv2d": {"input": x, "weight": draw(k, c, 3, 2), "bias": draw(k), "stride": (1, 1)},
        "conv2d_relu": {"input": [x, draw(*flat)], "weight": draw(k, 2 * c, 3, 3), "bias": draw(k)},
        "double_conv2d_relu": {
            "input": x, "weight1": draw(k, c, 3, 3), "bias1": draw(k), "weight2": draw(k + 1, k, 3, 3),
            "bias2": draw(k + 1),
        },
        "conv_transpose2d": {"input": x, "weight": draw(c, k, 2, 2), "bias": draw(k), "stride": 2},
        "max_pool2d": {"input": x, **size}, "avg_pool2d": {"input": x, **size},
        "interpolate": {"input": x, "size": (h + 7, w - 3), "mode": "bilinear"},
        "batch_norm": {"input": x, **running, **affine, "training": True},
        "group_norm": {"input": draw(n, 4, h, w), "num_groups": 2, "weight": draw(4), "bias": draw(4)},
        "instance_norm": {"input": x, **affine},
        "layer_norm": {"input": x, "normalized_shape": (h, w), "weight": draw(h, w), "bias": draw(h, w)},
        "cross_entropy": {**labelled, "weight": np.ones(c, dtype), "pixel_weight": pixels},
        "nll_loss": {"input": x, "target": labels},
        "binary_cross_entropy_with_logits": {"input": x, "target": rng.random(flat).astype(dtype)},
        "mse_loss": {"input": x, "target": draw(*flat)},
        "dice_loss": labelled, "tversky_loss": labelled, "focal_loss": labelled,
    }  # fmt: skip
    if name in special:
        return special[name]
    if name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        return {"input": x, "other": draw(*flat)}
    return {"input": x}
