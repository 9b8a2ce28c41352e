# %% [markdown]
# # 10. Overlap-tile: pieces that equal the whole
#
# A microscope's picture may be larger than memory. So it is predicted in pieces, *tiles*, and the pieces are put
# together. Usually that leaves seams. The U-Net was built so that it does not: done right, tiles give the same numbers
# as one pass over the whole picture. Done almost right, they do not, and nothing tells you. This lesson shows both.

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show
from minitorch_unet.data import extract, normalise, predict_tiled, tile_origins, touching_cells
from minitorch_unet.tiled import Tiling, predict_probabilities

mt.manual_seed(0)
network = mt.UNet(base=4, depth=3, dtype=np.float64)  # untrained: exactness does not depend on the weights
size_in, size_out, halo = 132, network.sizes.output_size(132), network.sizes.halo
print(f"a tile: {size_in} pixels in, {size_out} out, a halo of {halo}; {network.sizes.depth} poolings")

# %% [markdown]
# ## A window for every tile
#
# All convolutions are valid, so no score is computed from invented pixels, and a tile's scores are those of its middle.
# To predict `size_out` pixels the network reads a *window* with a halo on each side. Windows overlap, their scores do
# not. At the picture's border the halo sticks out; there the picture is mirrored, without repeating the edge pixel.

# %%
print("mirrored:", extract(np.array([[10, 11, 12, 13]]), 0, -3, 1, 10)[0], "  (the picture is 10 11 12 13)")
image = normalise(touching_cells(seed=5, size=172)[0][None])
mirrored = extract(image[0], -halo, -halo, 172 + 2 * halo, 172 + 2 * halo)
figure, axis = plt.subplots(figsize=(5.2, 5), layout="constrained")
axis.imshow(mirrored, cmap="gray", extent=(-halo, 172 + halo, 172 + halo, -halo))
axis.add_patch(Rectangle((0, 0), 172, 172, fill=False, edgecolor="white", linewidth=1.5))
for top, left, colour in ((0, 0, "tab:orange"), (40, 80, "tab:cyan")):
    axis.add_patch(Rectangle((left, top), size_out, size_out, facecolor=colour, alpha=0.35))
    window = Rectangle((left - halo, top - halo), size_in, size_in, fill=False, edgecolor=colour, linewidth=2)
    axis.add_patch(window)
axis.set(title="white: the picture; beyond it, its mirror image\ncoloured: two tiles of scores in their windows")
show(figure, "10_windows")

# %% [markdown]
# The orange tile lies in the picture's corner: more than half of its window is mirror image.
#
# ## Two ways to lay the tiles
#
# A tile has 44 scores. The obvious stride is 44. The other plan takes the largest multiple of 8 below, and predicts a
# few pixels twice. Below is one pass over the whole picture, then both plans. In float64 rounding errors are some
# 10⁻¹⁶.


# %%
def forward(window):
    """Windows (1, C, H, W) to probabilities."""
    with mt.no_grad():
        return F.softmax(network(mt.Tensor(window)), 1).data


enough = network.sizes.input_size(172)  # a tile that holds the whole picture
whole = predict_tiled(forward, image.astype(np.float64), (enough, enough), 2 * (network.sizes.output_size(enough),))
found = {}
for name, grid in (("stride 44, a tile's size", 1), ("stride 40, on the grid", 8)):
    tiled = predict_tiled(forward, image.astype(np.float64), 2 * (size_in,), 2 * (size_out,), grid=grid)
    found[name] = np.abs(tiled - whole)[1]
    print(f"{name}: origins {tile_origins(172, size_out, grid)}, largest difference {found[name].max():.1e}")

# %% [markdown]
# One plan is off by far more than rounding, the other is exact. Where does the first go wrong?

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
axes[0].imshow(whole[1], cmap="gray")
axes[0].set_title("probability, one pass over the whole")
for axis, (name, difference), grid in zip(axes[1:], found.items(), (1, 8), strict=True):
    drawn = axis.imshow(np.maximum(difference, 1e-17), cmap="inferno", norm=LogNorm(1e-17, 1))
    for origin in tile_origins(172, size_out, grid)[1:]:
        axis.axhline(origin - 0.5, color="white", linewidth=0.8)
        axis.axvline(origin - 0.5, color="white", linewidth=0.8)
    axis.set_title(f"difference, {name}")
figure.colorbar(drawn, ax=axes[2], label="difference of probabilities")
show(figure, "10_difference")

# %% [markdown]
# Look at the middle picture. Four tiles are black: they are right. Their rows and columns begin at 0 or 88, multiples
# of 8. The others begin at 44 or 132, and are wrong *everywhere*, not just at their edges: a larger halo would not
# help. And nothing warns: each tile by itself looks like a prediction.
#
# ## Why: pooling has a phase
#
# A 2 × 2 pooling pairs elements 0 1, 2 3, 4 5 ... of its input. A tile that begins one pixel further on pairs 1 2, 3 4
# ...: other pairs, other maxima. Here is one row of pixels, pooled from the beginning and from further on:

# %%
row = np.array([3, 9, 4, 1, 5, 2, 8, 7, 6, 0, 2, 1])


def pooled(pixels):
    """Maxima of pairs."""
    return pixels[: len(pixels) // 2 * 2].reshape(-1, 2).max(1)


for begin in (0, 1, 2):
    print(f"from pixel {begin}: {' ' * 3 * begin}{pooled(row[begin:])}")

# %% [markdown]
# From pixel 2 the numbers are those of pixel 0 without the first. From pixel 1 they are others. Behind three poolings
# the same holds for steps of 2 · 2 · 2 = 8 pixels: that is `network.sizes.grid`. The paper's network has four poolings
# and a grid of 16; its tile of 388 scores has to move by 384.
#
# Which origins agree with the whole? Try all of them, on one row of windows:

# %%
agreement = []
for left in range(33):
    window = extract(image.astype(np.float64), 40 - halo, left - halo, size_in, size_in)[None]
    agreement.append(np.abs(forward(window)[0, 1] - whole[1, 40 : 40 + size_out, left : left + size_out]).max())
figure, axis = plt.subplots(figsize=(8, 3), layout="constrained")
axis.bar(range(33), np.maximum(agreement, 1e-17))
axis.set(xlabel="first column of the tile", ylabel="largest difference", xticks=range(0, 33, 4))
axis.set(yscale="log", ylim=(1e-17, 1))
axis.set_title("A tile equals the whole only where it begins on a multiple of 8")
show(figure, "10_phase")
print("exact at", [left for left, difference in enumerate(agreement) if difference < 1e-12])

# %% [markdown]
# `predict_probabilities` does all this: windows, mirroring, origins on the grid. In float32, in which networks usually
# compute, sums are rounded otherwise where tiles lie otherwise; no more than that is left.

# %%
network.to(np.float32)
one, many = (predict_probabilities(network, image, how=Tiling(tile=size)) for size in (enough, size_in))
print(f"float32: one tile of {enough} and many of {size_in} differ by {np.abs(one - many).max():.1e} at most")

# %% [markdown]
# What else could break it: padding inside the network (zeros at every tile's edge), normalisation with the tile's own
# mean (lesson 14). [docs/prediction.md](../../docs/prediction.md) has the proof, and what is done about padded
# networks.
#
# ## Questions
#
# `python -m minitorch_unet.course start 10` writes answers_10.py; fill it in, then
# `python -m minitorch_unet.course check 10`.
#
# 1. `mirror`: which pixel stands at coordinate i of a mirrored row?
# 2. `origins`: where do the tiles of an image begin?
# 3. `halo`: how many pixels does a valid U-Net of a given depth take off each side?
