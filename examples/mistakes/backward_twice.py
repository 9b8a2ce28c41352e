"""`backward` is called twice on one graph

The walk back frees what the forward pass kept, as it goes. A second walk through the same graph finds nothing; it
happens with two losses on one network output. Add the losses up, or keep the graph with `retain_graph=True`.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

x = mt.Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
y = F.exp(x)
y.sum().backward()
try:
    (y * y).sum().backward()
except ValueError as error:
    print("the engine says:", error)

x.grad = None
y = F.exp(x)
(y.sum() + (y * y).sum()).backward()
print("right, one sum:", x.grad.data.round(2))
x.grad = None
y = F.exp(x)
y.sum().backward(retain_graph=True)
(y * y).sum().backward()
print("right, graph kept:", x.grad.data.round(2))
