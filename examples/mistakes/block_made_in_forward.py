"""A convolution is made inside `forward`

It looks harmless and runs. But each call makes new random weights, no optimiser is ever told of them, and what the
block computes is noise that changes from call to call. The engine refuses a parameter that a call makes and no module
keeps. Make the layer in `__init__` and keep it as an attribute: attributes are what `parameters()` finds.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import nn


class Forgetful(nn.Module):
    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return nn.Conv2d(1, 4, 3)(x)


class Registered(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: mt.Tensor) -> mt.Tensor:
        return self.conv(x)


image = mt.Tensor(np.ones((1, 1, 8, 8), np.float32))
print("mistake: parameters found:", Forgetful().parameter_count())
try:
    Forgetful()(image)
except ValueError as error:
    print("the engine says:", error)

network = Registered()
print("right: parameters found:", network.parameter_count())
print("right: twice the same result:", bool((network(image) == network(image)).data.all()))
