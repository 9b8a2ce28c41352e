# %% [markdown]
# # 8. The loss: softmax, cross-entropy and weights
#
# The network's last layer gives each pixel one *score* per class: any number, of any sign. Training needs one number
# that says how wrong all scores are together. For pixels x with scores z, label l and weight w it is
#
#     p_k = exp(z_k) / (sum of all exp(z_j))        E = -sum over x of w(x) log p_l(x)
#
# This lesson takes it apart.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show
from minitorch_unet.data import IGNORE, border_distances, separate_touching, touching_cells, weight_map


def softmax(z):
    """Scores to probabilities, exactly as the formula says."""
    return np.exp(z) / np.exp(z).sum()


for scores in np.array([[2.0, -1.0, 0.5], [12.0, 9.0, 10.5]]):
    print("scores", scores, "probabilities", softmax(scores).round(4))

# %% [markdown]
# Only *differences* of scores matter: a common factor exp(10) cancels.
#
# That freedom is needed, as the formula does not survive in float32 as it is written. The largest number there is about
# 3.4e38, the smallest 1.4e-45. See where the exponential leaves that range:

# %%
with np.errstate(all="ignore"):
    print("exp of 88, 89, -103, -104 in float32:", np.exp(np.array([88, 89, -103, -104], np.float32)))
    for pair in ([100, 0], [0, 110]):
        p = softmax(np.array(pair, np.float32))
        print(f"scores {pair}: probabilities {p}, loss of class 0: {-np.log(p[0])}")

# %% [markdown]
# Scores of 100 do occur, early in training or after a step that was too large. Infinity divided by infinity is NaN, the
# loss is NaN, and one step later so is every weight.
#
# The cure is to subtract the largest score m first, and never to form p when its logarithm is wanted:
#
#     log p_k = z_k - (m + log(sum of exp(z_j - m)))
#
# All exponents are now at most 0, and one of them is 0: the sum lies between 1 and the number of classes. What stands
# in brackets is called log-sum-exp.

# %%
difference = np.linspace(-130, 130, 521, dtype=np.float32)  # the scores are (difference, 0), and class 0 is right
pairs = np.stack([difference, np.zeros_like(difference)], 1)
with np.errstate(all="ignore"):
    naive = -np.log(np.exp(pairs[:, 0]) / np.exp(pairs).sum(1))
largest = pairs.max(1)
stable = largest + np.log(np.exp(pairs - largest[:, None]).sum(1)) - pairs[:, 0]
for name, found in (("as the formula is written", naive), ("by log-sum-exp", stable)):
    print(f"{name}: of {found.size} losses {np.isnan(found).sum()} are NaN, {np.isinf(found).sum()} infinite")

# %% [markdown]
# ## The gradient is p − y
#
# Differentiate -log p_l = log(sum of exp(z_j)) - z_l by z_k: the first term gives p_k, the second -1 where k = l. With
# y, the label as a one-hot vector, dE/dz = p − y. No exponential is left that could overflow.

# %%
z = mt.Tensor(pairs[:, :, None, None], requires_grad=True)  # (N, C, H, W): each pair is a picture of one pixel
losses = F.cross_entropy(z, np.zeros((len(pairs), 1, 1), int), reduction="sum")
losses.backward()
print("engine and formula agree to", abs(z.grad.data[:, 0] - (F.softmax(z, 1).data[:, 0] - 1)).max())

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
axes[0].plot(difference, stable, color="tab:blue", linewidth=1.5, label="log-sum-exp")
axes[0].plot(difference, naive, color="tab:orange", linewidth=4, alpha=0.6, label="as the formula is written")
for low, high, text, colour in ((88.7, 130, "NaN", "tab:red"), (-130, -104, "infinite", "tab:purple")):
    axes[0].axvspan(low, high, color=colour, alpha=0.15, linewidth=0)
    axes[0].text((low + high) / 2, 65, text, ha="center", color=colour)
axes[0].set(xlabel="score of the right class less the other", ylabel="loss", title="Loss of a pixel, in float32")
axes[0].legend(loc="upper center")
axes[1].plot(difference, stable, label="loss")
axes[1].plot(difference, z.grad.data[:, 0, 0, 0], label="gradient p − 1")
axes[1].set(xlabel="score of the right class less the other", title="Near 0", xlim=(-8, 8), ylim=(-2, 9))
axes[1].legend()
show(figure, "08_loss_and_gradient")

# %% [markdown]
# Left, the orange line ends where float32 does; the blue one goes on. Right, the gradient is never larger than 1: a
# pixel that is wrong by far pulls no harder than one that is simply wrong, and one that is right lets go.
#
# ## Weights, and pixels that do not count
#
# With weights, `reduction="mean"` divides by the sum of the weights, so a pixel's gradient is w (p − y) / (sum of w). A
# pixel labelled −100 is *ignored*: nobody knows what it shows. It must not enter the sum of weights either.

# %%
four = mt.Tensor(np.zeros((1, 2, 1, 4)), requires_grad=True)  # four pixels in a row, all scores 0, so p = 1/2
F.cross_entropy(four, np.array([[[0, 1, 1, IGNORE]]]), pixel_weight=np.array([[[1.0, 1.0, 8.0, 5.0]]])).backward()
print("labels 0, 1, 1, ignored; weights 1, 1, 8, 5; gradient for class 1:", four.grad.data[0, 1, 0])

# %% [markdown]
# The weights that count add up to 10. The gradients are ½/10, −½/10, −½·8/10 and 0; the ignored pixel's 5 is nowhere.
#
# ## Equation 2: where cells touch
#
# Between two touching cells lies a line of background two pixels wide. It is a small share of the picture: a network
# that paints it over loses little, and two cells become one. So the paper gives such pixels more weight,
#
#     w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2))
#
# with d1 and d2 the distances to the nearest and the second nearest cell.

# %%
image, cells = touching_cells(seed=3, size=160)
label = separate_touching(cells)  # 1 inside a cell; background also where two cells touch
weights = weight_map(cells, w0=10, sigma=5)
heavy = weights > 5
print(f"{heavy.mean():.0%} of the pixels weigh more than 5: {weights[heavy].sum() / weights.sum():.0%} of all weight")
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
    figure.colorbar(axis.imshow(values, **how), ax=axis, shrink=0.7)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
show(figure, "08_weights")

# %% [markdown]
# The bright seams are where d1 + d2 is small. Training moves *against* the gradient: it raises the score of "cell" in
# the blue places and lowers it in the red ones. From the first step on, the seams and their rims are pushed hardest.
#
# ## Questions
#
# `python -m minitorch_unet.course start 8` writes answers_08.py; fill it in, then
# `python -m minitorch_unet.course check 8`.
#
# 1. `loss_at_start`: the loss of a network that knows nothing.
# 2. `log_softmax`: one that no score can break.
# 3. `loss_gradient`: the gradient with weights and ignored pixels.
# 4. `gap_weight`: the extra weight in the middle of a gap.
