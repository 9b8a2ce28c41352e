# %% [markdown]
# # 8. The loss: softmax, cross-entropy and weights
#
# The network's last layer gives each pixel one *score* per class: any number, of any sign. Training needs one number
# that says how wrong all scores are together. This lesson builds it: probabilities first, then the energy of the
# paper,
#
# $$E = -\sum_x w(x)\,\log p_{l(x)}(x), \qquad p_k = \frac{e^{z_k}}{\sum_j e^{z_j}},$$
#
# where $z$ are a pixel's scores, $l$ is its label and $w$ its weight.

# %%
import numpy as np
from matplotlib import pyplot as plt

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show
from minitorch_unet.data import IGNORE, border_distances, separate_touching, touching_cells, weight_map


def softmax(z):
    """Scores to probabilities, exactly as the formula says."""
    return np.exp(z) / np.exp(z).sum()


scores = np.array([2.0, -1.0, 0.5])
print("probabilities           ", softmax(scores).round(4), "sum", softmax(scores).sum().round(6))
print("all scores larger by 10 ", softmax(scores + 10).round(4))

# %% [markdown]
# The two lines of probabilities are the same: only *differences* of scores matter, since a common factor $e^{10}$
# cancels.
#
# That freedom is needed, because the formula as written does not survive in float32. Its largest number is about $3.4
# \cdot 10^{38}$, its smallest $10^{-45}$. See where the exponential leaves that range:

# %%
with np.errstate(all="ignore"):
    for z in (88, 89, -103, -104):
        print(f"exp({z}) in float32 = {np.exp(np.float32(z)):.3g}")
    for pair in ([100, 0], [0, 110]):
        p = softmax(np.array(pair, np.float32))
        print(f"scores {pair}: probabilities {p}, loss of class 0: {-np.log(p[0])}")

# %% [markdown]
# Scores of 100 do occur, early in training or after a step that was too large. Infinity divided by infinity is NaN,
# the loss is NaN, and one step later so is every weight.
#
# The cure is to subtract the largest score $m$ first, and never to form $p$ when its logarithm is wanted:
#
# $$\log p_k = z_k - \underbrace{\Big(m + \log \sum_j e^{z_j - m}\Big)}_{\text{log-sum-exp}}.$$
#
# All exponents are now at most 0, and one of them is 0: the sum lies between 1 and the number of classes.

# %%
difference = np.linspace(-130, 130, 521, dtype=np.float32)  # the scores are (difference, 0), and class 0 is right
pairs = np.stack([difference, np.zeros_like(difference)], 1)
with np.errstate(all="ignore"):
    naive = -np.log(np.exp(pairs[:, 0]) / np.exp(pairs).sum(1))
largest = pairs.max(1)
stable = largest + np.log(np.exp(pairs - largest[:, None]).sum(1)) - pairs[:, 0]
print(f"naive: {np.isnan(naive).sum()} of {naive.size} losses are NaN, {np.isinf(naive).sum()} infinite; "
      f"stable: {np.count_nonzero(~np.isfinite(stable))}")  # fmt: skip

# %% [markdown]
# ## The gradient is p − y
#
# Differentiate $-\log p_l = \log\sum_j e^{z_j} - z_l$ by $z_k$: the first term gives $p_k$, the second $-1$ where $k
# = l$. With $y$ the label as one-hot vector,
#
# $$\frac{\partial E}{\partial z} = p - y .$$

# %%
z = mt.Tensor(pairs[:, :, None, None], requires_grad=True)  # (N, C, H, W): each pair is a picture of one pixel
losses = F.cross_entropy(z, np.zeros((len(pairs), 1, 1), int), reduction="sum")
losses.backward()
probabilities = F.softmax(z, 1).data
print("engine and formula agree to", abs(z.grad.data[:, 0, 0, 0] - (probabilities[:, 0, 0, 0] - 1)).max())

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
axes[0].plot(difference, stable, color="tab:blue", linewidth=1.5, label="log-sum-exp")
axes[0].plot(difference, naive, color="tab:orange", linewidth=4, alpha=0.6, label="as the formula is written")
axes[0].axvspan(88.72, 130, color="tab:red", alpha=0.15, linewidth=0)
axes[0].text(109, 65, "NaN", ha="center", color="tab:red")
axes[0].axvspan(-130, -103.97, color="tab:purple", alpha=0.15, linewidth=0)
axes[0].text(-117, 65, "infinite", ha="center", color="tab:purple")
axes[0].set(xlabel="score of the right class less the other", ylabel="loss", title="Loss of a pixel, in float32")
axes[0].legend(loc="upper center")
near = abs(difference) <= 8
axes[1].plot(difference[near], stable[near], label="loss")
axes[1].plot(difference[near], z.grad.data[near, 0, 0, 0], label="gradient p − 1")
axes[1].axhline(0, color="black", linewidth=0.6)
axes[1].set(xlabel="score of the right class less the other", title="Near the middle: loss and gradient")
axes[1].legend()
show(figure, "08_loss_and_gradient")

