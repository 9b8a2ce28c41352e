"""What convolution and pooling have in common: arguments for rows and columns, and how often a window fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tensor import Tensor

Pair = tuple[int, int]
PairLike = int | Sequence[int]


def pair(function: str, argument: str, value: PairLike, least: int) -> Pair:
    """`value` as (rows, columns); both must be whole numbers of at least `least`."""
    numbers = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(numbers) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in numbers):
        raise ValueError(
            f"{function}: {argument} is {value!r}; it must be one or two whole numbers of at least {least}"
        )
    return int(numbers[0]), int(numbers[1])


def window_output(
    name: str, input: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False
) -> Pair:
    """Output size (P, Q) of a sliding window; raises ValueError when the window does not fit even once."""
    sizes = []
    for i, axis in enumerate(("rows", "columns")):
        n, reach = input.shape[2 + i] + 2 * padding[i], dilation[i] * (kernel[i] - 1) + 1
        least = reach - (stride[i] - 1 if ceil_mode else 0)  # ceil_mode lets a window reach beyond the padding
        if n < least:
            raise ValueError(
                f"{name}: input has {input.shape[2 + i]} {axis} and padding {padding[i]}, but the window reaches over "
                f"{reach}; the input must have at least {least - 2 * padding[i]} {axis}"
            )
        count = -(-(n - reach) // stride[i]) + 1 if ceil_mode else (n - reach) // stride[i] + 1
        if ceil_mode and (count - 1) * stride[i] >= input.shape[2 + i] + padding[i]:
            count -= 1  # a window must start inside the input or the padding before it
        sizes.append(count)
    return sizes[0], sizes[1]
