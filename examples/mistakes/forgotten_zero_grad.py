"""`zero_grad` is forgotten

`backward` adds to `.grad`, so that several losses may share a step. If nobody clears it, each step is taken by the
sum of all gradients so far: the weights overshoot and swing. The engine remembers by which gradients a step was
taken, and warns when more is added to them.
"""

import warnings

import numpy as np

import minitorch_unet as mt


def descend(clear: bool) -> list[str]:
    """Five steps down the parabola w^2 from 1; returns the way."""
    w = mt.Tensor(np.ones(1, np.float32), requires_grad=True)
    optimizer = mt.optim.SGD([w], lr=0.3)
    way = []
    for _ in range(5):
        if clear:
            optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
        way.append(f"{w.data[0]:.2f}")
    return way


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("mistake:", *descend(clear=False))
print("the engine warns:", caught[0].message)
print("right:", *descend(clear=True))
