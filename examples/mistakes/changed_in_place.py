"""A value is changed in place between forward and backward

The gradient of x * x needs the x of the forward pass. If it has been overwritten meanwhile, the gradient would be
that of another function, without any sign of it. The engine counts changes made through Tensors and refuses to go on.
It cannot see those made behind its back, through `.data`.
"""

import numpy as np

import minitorch_unet as mt

x = mt.Tensor(np.array([1.0, 2.0, 3.0], np.float32), requires_grad=True)
loss = (x * x).sum()
with mt.no_grad():
    x[0] = 100.0
try:
    loss.backward()
except ValueError as error:
    print("the engine says:", error)

x = mt.Tensor(np.array([1.0, 2.0, 3.0], np.float32), requires_grad=True)
(x * x).sum().backward()
print("right: first backward, then the change; gradient", x.grad.data)
with mt.no_grad():
    x[0] = 100.0
