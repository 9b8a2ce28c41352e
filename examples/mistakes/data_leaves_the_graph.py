"""A value is taken out of the graph and put back

`.data` is a bare array: what NumPy computes from it has no history, and everything before it gets no gradient. If
nothing else leads to the parameters, `backward` or `step` say so. If a part still does, only that part learns,
silently; ask for gradients by name with `mt.grad`, which refuses what the loss does not depend on.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn

first, second = nn.Linear(3, 4), nn.Linear(4, 1)
x = mt.Tensor(np.ones((2, 3), np.float32))
try:
    mt.Tensor(np.maximum(first(x).data, 0)).sum().backward()
except ValueError as error:
    print("the engine says:", error)

loss = second(mt.Tensor(np.maximum(first(x).data, 0))).sum()
loss.backward()
print("mistake: gradients of the layers:", first.weight.grad is not None, second.weight.grad is not None)
try:
    mt.grad(second(mt.Tensor(np.maximum(first(x).data, 0))).sum(), [first.weight])
except ValueError as error:
    print("the engine says:", error)

second(F.relu(first(x))).sum().backward()
print("right: gradients of the layers:", first.weight.grad is not None, second.weight.grad is not None)
