"""Cases of the kernels that update all parameters in one launch, and of those for scaled losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_kernel_cases import Placed, Random, Results, case, flag, values

from minitorch_unet.backend import Scaling
from minitorch_unet.backend.reference import Kernels

FLOAT32 = 2.0**-23


def parameters(rng: Random, columns: int) -> list[list[Placed]]:
    """`columns` lists of arrays of one to six parameters, some larger than a block serves; gradients in any order."""
    rows = []
    for _ in range(rng.integers(1, 7)):
        sizes = rng.integers(1, 7, rng.integers(1, 5)).tolist()
        if rng.random() < 0.2:
            sizes = [int(rng.integers(1000, 3000))]
        layout = str(rng.choice(["last", "first"]))
        row = [Placed(values(rng, *sizes, dtype="float32"), layout) for _ in range(columns)]
        if flag(rng):
            row[1] = row[1]._replace(layout="first" if layout == "last" else "last")
        rows.append(row)
    return [list(column) for column in zip(*rows, strict=True)]


def scaled(rng: Random) -> tuple[float, bool, bool] | None:
    """(scale, a gradient was not finite, gradients are unscaled already) or None."""
    return None if rng.random() < 0.4 else (float(2.0 ** rng.integers(-3, 10)), rng.random() < 0.2, flag(rng))


def scaling_of(kernels: Kernels, how: tuple[float, bool, bool] | None) -> Scaling | None:
    if how is None:
        return None
    scaling = Scaling(kernels.xp, how[0], 7)
    scaling.state[0], scaling.unscaled = int(how[1]), how[2]
    return scaling


def call_sgd(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    params, gradients, velocities, lr, steps, how, scaling = arguments
    clock = kernels.new_clock(lr, steps)
    kept = velocities or [None] * len(params)
    kernels.sgd_update_all(params, gradients, kept, clock, *how, scaling_of(kernels, scaling))
    return [params, velocities]


@case(absolute=2 * FLOAT32, run=call_sgd)
def sgd_update_all(rng: Random) -> tuple[Any, ...]:
    params, gradients, velocities = parameters(rng, 3)
    momentum, decay = (float(rng.choice([0, 0.3, 0.9])) for _ in range(2))
    dampening = float(rng.choice([0, 0, 0.5]))
    with_velocity = bool(momentum)
    how = (momentum, dampening, decay, with_velocity and dampening == 0 and flag(rng))
    return params, gradients, velocities if with_velocity else [], 0.1, int(rng.integers(1, 4)), how, scaled(rng)


def call_adam(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    params, gradients, means, squares, lr, steps, betas, how, scaling = arguments
    clock, scaling = kernels.new_clock(lr, steps - 1), scaling_of(kernels, scaling)
    kernels.count_step(clock, betas, scaling)
    kernels.adam_update_all(params, gradients, means, squares, clock, betas, *how, scaling)
    return [params, means, squares]


@case(absolute=4 * FLOAT32, run=call_adam)
def adam_update_all(rng: Random) -> tuple[Any, ...]:
    params, gradients, means, squares = parameters(rng, 4)
    squares = [square._replace(values=abs(square.values)) for square in squares]
    how = (1e-3, float(rng.choice([0, 0.1])), flag(rng))
    return params, gradients, means, squares, 0.1, int(rng.integers(1, 50)), (0.9, 0.99), how, scaled(rng)


def call_check_gradients(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    gradients, how, unscale = arguments
    scaling = scaling_of(kernels, how)
    assert scaling is not None
    kernels.check_gradients(gradients, scaling, unscale)
    return [gradients, scaling.state]


@case(relative=FLOAT32, run=call_check_gradients)
def check_gradients(rng: Random) -> tuple[Any, ...]:
    (gradients,) = parameters(rng, 2)[1:]
    if flag(rng):
        spoilt = gradients[int(rng.integers(len(gradients)))].values
        spoilt.flat[int(rng.integers(spoilt.size))] = rng.choice([np.nan, np.inf, -np.inf])
    return gradients, (float(2.0 ** rng.integers(-3, 10)), rng.random() < 0.2, False), flag(rng)


def call_adjust_scale(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    scale, good_steps, found, growth, backoff, interval = arguments
    scaling = Scaling(kernels.xp, scale, good_steps)
    scaling.state[0] = int(found)
    kernels.adjust_scale(scaling, growth, backoff, interval)
    return [scaling.factors, scaling.state]


@case(relative=FLOAT32, run=call_adjust_scale)
def adjust_scale(rng: Random) -> tuple[Any, ...]:
    scale = float(rng.choice([1.5, 1024, 2.0**127]))
    return scale, int(rng.integers(0, 4)), flag(rng), 2.0, 0.5, int(rng.integers(1, 4))


def call_count_step(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
    steps, scaling = arguments
    clock = kernels.new_clock(0.1, steps)
    for _ in range(3):
        kernels.count_step(clock, (0.9, 0.99), scaling_of(kernels, scaling))
    return [np.array(clock.steps), np.array(clock.lr)]


@case(run=call_count_step)
def count_step(rng: Random) -> tuple[Any, ...]:
    return int(rng.integers(0, 9)), scaled(rng)
