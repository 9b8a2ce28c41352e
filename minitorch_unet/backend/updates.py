"""Updates of parameters: one at a time, or all of them in one call, which a GPU does in one launch.

A training step may be recorded on a GPU and played again, so that whatever differs from step to step lies in device
memory there: learning rate and number of steps in a `Clock`, the scale of the loss in a `Scaling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any
Pair = tuple[float, float]


class Clock:
    """What updates are told of time: the learning rate `lr`, and `steps`, the updates counted so far."""

    def __init__(self, lr: float, steps: int = 0) -> None:
        self.lr, self.steps = lr, steps


class Scaling:
    """How a loss is scaled: factors = (scale, 1 / scale), and state = (a gradient was not finite, steps without that).

    `unscaled`: the gradients have been divided by the scale already.
    """

    def __init__(self, xp: Any, scale: float, good_steps: int = 0) -> None:
        self.factors = xp.asarray(np.array([scale, 1 / scale], np.float32))
        self.state = xp.asarray(np.array([0, good_steps], np.int32))
        self.unscaled = False


class Updates:
    """In plain NumPy/CuPy, like the rest of the reference."""

    xp: Any
    asynchronous = False  # work is only queued, and whoever asks for a value waits until all of it is done

    def new_clock(self, lr: float, steps: int = 0) -> Clock:
        """A clock where updates by these kernels can read it."""
        return Clock(lr, steps)

    def count_step(self, clock: Clock, betas: Pair = (0.0, 0.0), scaling: Scaling | None = None) -> None:
        """One more step on the clock, unless it will be left out: before an update. betas: those of Adam."""
        if not self.overflowed(scaling):
            clock.steps += 1

    def sgd_update_all(
        self, params: Sequence[Array], gradients: Sequence[Array], velocities: Sequence[Array | None], clock: Clock,
        momentum: float, dampening: float, weight_decay: float, nesterov: bool, scaling: Scaling | None = None,
    ) -> None:  # fmt: skip
        """`sgd_update` of every parameter. With scaling: of gradients divided by its scale, or none after a find."""
        if self.overflowed(scaling):
            return
        how = (momentum, dampening, weight_decay, nesterov)
        for p, g, velocity in zip(params, gradients, velocities, strict=True):
            self.sgd_update(p, unscaled(g, scaling), velocity, clock.steps == 1, clock.lr, *how)

    def adam_update_all(
        self, params: Sequence[Array], gradients: Sequence[Array], means: Sequence[Array], squares: Sequence[Array],
        clock: Clock, betas: Pair, eps: float, weight_decay: float, decoupled: bool, scaling: Scaling | None = None,
    ) -> None:  # fmt: skip
        """`adam_update` of every parameter, scaling as in `sgd_update_all`."""
        if self.overflowed(scaling):
            return
        for p, g, mean, square in zip(params, gradients, means, squares, strict=True):
            how = (clock.steps, clock.lr, *betas, eps, weight_decay, decoupled)
            self.adam_update(p, unscaled(g, scaling), mean, square, *how)

    def check_gradients(self, gradients: Sequence[Array], scaling: Scaling, unscale: bool) -> None:
        """Note in scaling.state if one of the gradients is not finite; `unscale` divides them by the scale first."""
        for g in gradients:
            if unscale:
                g *= scaling.factors[1]
            if not bool(self.xp.isfinite(g).all()):
                scaling.state[0] = 1

    def overflowed(self, scaling: Scaling | None) -> bool:
        """Whether `check_gradients` has found something since the scale was last adjusted; the host reads it."""
        return scaling is not None and bool(scaling.state[0])

    def adjust_scale(self, scaling: Scaling, growth: float, backoff: float, interval: int) -> None:
        """After a step: scale *= backoff after a find, scale *= growth after `interval` steps without (if finite)."""
        scale, good_steps = scaling.factors[0], int(scaling.state[1]) + 1
        if self.overflowed(scaling):
            scale, good_steps = scale * np.float32(backoff), 0
        elif good_steps >= interval:
            with np.errstate(over="ignore"):
                grown = scale * np.float32(growth)
            scale, good_steps = grown if np.isfinite(grown) else scale, 0
        scaling.factors[0], scaling.factors[1] = scale, 1 / scale
        scaling.state[0], scaling.state[1] = 0, good_steps

    def sgd_update(
        self, p: Array, g: Array, velocity: Array | None, first: bool, lr: float,
        momentum: float, dampening: float, weight_decay: float, nesterov: bool,
    ) -> None:  # fmt: skip
        """In place: g += weight_decay p; v = momentum v + (1 - dampening) g (v = g at first); p -= lr v."""
        if weight_decay:
            g = g + weight_decay * p
        if velocity is not None:
            if first:
                velocity[...] = g
            else:
                velocity *= momentum
                velocity += g if dampening == 0 else (1 - dampening) * g
            g = g + momentum * velocity if nesterov else velocity
        p -= lr * g

    def adam_update(
        self, p: Array, g: Array, mean: Array, square: Array, step: int, lr: float,
        beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        """In place, step counted from 1: running means of g and g^2, p -= lr mean' / (sqrt(square') + eps).

        The primes divide by 1 - beta^step. Weight decay is added to g, or (decoupled) taken off p directly.
        """
        if weight_decay and decoupled:
            p *= 1 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * p
        mean *= beta1
        mean += (1 - beta1) * g
        square *= beta2
        square += (1 - beta2) * g * g
        p -= lr / (1 - beta1**step) * mean / (self.xp.sqrt(square) / (1 - beta2**step) ** 0.5 + eps)

    def rmsprop_update(
        self, p: Array, g: Array, square: Array, mean: Array | None, velocity: Array | None, lr: float,
        alpha: float, eps: float, weight_decay: float, momentum: float,
    ) -> None:  # fmt: skip
        """In place: square = running mean of g^2 (if centred less the squared mean of g); p -= lr g / (sqrt + eps)."""
        if weight_decay:
            g = g + weight_decay * p
        square *= alpha
        square += (1 - alpha) * g * g
        spread = square
        if mean is not None:
            mean *= alpha
            mean += (1 - alpha) * g
            spread = square - mean * mean
        change = g / (self.xp.sqrt(spread) + eps)
        if velocity is not None:
            velocity *= momentum
            velocity += change
            change = velocity
        p -= lr * change


def unscaled(g: Array, scaling: Scaling | None) -> Array:
    """A gradient divided by the scale of the loss, if that has not happened yet."""
    return g if scaling is None or scaling.unscaled else g * scaling.factors[1]
