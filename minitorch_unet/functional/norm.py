"""Normalisation and dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import kernels_for, take_draws, wide
from ..tensor import Tensor, apply, no_grad
from .reduce import var


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5, relu: bool = False,
) -> Tensor:  # fmt: skip
    r"""Each channel shifted and scaled to mean 0 and variance 1 (Ioffe and Szegedy 2015); then weight and bias.

    In training mean and (biased) variance come from this batch, and the running ones, if given, move towards them:
    running = (1 - momentum) running + momentum batch, with the unbiased variance. Otherwise the running ones are used,
    as constants. With relu, $y = \max(y, 0)$ in the same pass, and the result is kept, too.

    Formula: $y = w z + b$, with $z = (x - \mu) / \sqrt{v + \varepsilon}$, $\mu$ and $v$ of each channel, $\varepsilon$
        = eps.
    Shapes: input (N, C, ...), running_mean (C), running_var (C), weight (C), bias (C) -> (N, C, ...).
    Gradient: $\bar b = \sum \bar y$, $\bar w = \sum \bar y z$, and $\bar z = w \bar y$. $\mu$ and $v$ depend on all $k$
        values of the channel: $dz = (dx - d\mu) / \sqrt{v + \varepsilon} - z\,dv / (2 (v + \varepsilon))$ with
        $d\mu = \frac 1 k \sum dx$ and $dv = \frac 2 k \sum (x - \mu)\,dx$. Collected, $\bar x = \frac{w}{\sqrt{v +
        \varepsilon}} (\bar y - \frac 1 k \sum \bar y - z \frac 1 k \sum \bar y z)$: the gradient loses its mean and its
        part along $z$. Out of training the last two terms fall away.
    Kept: input, weight; new `16 C` bytes: mean and 1 / standard deviation in float64.
    Cost: `8 n` forward, `8 n` backward.
    Errors: ValueError for one value per channel in training, for missing running statistics outside, for shapes that do
        not fit.
    """
    if input.ndim < 2:
        raise ValueError(f"batch_norm: input has shape {input.shape}; it needs the axes (N, C, ...)")
    channels = input.shape[1]
    _check_affine(
        "batch_norm", (channels,), running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    if training:
        count = input.size // max(1, channels)
        if count < 2:
            raise ValueError(f"batch_norm: training needs more than one value per channel, found input {input.shape}")
        mean, variance = kernels_for(input.data).channel_moments(input.data)
        if running_mean is not None and running_var is not None:
            with no_grad():
                for running, value in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
                    running[:] = (1 - momentum) * running + momentum * value.astype(running.dtype)
    else:
        if running_mean is None or running_var is None:
            raise ValueError("batch_norm: outside training running_mean and running_var must be given")
        mean, variance = (t.data.astype(np.float64) for t in (running_mean, running_var))
    how: dict[str, Any] = {"mean": mean, "var": variance, "eps": eps, "training": training, "relu": relu}
    return apply("batch_norm", input, weight, bias, **how)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    r"""Each image normalised over groups of neighbouring channels (Wu and He 2018); then weight and bias.

    Formula: $y = w z + b$, with $z = (x - \mu) / \sqrt{v + \varepsilon}$, $\mu$ and $v$ of each image's group of
        channels.
    Shapes: input (N, C, ...), weight (C), bias (C) -> (N, C, ...).
    Gradient: with $g = w \bar y$ and means $\langle\,\rangle$ over the group, $\bar x = (g - \langle g \rangle - z
        \langle g z \rangle) / \sqrt{v + \varepsilon}$, as in `batch_norm`.
    Kept: input, weight; new `16 N C` bytes: $\mu$ and $1 / \sqrt{v + \varepsilon}$ of each channel, in float64.
    Cost: `6 n` forward, `8 n` backward.
    Errors: ValueError if num_groups does not divide C, or for one value in all in a group, as in PyTorch.
    """
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise ValueError(f"group_norm: num_groups {num_groups} does not divide the channels of input {input.shape}")
    if input.size == num_groups:
        raise ValueError(f"group_norm: input {input.shape} has one value per group; there must be more than one")
    _check_affine("group_norm", (input.shape[1],), weight=weight, bias=bias)
    return apply("group_norm", input, weight, bias, groups=num_groups, eps=eps)


def instance_norm(input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    r"""Each channel of each image normalised over its pixels, then weight and bias (Ulyanov et al. 2016).

    Formula: $y = w z + b$, with $z = (x - \mu) / \sqrt{v + \varepsilon}$, $\mu$ and $v$ of each image's channel.
    Shapes: input (N, C, ...), weight (C), bias (C) -> (N, C, ...).
    Gradient: as of `group_norm`, with as many groups as channels.
    Kept: input, weight; new `16 N C` bytes: $\mu$ and $1 / \sqrt{v + \varepsilon}$ of each channel, in float64.
    Cost: `6 n` forward, `8 n` backward.
    Errors: ValueError when a channel has only one pixel, which would always become 0.
    """
    if input.ndim < 3:
        raise ValueError(f"instance_norm: input has shape {input.shape}; it needs the axes (N, C, H, ...)")
    if math.prod(input.shape[2:]) < 2:
        raise ValueError(f"instance_norm: input {input.shape} has one pixel per channel; there must be more than one")
    _check_affine("instance_norm", (input.shape[1],), weight=weight, bias=bias)
    return apply("group_norm", input, weight, bias, groups=input.shape[1], eps=eps)


def layer_norm(
    input: Tensor, normalized_shape: tuple[int, ...], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    r"""Values normalised over the last axes, then weight and bias (Ba et al. 2016).

    Formula: $y = w z + b$, with $z = (x - \mu) / \sqrt{v + \varepsilon}$, $\mu$ and $v$ over the last axes.
    Shapes: any that ends in normalized_shape, which weight and bias have; the result has input's.
    Gradient: as of `group_norm`, means taken over the last axes.
    Kept: weight; new `12 n` bytes: $x - \mu$ twice (in $v$ and in $z$), and $z$.
    Cost: `9 n` forward, `17 n` backward.
    Errors: ValueError if input does not end in normalized_shape.
    """
    shape = tuple(normalized_shape)
    if not shape or input.shape[input.ndim - len(shape) :] != shape:
        raise ValueError(f"layer_norm: input {input.shape} does not end in normalized_shape {shape}")
    _check_affine("layer_norm", shape, weight=weight, bias=bias)
    if 0 in shape:
        raise ValueError(f"layer_norm: nothing to normalise over in shape {input.shape}")
    axes = tuple(range(input.ndim - len(shape), input.ndim))
    x = input.to(wide(input.dtype))
    y = (x - x.mean(axes, keepdim=True)) * (var(x, axes, correction=0, keepdim=True) + eps) ** -0.5
    if weight is not None:
        y = y * weight
    return (y if bias is None else y + bias).to(input.dtype)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, generator: np.random.Generator | None = None
) -> Tensor:
    r"""In training: each value set to 0 with probability p, the others divided by 1 - p (Srivastava et al. 2014).

    The random numbers come from `generator`, or from the engine's own, which `manual_seed` sets. They are a function of
    its key, its counter and the position alone, in the order (N, H, W, C) for (N, C, H, W): the same on every device,
    drawn where the input is. A generator over anything but Philox gives two words as the key. Dividing in training
    leaves prediction unchanged.

    Formula: $y = x\,r / (1 - p)$, with $r = 1$ where the place's number is at least $p$, else 0.
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y\,r / (1 - p)$: dropout of the gradient with the same numbers, which are drawn again.
    Kept: nothing (but where the numbers begin).
    Cost: `m` forward, `m` backward, and one random number a value each time.
    Errors: ValueError unless p is from 0 to 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is {p}; it must be from 0 to 1")
    if not training or p == 0:
        return input
    if p == 1:
        return input * 0.0
    return apply("dropout", input, p=p, draws=take_draws(generator or default_generator, input.size))


default_generator = np.random.Generator(np.random.Philox(0))


def manual_seed(seed: int) -> None:
    """Start the engine's own random generator (initial weights, dropout) from `seed`.

    Formula: none: it sets a state.
    Shapes: seed is a whole number of at least 0.
    Gradient: none.
    Kept: nothing.
    Cost: `0` forward, `0` backward.
    Errors: ValueError for another seed.
    """
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"manual_seed: seed is {seed!r}; it must be a whole number of at least 0")
    default_generator.bit_generator.state = np.random.Philox(seed).state



def _check_affine(name: str, shape: tuple[int, ...], **tensors: Tensor | None) -> None:
    for argument, tensor in tensors.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name}: {argument} has shape {tensor.shape}; it must be {shape}")
