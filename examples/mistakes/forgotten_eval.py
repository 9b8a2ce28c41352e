"""Predicting without `eval()`

In training dropout silences units at random, and batch normalisation takes mean and variance from the batch at hand.
Left on, two predictions of one image differ, and a pixel's class depends on which images share its batch. That may be
meant, so the engine keeps silent; `predict_probabilities` and the commands switch to prediction by themselves.
"""

import numpy as np

import minitorch_unet as mt
from minitorch_unet.predict import predict_probabilities

mt.manual_seed(0)
network = mt.UNet(base=4, depth=1, padding="same", norm="batch", dropout=0.5)
image = np.random.default_rng(0).random((1, 16, 16), np.float32)
batch = mt.Tensor(np.stack([image, 5 * image]))
alone = mt.Tensor(image[None])
with mt.no_grad():
    for _ in range(3):
        network(batch)  # the running statistics become those of some data
    print("mistake: twice the same?", np.array_equal(network(alone).data, network(alone).data))
    network.eval()
    print("right: twice the same?", np.array_equal(network(alone).data, network(alone).data))
    print("right: alone as in a batch?", np.allclose(network(alone).data[0], network(batch).data[0], atol=1e-5))
network.train()
first, second = (predict_probabilities(network, image) for _ in range(2))
print("right: predict_probabilities:", np.array_equal(first, second), "and back in training:", network.training)
