# %% [markdown]
# # 9. Training: a U-Net learns touching cells
#
# Everything is there now: the network, its gradient, a loss. This lesson trains a small U-Net from nothing, with the
# training loop written out, on pictures that are drawn by the package. It takes some ten seconds. At the end the
# network outlines cells in a picture it has never seen.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show
from minitorch_unet.data import SyntheticCells, extract, weight_map
from minitorch_unet.instances import label_objects
from minitorch_unet.tiled import predict_probabilities

training = list(SyntheticCells(12, 256, seed=0))
weights = [weight_map(sample.instances) for sample in training]  # equation 2, see lesson 8
unseen = SyntheticCells(1, 256, seed=1000)[0]
first = training[0]
print(f"{len(training)} pictures {first.image.shape}, {first.image.dtype}, grey values near 0 to 1")
print(f"labels {first.label.shape}, 0 or 1: {first.label.mean():.0%} of the first one's pixels are inside a cell")

# %% [markdown]
# ## The network and its sizes
#
# Two poolings instead of four and 8 channels at first instead of 64. Batch normalisation is not in the paper; with it
# these few seconds are enough (lesson 14 explains it). The convolutions are *valid*, so the scores cover less than the
# picture that goes in.

# %%
mt.manual_seed(0)  # the initial weights
network = mt.UNet(in_channels=1, num_classes=2, base=8, depth=2, norm="batch")
size_in = 124
size_out = network.sizes.output_size(size_in)
halo = network.sizes.halo
print(f"{network.parameter_count():,} parameters; {size_in} pixels in, {size_out} out: a halo of {halo} on each side")

# %% [markdown]
# ## A training example
#
# One example is a random *tile*: `size_out` pixels of label, and `size_out + 2 halo` pixels of image around the same
# centre. Where the image ends it is mirrored (`extract` does that). A random quarter turn or flip makes eight examples
# of one: a cell is a cell from every side. Image, label and weights must be turned alike.


# %%
def draw_example(rng):
    """Image (1, 1, size_in, size_in), label and weights (1, size_out, size_out)."""
    number = rng.integers(len(training))
    sample = training[number]
    top, left = rng.integers(0, 256 - size_out + 1, 2)
    image = extract(sample.image, top - halo, left - halo, size_in, size_in)[None]
    label, weight = (extract(a, top, left, size_out, size_out)[None] for a in (sample.label, weights[number]))
    quarter, mirrored = rng.integers(4), rng.integers(2)
    turned = (np.rot90(a, quarter, (-2, -1)) for a in (image, label, weight))
    return [np.ascontiguousarray(a[..., ::-1] if mirrored else a) for a in turned]


def intersection_over_union(probability, label):
    """Pixels in both, divided by pixels in either; probability and label (H, W)."""
    prediction, truth = probability > 0.5, label == 1
    return (prediction & truth).sum() / (prediction | truth).sum()


# %% [markdown]
# ## The loop
#
# Each turn: draw an example, compute scores and loss, go back through the network, change the weights a little. That is
# all there is to it. The learning rate falls along half a cosine, large steps first, fine ones at the end. The unseen
# picture is looked at now and then, and never trained on.

# %%
steps = 400
optimizer = mt.optim.Adam(network.parameters())
rate = mt.optim.cosine(0.008, steps)
rng = np.random.default_rng(0)
losses, looks = [], {}
for step in range(steps):
    image, label, weight = draw_example(rng)
    scores = network(mt.Tensor(image))  # forward: (1, 2, size_out, size_out)
    loss = F.cross_entropy(scores, label, pixel_weight=weight)
    optimizer.zero_grad()  # without this, gradients of all steps so far would add up
    loss.backward()  # backward: every parameter gets a gradient
    optimizer.lr = rate(step)
    optimizer.step()  # every parameter moves against it
    losses.append(loss.item())
    if step + 1 in (10, 50, 100, 200, 300, steps):
        probability = predict_probabilities(network, unseen.image)[1]  # tiled, with batch normalisation in eval mode
        looks[step + 1] = probability
        score = intersection_over_union(probability, unseen.label)
        print(f"step {step + 1:3}: mean of the last 10 losses {np.mean(losses[-10:]):.3f}, IoU {score:.3f}")

# %% [markdown]
# The loss begins near log 2 = 0.69, that of a network that knows nothing (lesson 8). It jumps from step to step,
# because each tile is another task; the mean falls. IoU is 1 where prediction and label agree in every pixel. It need
# not rise all the way: what is trained is the loss.

# %%
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
axis.plot(losses, color="tab:blue", alpha=0.3, linewidth=0.8, label="loss of each step")
axis.plot(np.arange(19, steps), np.convolve(losses, np.ones(20) / 20, "valid"), color="tab:blue", label="mean of 20")
axis.set(xlabel="step", ylabel="loss", ylim=(0, 0.9))
right = axis.twinx()
scores = [intersection_over_union(p, unseen.label) for p in looks.values()]
right.plot(list(looks), scores, "o-", color="tab:orange", label="IoU")
right.set(ylabel="IoU on the unseen picture", ylim=(0, 1.03))
figure.legend(loc="outside upper center", ncols=3)
show(figure, "09_curve")

figure, axes = plt.subplots(2, 4, figsize=(12, 6.2), layout="constrained")
ids = label_objects(looks[steps], min_area=60)  # what is smaller is a speck, not a cell
colours = np.where(ids == 0, np.nan, ids * 7 % 20)  # neighbouring numbers get colours far apart
prediction = looks[steps] > 0.5
errors = np.full((*prediction.shape, 3), 0.93)
errors[prediction & (unseen.label == 0)] = (0.85, 0.20, 0.15)
errors[~prediction & (unseen.label == 1)] = (0.10, 0.35, 0.80)
panels = [("unseen image", unseen.image[0], {"cmap": "gray"}), ("label", unseen.label, {"cmap": "gray"})]
grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
panels += [(f"P(cell) after {n} steps", looks[n], grey) for n in (10, 50, 100, steps)]
panels += [(f"{ids.max()} objects", colours, {"cmap": "tab20"}), ("errors: red false, blue missed", errors, {})]
for axis, (title, values, how) in zip(axes.flat, panels, strict=True):
    axis.imshow(values, interpolation="nearest", **how)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()
show(figure, "09_panel")
print(f"{unseen.instances.max()} cells were drawn, {ids.max()} objects found")

# %% [markdown]
# First the network learns that bright is cell. Then outlines appear, at last the dark seams between cells that touch.
# Most errors that are left follow outlines, a pixel wide. Blots, if there are any, lie where the light differs from
# what the training pictures had. Where fewer objects are found than cells were drawn, a seam has a hole, and two cells
# hang together: a few pixels, which IoU hardly sees. [docs/scores.md](../../docs/scores.md) has scores that do. More
# pictures, steps and channels help; `minitorch-unet demo` shows what a minute does.
#
# ## Questions
#
# `python -m minitorch_unet.course start 9` writes answers_09.py; fill it in, then
# `python -m minitorch_unet.course check 9`.
#
# 1. `example`: which pixels of the image belong to a tile of the label?
# 2. `train_step`: one turn of the loop.
# 3. `iou`: with ignored pixels left out.
