"""Labels as floats, or one-hot

`cross_entropy` wants for each pixel the number of its class: whole numbers (N, H, W). Masks that were divided by 255
are floats; Keras wants one-hot labels (N, C, H, W). Both are refused by type and shape, with what to do.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

scores = mt.Tensor(np.zeros((1, 2, 4, 4), np.float32), requires_grad=True)
mask = np.zeros((1, 4, 4), np.uint8)
mask[:, 1:3, 1:3] = 255
scores.data[:, 1, 1:3, 1:3] = 2
one_hot = np.stack([mask == 0, mask == 255], axis=1).astype(int)
try:
    F.cross_entropy(scores, mask / 255)
except TypeError as error:
    print("the engine says of floats:", error)
try:
    F.cross_entropy(scores, one_hot)
except ValueError as error:
    print("the engine says of one-hot labels:", error)

print(f"right: {F.cross_entropy(scores, (mask / 255).astype(int)).item():.4f}")
print(f"right: {F.cross_entropy(scores, one_hot.argmax(1)).item():.4f}")