# %% [markdown]
# Left, the orange line ends where float32 does; the blue one goes on. Right, the gradient never exceeds 1: a pixel
# that is wrong by far pulls no harder than one that is simply wrong, and one that is right lets go.
#
# ## Weights, and pixels that do not count
#
# With weights, `reduction="mean"` divides by the sum of the weights, and a pixel's gradient is $w\,(p - y) / \sum w$.
# A pixel labelled −100 is *ignored*: nobody knows what it shows. It must not enter the denominator either.

# %%
four = mt.Tensor(np.zeros((1, 2, 1, 4)), requires_grad=True)  # four pixels in a row, all scores 0, so p = 1/2
F.cross_entropy(four, np.array([[[0, 1, 1, IGNORE]]]), pixel_weight=np.array([[[1.0, 1.0, 8.0, 5.0]]])).backward()
print("labels  0  1  1  ignored\nweights 1  1  8  5\ngradient for class 1:", four.grad.data[0, 1, 0])

# %% [markdown]
# Of the weights 1 + 1 + 8 = 10 count. The gradients are ½/10, −½/10, −½·8/10 and 0; the ignored pixel's weight of 5
# is nowhere.
#
# ## Equation 2: where cells touch
#
# Between two touching cells lies a line of background two pixels wide. It is a small share of the picture: a network
# that paints it over loses little, and two cells become one. So the paper gives such pixels more weight, $w(x) = w_c
# + w_0\,e^{-(d_1 + d_2)^2 / 2\sigma^2}$, $d_1$ and $d_2$ being the distances to the nearest two cells.

# %%
image, cells = touching_cells(seed=3, size=160)
label = separate_touching(cells)  # 1 inside a cell; background also where two cells touch
weights = weight_map(cells, w0=10, sigma=5)
heavy = weights > 5
print(f"{100 * heavy.mean():.1f} % of the pixels weigh more than 5 and have {100 * weights[heavy].sum() / weights.sum():.0f} % "
      f"of all weight; the largest weight is {weights.max():.1f}")  # fmt: skip
scores = mt.Tensor(np.zeros((1, 2, *label.shape)), requires_grad=True)  # a network that knows nothing yet
F.cross_entropy(scores, label[None], pixel_weight=weights[None]).backward()
pull = scores.grad.data[0, 1] * weights.sum()

figure, axes = plt.subplots(1, 4, figsize=(14, 3.7), layout="constrained")
nearest, second = border_distances(cells)
for axis, title, values, how in (
    (axes[0], "image", image, {"cmap": "gray"}),
    (axes[1], "d1 + d2, pixels", nearest + second, {"cmap": "viridis", "vmax": 30}),
    (axes[2], "weight by equation 2", weights, {"cmap": "magma"}),
    (axes[3], "gradient for the score of “cell”", pull, {"cmap": "RdBu_r", "vmin": -6, "vmax": 6}),
):
    drawn = axis.imshow(values, **how)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
    if axis is not axes[0]:
        figure.colorbar(drawn, ax=axis, shrink=0.7)
show(figure, "08_weights")

# %% [markdown]
# The bright seams are where $d_1 + d_2$ is small. In the last picture the step against the gradient raises the score
# of "cell" in blue places and lowers it in red ones: from the first step on, the seams are pushed hardest.
#
# ## Questions
#
# 1. What is the loss of a network that knows nothing, for K classes? (`loss_at_start`)
# 2. Write a `log_softmax` that no score can break.
# 3. Write `loss_gradient`, the gradient with weights and ignored pixels, in NumPy.
# 4. Which extra weight does the middle of a gap of a given width get? (`gap_weight`)
#
# `python -m minitorch_unet.course start 8` writes answers_08.py; fill it in, then
# `python -m minitorch_unet.course check 8`.
