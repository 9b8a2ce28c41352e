# %% [markdown]
# # 5. Pooling, ties and routes of gradient
#
# Max pooling keeps the largest value of each 2 x 2 window and forgets the rest. It halves the map, so that the
# next convolution sees twice as far. Its backward pass is about routes: who won gets the window's gradient, and
# everybody else gets nothing.
#
# We go on with the result of lesson 4: relu, then pooling.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show

y = np.array([[37, 20, 17, 0], [19, 34, 13, 28], [15, 18, 35, 38], [-10, 11, -4, 17]], float).reshape(1, 1, 4, 4)
rectified = F.relu(mt.Tensor(y))
pooled, winners = F.max_pool2d(rectified, 2, return_indices=True)
print("pooled:", pooled.numpy().tolist(), " winners, counted row by row:", winners.numpy().ravel())


def route(function, x):
    """Gradient of x when the function's results get the gradients 1, 2, 3, ..."""
    x = mt.Tensor(x, requires_grad=True)
    result = function(x)
    result.backward(mt.Tensor(np.arange(1.0, result.size + 1).reshape(result.shape)))
    return x.grad.numpy()


# %% [markdown]
# The winners' positions are all that the way back needs: one small number a window. The values themselves may
# be forgotten.
#
# ## Four kinds of routes
#
# Let the results have the gradients 1, 2, 3, and so on. The picture shows where they end up: with the winners;
# spread evenly, for average pooling; added up, where windows overlap and one pixel wins several of them; and
# nowhere, for a row or column that no window covers.
#
# In the third picture 35 wins two windows, whose gradients are 5 and 8, and gets 13. In the fourth the last row
# and column hold the largest values of all, 50, but 5 x 5 pixels make 2 x 2 windows, so nobody sees them. Sizes
# matter, which is the subject of lesson 7.

# %%
cases = {
    "max pool, 2 x 2": lambda x: F.max_pool2d(x, 2),
    "average pool, 2 x 2": lambda x: F.avg_pool2d(x, 2),
    "max pool, 2 x 2, stride 1": lambda x: F.max_pool2d(x, 2, 1),
    "max pool, 2 x 2, of 5 x 5": lambda x: F.max_pool2d(x, 2),
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.5), layout="constrained")
for axis, (title, function) in zip(axes, cases.items(), strict=True):
    values = np.pad(y, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=50) if "5 x 5" in title else y
    gradient = route(function, values)[0, 0]
    axis.imshow(gradient, cmap="Greens", vmin=0, vmax=30)
    for (row, column), value in np.ndenumerate(values[0, 0]):
        axis.text(column, row - 0.2, f"{value:g}", ha="center", va="center", color="dimgrey")
        axis.text(column, row + 0.2, f"{gradient[row, column]:g}", ha="center", va="center", color="tab:red")
    if "stride" not in title:
        for cut in (1.5, 3.5):
            axis.axhline(cut, color="black", linewidth=0.8)
            axis.axvline(cut, color="black", linewidth=0.8)
    axis.set(title=title, xticks=[], yticks=[])
figure.supxlabel("grey: the value, red: its gradient")
show(figure, "05_routes")

# %% [markdown]
# ## Ties
#
# If two values are the largest, there is no derivative (lesson 3), and somebody has to choose. The choices are
# PyTorch's.

# %%
a, b = (mt.Tensor(2.0, requires_grad=True) for _ in range(2))
F.maximum(a, b).backward()
tied = np.array([2.0, 2.0, 1.0, 2.0]).reshape(1, 1, 2, 2)
print("max_pool2d of 2 2 / 1 2:", route(lambda x: F.max_pool2d(x, 2), tied).ravel(), " the first in row order")
print("max along an axis:      ", route(lambda x: F.max(x.reshape(4), 0).values, tied).ravel(), " the first")
print("amax along an axis:     ", route(lambda x: F.amax(x.reshape(4), 0), tied).ravel().round(2), " shared evenly")
print("maximum(2, 2):           ", a.grad.item(), b.grad.item(), " half each")
print("relu at 0, abs at 0:     ", route(F.relu, np.zeros(1))[0], route(F.abs, np.zeros(1))[0], " nothing")

# %% [markdown]
# Does the choice matter? Over a flat part of an image, say black background, pooling sends everything to the
# top left pixel of each window, pool after pool: below, one pixel in 64. In a network it hurts less than it
# looks. Maps come out of relu, and ties are between its zeros. The gradient that the first zero gets is stopped
# by relu a step later.

# %%
deep = route(lambda x: F.max_pool2d(F.max_pool2d(F.max_pool2d(x, 2), 2), 2), np.ones((1, 1, 16, 16)))
print("flat image, three poolings: gradient at", [(int(r), int(c)) for r, c in np.argwhere(deep[0, 0])])
noise = np.random.default_rng(0).standard_normal((1, 1, 200, 200))
top = F.max_pool2d(F.relu(mt.Tensor(noise)), 2).numpy()
gradient = route(lambda x: F.max_pool2d(F.relu(x), 2), noise)
print(f"relu of noise: {np.mean(top == 0):.1%} of the windows are ties of zeros;", end=" ")
print(f"{np.count_nonzero(gradient)} pixels get a gradient, {np.count_nonzero(top)} windows have a value above 0")

# %% [markdown]
# A window of noise is all zeros with a chance of 1/16, 6.25 %. In all others the largest value is above 0, it
# is the only one, and its pixel gets the gradient.
#
# ## Questions
#
# `python -m minitorch_unet.course start 5` writes answers_05.py; fill it in, then
# `python -m minitorch_unet.course check 5`.
#
# 1. `max_pool_backward`: the routes of max pooling, ties included.
# 2. `avg_pool_backward`: the same for means, and for sizes that the window does not divide.
# 3. `amax_backward`: sharing evenly.
# 4. `kept_bytes`: what the paper's first pooling has to remember.
