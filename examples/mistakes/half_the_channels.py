"""The block after the concatenation is declared with half its channels

A concatenation along the channels has those of both maps: 8 of the skip and 8 of the up-convolution are 16. Tutorials
that were typed rather than run declare 8. The first forward pass refuses it, with both numbers.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn

skip = mt.Tensor(np.ones((1, 8, 10, 10), np.float32))
upsampled = mt.Tensor(np.ones((1, 8, 10, 10), np.float32))
joined = F.cat([skip, upsampled], 1)
print("joined:", joined.shape)
try:
    nn.Conv2d(8, 8, 3)(joined)
except ValueError as error:
    print("the engine says:", error)

print("right:", nn.Conv2d(8 + 8, 8, 3)(joined).shape)
