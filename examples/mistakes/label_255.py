"""The value 255 in a label

In a mask of 0 and 255 it is the foreground; in maps of class numbers it often means "nobody knows". Neither is class
255. The loss refuses it and says what may be meant. Readers of folders decide by all values of all files, and print
what they took; `minitorch-unet doctor` names doubtful sets (`label-255`).
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

scores = mt.Tensor(np.array([[[[1, 0, 0, 0]], [[0, 0, 0, 3]]]], np.float32), requires_grad=True)
mask = np.array([[[0, 0, 255, 255]]])
try:
    F.cross_entropy(scores, mask)
except ValueError as error:
    print("the engine says:", error)
try:
    F.binary_cross_entropy_with_logits(scores[:, 1], mask)
except ValueError as error:
    print("of binary labels:", error)

print(f"right, if 255 is the foreground: {F.cross_entropy(scores, (mask == 255).astype(int)).item():.4f}")
print(f"right, if 255 is unknown: {F.cross_entropy(scores, mask, ignore_index=255).item():.4f}")
