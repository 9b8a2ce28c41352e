"""A from-scratch NumPy/CuPy deep-learning engine that builds, trains, explains and measures the original U-Net."""

from . import amp, functional, nn, optim, presets
from .autograd_graph import draw_graph
from .backend import (
    autocast,
    get_float32_matmul_precision,
    get_num_threads,
    set_float32_matmul_precision,
    set_num_threads,
)
from .functional import manual_seed
from .summary import summary
from .tensor import (
    NonFiniteError,
    Tensor,
    detect_anomaly,
    enable_grad,
    from_dlpack,
    grad,
    is_grad_enabled,
    no_grad,
    remade,
)
from .unet import UNet, UNetSizes

__version__ = "0.1.0"

__all__ = [
    "NonFiniteError",
    "Tensor",
    "UNet",
    "UNetSizes",
    "amp",
    "autocast",
    "detect_anomaly",
    "draw_graph",
    "enable_grad",
    "from_dlpack",
    "functional",
    "get_float32_matmul_precision",
    "get_num_threads",
    "grad",
    "is_grad_enabled",
    "manual_seed",
    "nn",
    "no_grad",
    "optim",
    "presets",
    "remade",
    "set_float32_matmul_precision",
    "set_num_threads",
    "summary",
]
