# %% [markdown]
# # 14. Batch normalisation and dropout: two layers that know the time of day
#
# Most layers do the same in training and in prediction. These two do not. That makes a whole family of mistakes, most
# of which raise no error. This lesson looks at what they compute, how gradients pass, and what goes wrong.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn
from minitorch_unet.course import show
from minitorch_unet.data import SyntheticCells

rng = np.random.default_rng(0)

# %% [markdown]
# ## Normalise by the batch
#
# In training batch normalisation takes each channel's mean and variance over all images and pixels of the batch, and
# makes them 0 and 1. A weight and a bias for each channel then allow for any other:
#
#     z = (x - mean) / sqrt(variance + eps)        y = weight z + bias

# %%
layer = nn.BatchNorm2d(3)
x = mt.Tensor(rng.standard_normal((4, 3, 8, 8)) * np.array([1, 10, 0.1]).reshape(3, 1, 1) + 5)
y = layer.to(np.float64)(x)
for name, values in (("x", x.data), ("y", y.data)):
    print(f"{name}: channels' means {values.mean((0, 2, 3)).round(3)}, deviations {values.std((0, 2, 3)).round(3)}")

# %% [markdown]
# ## The gradient runs through the statistics
#
# Raise one pixel of x a little. Its own z rises. But the mean rises too, and all other z fall; and the variance
# changes. A backward rule that treats mean and variance as constants gives the first effect only. The true rule, for
# one channel of n values:
#
#     gx = (gz - mean(gz) - z mean(gz z)) / sqrt(variance + eps)
#
# Here are eight values, and a loss that is simply the last z.

# %%
eight = rng.standard_normal((8, 1))
t = mt.Tensor(eight, requires_grad=True)
z = F.batch_norm(t, None, None, training=True)
z[7, 0].backward()
constant = np.eye(8)[7] / np.sqrt(eight.var() + 1e-5)
moved = eight + 1e-6 * np.eye(8)  # in column i value i is raised a little
differences = ((moved[7] - moved.mean(0)) / np.sqrt(moved.var(0) + 1e-5) - z.data[7]) / 1e-6
print(f"engine against finite differences: {abs(t.grad.data[:, 0] - differences).max():.1e}")
print(f"sum of the gradient {t.grad.data.sum():.1e}, sum of gradient times x {(t.grad.data * eight).sum():.1e}")
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.bar(np.arange(8) - 0.2, constant, 0.4, label="statistics held constant", color="tab:orange")
axis.bar(np.arange(8) + 0.2, t.grad.data[:, 0], 0.4, label="true gradient", color="tab:blue")
axis.set(xlabel="value of the batch", ylabel="d z₇ / d x", title="One value's change moves all the others")
axis.legend(loc="upper left")
show(figure, "14_gradient")

# %% [markdown]
# Two sums are 0 (the second but for eps), and they must be: adding a number to all x, or multiplying all x, changes no
# z. So the gradient has no part in these two directions.
#
# ## Prediction: other statistics
#
# A prediction must not depend on what else is in the batch. So training keeps *running* statistics, running = 0.9
# running + 0.1 batch, from mean 0 and variance 1 on, and `eval()` makes the layer use those, as constants.

# %%
samples = list(SyntheticCells(6, 96, seed=2))
mt.manual_seed(0)
conv, norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
running, batches = [0.0], []
for step in range(60):
    maps = conv(mt.Tensor(samples[step % 6].image[None]))
    norm(maps)
    batches.append(maps.data[:, 0].mean())
    running.append(norm.running_mean.data[0])
print(f"mean of the batches {np.mean(batches):.2f}; running mean after 5 {running[5]:.2f}, after 60 {running[60]:.2f}")

# %% [markdown]
# What if you forget `eval()`? Below, the same pixel is predicted in windows of growing size around it, in both modes.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
axes[0].plot(range(1, 61), batches, ".", color="tab:orange", label="mean of each batch")
axes[0].plot(running, color="tab:blue", label="running mean")
axes[0].set(xlabel="batch", ylabel="channel 0", title="The running mean follows")
sizes = range(4, 95, 6)
for mode, text, colour in ((False, "eval(): running", "black"), (True, "train(): the window's own", "tab:red")):
    seen = []
    for size in sizes:
        low = 47 - size // 2
        window = samples[0].image[None, :, low : low + size, low : low + size]
        seen.append(norm.train(mode)(conv(mt.Tensor(window))).data[0, 0, 46 - low, 46 - low])
    print(f"{text}: from {min(seen):.2f} to {max(seen):.2f}")
    axes[1].plot(sizes, seen, "o-", color=colour, label=text)
axes[1].set(xlabel="side of the window", ylabel="channel 0", title="One pixel in larger and larger windows")
figure.legend(loc="outside upper center", ncols=4)
show(figure, "14_modes")

# %% [markdown]
# In eval mode it has one value, whatever the window; so tiles still equal the whole (lesson 10). In training mode it
# moves, most of all in small windows: few pixels make a noisy mean. And:
#
# - After few steps `eval()` predicts nonsense while the training loss looks fine: the running statistics have not
#   arrived. And one look in training mode moves them, although nothing is trained.
# - A batch of one tile is enough where maps are large. At the bottom of a deep U-Net few pixels are left, and one is
#   too few to have a variance:

# %%
norm.train()
try:
    norm(mt.Tensor(np.ones((1, 4, 1, 1), np.float32)))
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# ## Dropout: noise on purpose
#
# In training each value becomes 0 with probability p, at every call others; the rest is divided by 1 − p, so that the
# mean stays what it was. In prediction nothing happens.

# %%
F.manual_seed(1)
ones = mt.Tensor(np.ones((1, 1, 64, 64)))
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
for axis, p in zip(axes, (0.2, 0.5, 0.8), strict=True):
    dropped = F.dropout(ones, p).data
    print(f"p = {p}: {(dropped == 0).mean():.0%} zeros, mean {dropped.mean():.3f}, deviation {dropped.std():.2f}")
    axis.imshow(dropped[0, 0], cmap="viridis", vmin=0, vmax=5)
    axis.set(title=f"p = {p}: values 0 and {1 / (1 - p):.2f}", xticks=[], yticks=[])
show(figure, "14_dropout")

# %% [markdown]
# The mean is kept, the spread is not: it was 0. That is why dropout *before* batch normalisation is a trap: the running
# variance is learned from maps with holes, and is too large for prediction, where there are none.
#
# ## Questions
#
# `python -m minitorch_unet.course start 14` writes answers_14.py; fill it in, then
# `python -m minitorch_unet.course check 14`.
#
# 1. `batch_norm_backward`: the gradient through the statistics.
# 2. `running_statistics`: what has been kept after some batches.
# 3. `dropout`: from given random numbers.
# 4. `dropped_variance`: by how much dropout raises the variance.
