# %% [markdown]
# # 7. Crop, concatenate and sizes
#
# The paper's network takes an image of 572 x 572 pixels and gives scores for the 388 x 388 in its middle. Why
# these numbers? Its convolutions are *valid*: they use real pixels only and never invent a border of zeros.
# Each trims one pixel on every side. All the rest is counting.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show

sizes = mt.UNetSizes(depth=4)
trace = sizes.trace(572)
print("  ".join(f"{stage} {size}" for stage, size in trace))

# %% [markdown]
# "down" and "merge" are blocks of two convolutions, so they take 4 off. "pool" halves, "up" doubles. Before
# each merge the map of the same level on the way down comes in as well: it still knows where things are, while
# the map from below knows what they are. It is larger, so its middle is cut out, and both are *concatenated*:
# their channels are stacked.
#
# The picture shows every map's size, and what the crops take off each side.

# %%
figure, axis = plt.subplots(figsize=(12, 5), layout="constrained")
colours = {"input": "grey", "down": "tab:blue", "pool": "tab:orange", "up": "tab:green", "merge": "tab:cyan"}
centres = {}
for column, (stage, size) in enumerate(trace):
    kind, _, level = stage.partition(" ")
    height = 0.15 + 0.75 * size / 572
    centre = centres[stage] = (column, -int(level or 0))
    axis.add_patch(plt.Rectangle((column - 0.2, centre[1] - height / 2), 0.4, height, color=colours[kind]))
    axis.text(column, centre[1] - height / 2 - 0.04, str(size), ha="center", va="top")
for level, offset in zip((3, 2, 1, 0), sizes.crop_offsets(572), strict=True):
    (left, row), (right, _) = centres[f"down {level}"], centres[f"up {level}"]
    axis.annotate("", (right - 0.25, row), (left + 0.25, row), arrowprops={"arrowstyle": "->", "linestyle": "--"})
    axis.text((left + right) / 2, row + 0.04, f"crop {offset} on each side", ha="center", va="bottom")
axis.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in colours.values()], colours, loc="lower left")
axis.set(xlim=(-0.6, len(trace) - 0.4), ylim=(-4.4, 0.6), title="sizes of the maps, level by level")
axis.axis("off")
show(figure, "07_sizes")

# %% [markdown]
# ## Crop and concatenate, forward and back
#
# Both only move numbers, so their gradients do, too. A concatenation's gradient is cut apart again. A crop's
# gradient is laid back to where it was cut out; the border that was cut off gets 0 by this route.

# %%
skip = mt.Tensor(np.ones((1, 2, 10, 10)), requires_grad=True)
below = mt.Tensor(np.ones((1, 3, 6, 6)), requires_grad=True)
merged = F.cat([F.crop(skip, 6), below], dim=1)
(merged * 2).sum().backward()
print("merged:", merged.shape, " one row of the skip map's gradient:", skip.grad.numpy()[0, 0, 5])

# %% [markdown]
# ## Legal sizes
#
# A pooling needs an even size. Of an odd one it would drop the last row, as in lesson 5. The scores would then
# no longer lie in the middle of the image, but half a pixel or more beside it, and so would every label that is
# cut from the middle. The network refuses, and says why.

# %%
try:
    sizes.trace(570)
except ValueError as error:
    print(error)
legal = [n for n in range(1, 600) if sizes.is_legal(n)]
print("legal:", legal[:4], "...", legal[-2:], " steps of", set(np.diff(legal).tolist()))
print("cut off altogether:", {n - sizes.output_size(n) for n in legal})

# %% [markdown]
# Each of four poolings must meet an even size, so legal sizes lie 16 apart. The border is always 184 pixels, 92
# on each side, however large the image is. That is why a large image is cheaper in one piece than in tiles, and
# why tiles must overlap (lesson 10).
#
# ## How far does a pixel see?
#
# We ask the gradient: which input pixels can change one score at all? With random weights relu and pooling
# close most routes, so we make all weights positive and look at three random images.

# %%
mt.manual_seed(0)
network = mt.UNet(base=1, num_classes=1, dtype=np.float64)
for parameter in network.parameters():
    parameter.data = np.abs(parameter.data) + 0.01
rng = np.random.default_rng(0)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for axis, index in zip(axes, (3, 8), strict=True):
    reached = np.zeros((220, 220))
    for _ in range(3):
        image = mt.Tensor(rng.uniform(0, 1, (1, 1, 220, 220)), requires_grad=True)
        network(image)[0, 0, index, index].backward()
        reached += image.grad.numpy()[0, 0]
    rows = np.flatnonzero(reached.any(1))
    print(f"output pixel {index} sees rows {rows[0]} to {rows[-1]}: {rows[-1] - rows[0] + 1};", end=" ")
    print("counted:", sizes.receptive_field(220, index))
    shown = axis.imshow(np.log10(np.where(reached > 0, reached / reached.max(), np.nan)), vmin=-6, vmax=0)
    axis.plot(index + 92, index + 92, "+", color="red", markersize=14)
    axis.set(title=f"output pixel ({index}, {index}): {rows[-1] - rows[0] + 1} pixels wide", xlabel="input pixel")
figure.colorbar(shown, ax=axes, label="log10 of the gradient, relative to the largest")
show(figure, "07_receptive_field")

# %% [markdown]
# 188 pixels or 204: it depends on where in the pooling grid the pixel lies. The red cross marks the pixel
# itself: it does not lie exactly in the middle of what it sees. It never sees the whole image of 572 pixels, as
# is often said. And what it sees counts unequally: a thousand times less near the border than in the middle.
#
# ## Questions
#
# `python -m minitorch_unet.course start 7` writes answers_07.py; fill it in, then
# `python -m minitorch_unet.course check 7`.
#
# 1. `output_size`: from 572 to 388, for any size and depth.
# 2. `receptive_field`: how far a chain of convolutions and poolings sees.
# 3. `crop_offset`: 4, 16, 40, 88, and so on.
# 4. `smallest_input`: which image is needed for a given output.
