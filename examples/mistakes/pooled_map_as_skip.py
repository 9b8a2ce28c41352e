"""The pooled map is concatenated instead of the one before the pooling

In a loop `x = pool(conv(x)); skips.append(x)` keeps the pooled map. It has half the size of the upsampled map that it
is meant to join, and whoever repairs that by resizing it has thrown away the detail for which the skip is there.
Append before pooling.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn

conv, up = nn.Conv2d(1, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)
image = mt.Tensor(np.ones((1, 1, 16, 16), np.float32))
before = F.relu(conv(image))
pooled = F.max_pool2d(before, 2)
upsampled = up(pooled)
try:
    F.cat([pooled, upsampled], 1)
except ValueError as error:
    print("the engine says:", error)
try:
    F.crop(pooled, upsampled.shape[2:])
except ValueError as error:
    print("or, where it is cropped first:", error)

print("right:", F.cat([before, upsampled], 1).shape)
