"""Softmax twice

The same with several classes: a network that ends in softmax, trained with `cross_entropy`, which takes the softmax
itself. With two classes the most certain pixel of all then has a probability of 0.73. It does train, slowly, to grey
pictures, and that is what makes it hard to see.
"""

import warnings

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

label = np.array([[0, 1]])
scores = mt.Tensor(np.array([[[9.0, -9.0], [-9.0, 9.0]]], np.float32), requires_grad=True)  # (1, 2 classes, 2 pixels)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loss = F.cross_entropy(F.softmax(scores, 1), label)
print(f"mistake: loss of perfect scores {loss.item():.3f}")
print("the engine warns:", caught[0].message)

print(f"right: loss of perfect scores {F.cross_entropy(scores, label).item():.3f}")
print("right: one softmax, after training, gives probabilities:", F.softmax(scores.detach(), 1).data[0, :, 0].round(3))
