"""Judging by accuracy where there is little foreground

Of a picture with 2 % vessels, an all black prediction has 98 % of the pixels right. Accuracy says "excellent", Dice
and IoU of the class say 0. The same blindness in the loss makes black the easiest answer: weigh the classes, or add
Dice to the loss. (`minitorch-unet doctor`: `class-imbalance`, `black-predictions`.)
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.metrics import confusion_matrix, per_class_scores

label = np.zeros((1, 50, 50), int)
label[:, 25] = 1
black = np.zeros_like(label)
found = per_class_scores(confusion_matrix(black, label, 2))
print(f"mistake: accuracy {found['pixel_accuracy']:.2f}")
print(f"right: Dice {found['dice'][1]:.2f}, IoU {found['iou'][1]:.2f} of class 1")

scores = mt.Tensor(np.stack([np.full(label.shape, 4.0), np.zeros(label.shape)], 1).astype(np.float32))  # surely black
print(f"plain loss {F.cross_entropy(scores, label).item():.2f}, of nothing known {np.log(2):.2f}")
print(f"right: with classes weighed {F.cross_entropy(scores, label, weight=[0.51, 25.0]).item():.2f}")
