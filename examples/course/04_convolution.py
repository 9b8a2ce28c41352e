# %% [markdown]
# # 4. Convolution and its three gradients
#
# A convolution slides a small kernel over an image. At each place it multiplies the nine pixels below by the
# nine weights and adds up. (It does not turn the kernel round, as mathematicians do; they call this a
# correlation.) Here it is written in three ways. Each shows something that the others hide, and the third gives
# the gradients away.
#
# ## Patches in rows: im2col

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show

rows = ["123456", "010101", "654321", "010101", "123456", "010101"]
x = np.array([[int(digit) for digit in row] for row in rows], float)
k = np.array([[-1, 2, -3], [4, 5, -6], [7, -8, 9]], float)

patches = np.array([x[p : p + 3, q : q + 3].ravel() for p in range(4) for q in range(4)])
y = (patches @ k.ravel()).reshape(4, 4)
print(f"6 x 6 pixels make {patches.shape[0]} patches of {patches.shape[1]}; the first is {patches[0]}")
print("y =\n", y)
print(f"patches of the second convolution of the paper's network: {568 * 568 * (64 * 9) * 4 / 1e6:.0f} MB")

# %% [markdown]
# The first value is 1·(-1) + 2·2 + 3·(-3) + 0·4 + 1·5 + 0·(-6) + 6·7 + 5·(-8) + 4·9 = 37; the picture shows
# where it comes from. *im2col* copies every patch into a row of a matrix, and the convolution becomes one
# matrix product, which computers do very fast. The price is memory: every pixel is copied up to nine times, and
# in the paper's network, with 64 channels, that is 743 MB for a single layer.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 5.6), layout="constrained", width_ratios=(6, 9, 1.2, 4))
tables = [x, patches, k.reshape(9, 1), y]
titles = ["x, two of its patches", "patches", "k", "y"]
for axis, table, title in zip(axes, tables, titles, strict=True):
    axis.imshow(table, cmap="coolwarm", vmin=-40, vmax=40, alpha=0.6)
    for (row, column), value in np.ndenumerate(table):
        axis.text(column, row, f"{value:g}", ha="center", va="center")
    axis.set(title=title, xticks=[], yticks=[])
for colour, place in (("tab:green", 0), ("black", 6)):
    p, q = divmod(place, 4)
    boxes = [(q, p, 3, 3), (0, place, 9, 1), None, (q, p, 1, 1)]
    for axis, box in zip(axes, boxes, strict=True):
        if box:
            left, top, width, height = box
            frame = (left - 0.5, top - 0.5), width, height
            axis.add_patch(plt.Rectangle(*frame, fill=False, edgecolor=colour, linewidth=3))
show(figure, "04_patches")

# %% [markdown]
# ## Nine shifted images
#
# The same sum in another order: not place by place, but weight by weight. Each weight multiplies the whole
# image, shifted. That makes nine large products, no copies, and a loop over 9 rather than over all pixels.

# %%
shifted = sum(k[r, s] * x[r : r + 4, s : s + 4] for r in range(3) for s in range(3))
print("shifted products equal patches:", np.array_equal(shifted, y))

# %% [markdown]
# ## One big matrix
#
# A convolution is linear, so there is a matrix T with y = T x, both written as columns: 16 rows, one for each
# output, and 36 columns, one for each pixel. Nobody computes with it, as most of it is 0, but it is good for
# thinking. The nine weights stand in every row, each time a little further on: many outputs *share* few
# weights.

# %%
T = np.zeros((16, 36))
for p, q, r, s in np.ndindex(4, 4, 3, 3):
    T[p * 4 + q, (p + r) * 6 + q + s] = k[r, s]
print("T x equals y:", np.array_equal(T @ x.ravel(), y.ravel()), f"  zeros in T: {np.mean(T == 0):.0%}")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(36, 16))
left.imshow(T, cmap="coolwarm", vmin=-9, vmax=9)
left.set(title="T: a row for each output", xlabel="pixel of x", ylabel="value of y")
right.imshow(T.T, cmap="coolwarm", vmin=-9, vmax=9)
right.set(title="its transpose, for the way back", xlabel="value of gy", ylabel="pixel of gx")
show(figure, "04_matrix")

# %% [markdown]
# ## Three gradients
#
# Let gy be the gradient of y. Then
#
# - **of the input**: gx = T^T gy. A column of T says which outputs a pixel went to, and with which weight. The
#   pixel (2, 2) met k[0, 0] for output (2, 2), but k[2, 2] for output (0, 0): seen from the pixel, the kernel
#   is turned by 180 degrees. So gx is a convolution with the turned kernel, of gy with a border of zeros, two
#   wide.
# - **of the weights**: by "shifted images" y is a sum of k[r, s] times shifted x, so gk[r, s] is the sum of
#   shifted x times gy: x convolved with gy as kernel.
# - **of the bias**, which is added everywhere: the sum of gy.

# %%
gy = np.random.default_rng(0).integers(-2, 3, (4, 4)).astype(float)
padded = np.pad(gy, 2)
turned = k[::-1, ::-1]
gx = sum(turned[r, s] * padded[r : r + 6, s : s + 6] for r in range(3) for s in range(3))
gk = np.array([[(x[r : r + 4, s : s + 4] * gy).sum() for s in range(3)] for r in range(3)])

tx, tk, tb = (mt.Tensor(a, requires_grad=True) for a in (x.reshape(1, 1, 6, 6), k.reshape(1, 1, 3, 3), np.zeros(1)))
F.conv2d(tx, tk, tb).backward(mt.Tensor(gy.reshape(1, 1, 4, 4)))
print("gx: by T^T", np.array_equal(T.T @ gy.ravel(), gx.ravel()), " engine", np.array_equal(gx, tx.grad.numpy()[0, 0]))
print("gk: engine", np.array_equal(gk, tk.grad.numpy()[0, 0]), "\n", gk)
print("gb: engine", gy.sum() == tb.grad.item(), gy.sum())

# %% [markdown]
# All three are convolutions again (or sums), so their own gradients are, too. With many channels nothing new
# happens: sum over input channels on the way forward, over output channels on the way back to x.
#
# ## Questions
#
# `python -m minitorch_unet.course start 4` writes answers_04.py; fill it in, then
# `python -m minitorch_unet.course check 4`.
#
# 1. `patch_index`: im2col as a table of positions, for any size and stride.
# 2. `convolve`: shifted images with several channels.
# 3. `input_gradient`: the way back to the image.
# 4. `weight_gradient`: the way back to the kernel.
