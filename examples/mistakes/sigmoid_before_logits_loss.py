"""A sigmoid, and then a loss that expects scores

`binary_cross_entropy_with_logits` applies the sigmoid itself. After two of them a probability lies between 0.5 and
0.73, whatever the network says: the loss cannot fall below 0.31 on foreground and 0.69 on background, and gradients
are faint. The engine sees in the history of the scores where they come from, and warns. (`minitorch-unet doctor`
finds it in finished predictions: `activation-twice`.)
"""

import warnings

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

label = np.array([[0.0, 1.0, 1.0, 0.0]], np.float32)
scores = mt.Tensor(np.array([[-9.0, 9.0, 9.0, -9.0]], np.float32), requires_grad=True)  # all right, and sure of it
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loss = F.binary_cross_entropy_with_logits(F.sigmoid(scores), label)
print(f"mistake: loss of perfect scores {loss.item():.3f}")
print("the engine warns:", caught[0].message)

print(f"right: loss of perfect scores {F.binary_cross_entropy_with_logits(scores, label).item():.3f}")
print(f"right: for a picture, {F.sigmoid(scores).data.min():.3f} to {F.sigmoid(scores).data.max():.3f}")
