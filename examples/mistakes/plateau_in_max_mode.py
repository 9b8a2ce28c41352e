"""A plateau schedule in `max` mode is fed a loss

`mode="max"` is for scores, of which more is better. A loss that falls, as it should, looks to it like a score that
gets worse and worse, and it takes the learning rate away just when everything goes well. The run then stands still.
"""

import warnings

from minitorch_unet import optim

losses = [0.70, 0.52, 0.44, 0.39, 0.35, 0.32, 0.30, 0.29]
wrong = optim.Plateau(lr=0.1, mode="max", patience=2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("mistake: rates", [f"{wrong.update(loss):.2g}" for loss in losses])
print("the engine warns:", caught[0].message)

right = optim.Plateau(lr=0.1, mode="min", patience=2)
print("right: rates", [f"{right.update(loss):.2g}" for loss in losses])
