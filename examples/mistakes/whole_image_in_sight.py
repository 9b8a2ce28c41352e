"""Believing that each output pixel sees the whole image

"The receptive field covers the whole image" stands in many tutorials. A pixel of the paper's network sees 188 or 204
pixels along each axis, of 572. The size algebra says which; the gradient of one output pixel proves it, as it is 0
outside. Whatever lies farther away, a large object's other end or the image's frame, cannot influence the pixel.
"""

import numpy as np

import minitorch_unet as mt

# The paper's network at width 1, as the width does not matter; in float64, where the zeros are exact.
network = mt.UNet(base=1, dtype=np.float64)
for p in network.parameters():
    p.data[...] = 0.5 if p.ndim == 4 else 0.0  # all weights above 0, so that nothing cancels and no ReLU is silent

image = mt.Tensor(np.random.default_rng(0).random((1, 1, 572, 188)), requires_grad=True)
scores = network(image)
for row in (96, 104):
    image.grad = None
    scores[0, 1, row, 0].backward(retain_graph=True)
    rows = np.flatnonzero(image.grad.data[0, 0].any(axis=1))
    told = network.sizes.receptive_field(572, row)
    print(f"output row {row}: input rows {rows[0]} to {rows[-1]}, {np.ptp(rows) + 1} of 572; the algebra says {told}")
