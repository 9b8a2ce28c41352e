"""The public functions, with PyTorch's names and argument order: `from minitorch_unet import functional as F`."""

from .activation import gelu, leaky_relu, relu, sigmoid, silu, softplus, tanh
from .conv import conv2d, conv2d_relu, conv_transpose2d, double_conv2d_relu
from .elementwise import (
    abs,
    add,
    clamp,
    div,
    exp,
    log,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    sqrt,
    sub,
    where,
)
from .loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    mse_loss,
    nll_loss,
)
from .norm import batch_norm, dropout, group_norm, instance_norm, layer_norm, manual_seed
from .overlap import dice_loss, tversky_loss
from .pool import avg_pool2d, interpolate, max_pool2d
from .products import linear, matmul
from .reduce import amax, amin, argmax, log_softmax, logsumexp, max, mean, min, softmax, std, sum, var
from .shape import (
    broadcast_to,
    cat,
    crop,
    flip,
    gather,
    index_select,
    pad,
    permute,
    reshape,
    roll,
    stack,
    transpose,
)

__all__ = [
    "abs", "add", "amax", "amin", "argmax", "avg_pool2d", "batch_norm", "binary_cross_entropy_with_logits",
    "broadcast_to", "cat", "clamp", "conv2d", "conv2d_relu", "conv_transpose2d", "crop", "cross_entropy",
    "dice_loss", "div", "double_conv2d_relu", "dropout", "exp", "flip", "focal_loss", "gather", "gelu", "group_norm",
    "index_select", "instance_norm", "interpolate", "layer_norm", "leaky_relu", "linear", "log",
    "log_softmax", "logsumexp", "manual_seed", "matmul", "max", "max_pool2d", "maximum", "mean", "min",
    "minimum", "mse_loss", "mul", "neg", "nll_loss", "pad", "permute", "pow", "relu", "reshape", "roll",
    "sigmoid", "silu", "softmax", "softplus", "sqrt", "stack", "std", "sub", "sum", "tanh", "transpose",
    "tversky_loss", "var", "where",
]  # fmt: skip
