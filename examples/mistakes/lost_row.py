"""A size that loses a row in pooling

Pooling 125 rows by two leaves 62: the last row is dropped without a word, and doubling gives 124. Some tutorials
resize the map to make it fit, which shifts it by half a pixel against the skip. Only sizes that are even before every
pooling are exact; `UNetSizes` knows them, and `UNet` refuses the others before it computes anything.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

skip = mt.Tensor(np.ones((1, 4, 125, 125), np.float32))
pooled = F.max_pool2d(skip, 2)
doubled = F.interpolate(pooled, scale_factor=2)
print("sizes:", skip.shape[2], "pooled", pooled.shape[2], "doubled", doubled.shape[2])
try:
    F.cat([skip, doubled], 1)
except ValueError as error:
    print("the engine says:", error)

sizes = mt.UNetSizes(depth=3, padding="same")
try:
    sizes.trace(125)
except ValueError as error:
    print("the size algebra says:", error)
print("right:", sizes.nearest_legal(125)[1], "->", sizes.output_size(sizes.nearest_legal(125)[1]))
