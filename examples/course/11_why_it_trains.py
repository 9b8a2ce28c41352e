# %% [markdown]
# # 11. Why it trains: first weights, momentum, one large tile
#
# The paper's recipe is short: Gaussian weights of standard deviation sqrt(2/N), SGD with momentum 0.99, a batch of one.
# Each of the three looks arbitrary. This lesson changes each, and looks at what happens.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn
from minitorch_unet.course import show
from minitorch_unet.data import SyntheticCells, extract

rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. First weights: nothing may grow or fade with depth
#
# One value of a map is a sum of N products, weight times input: N = 9 · 64 = 576 for a 3 × 3 convolution of 64
# channels. If the weights have variance c/N, then the sum's variance is c times the inputs' mean square. ReLU cuts off
# half of it. So each layer multiplies the mean square by c/2, and the size of the values (its root, *rms*) by
# sqrt(c/2). Twenty layers multiply it twenty times. Try it with layers of 576 inputs (fully connected ones, so that no
# border disturbs).

# %%
inputs = rng.standard_normal((64, 576), dtype=np.float32)
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for c, colour in ((1, "tab:blue"), (2, "black"), (4, "tab:red")):
    mt.manual_seed(0)
    maps, network = [mt.Tensor(inputs, requires_grad=True)], [nn.Linear(576, 576) for _ in range(20)]
    for layer in network:
        layer.weight.data *= np.sqrt(c / 2)  # the engine draws with c = 2
        maps.append(F.relu(layer(maps[-1])))
    gradients = mt.grad((maps[-1] * inputs).sum(), maps)  # of a loss that has nothing to do with the maps
    forward, backward = ([np.sqrt((t.data**2).mean()) for t in tensors] for tensors in (maps, gradients))
    print(f"c = {c}: rms behind 20 layers {forward[-1]:.3g}, by the rule {np.sqrt(c / 2) ** 20:.3g}")
    axes[0].semilogy(forward, ".-", color=colour, label=f"variance {c}/N")
    axes[1].semilogy(backward, ".-", color=colour)
axes[0].set(xlabel="layer", ylabel="rms of the map", title="Forward: size of the values", xticks=range(0, 21, 4))
axes[1].set(xlabel="layer", ylabel="rms", title="Backward: size of the map's gradient", xticks=range(0, 21, 4))
axes[0].legend()
show(figure, "11_initial_weights")

# %% [markdown]
# Only c = 2 keeps values and gradients about as large as they were. (Gradients go from right to left.) The U-Net's
# longest way leads through 18 such layers: with c = 1, what arrives would be 500 times too small, and so on the way
# back.
#
# ## 2. Momentum 0.99: a memory of a hundred steps
#
# SGD keeps a velocity, v = m v + g, and moves by lr v. A gradient's share of the velocity is 1, then m, then m², ... in
# all 1/(1 − m). If the gradient is always the same, v grows to g/(1 − m): with m = 0.99 each step is as long as if the
# learning rate were 100 times as large. *Effective* learning rate: lr/(1 − m).

# %%
parameter = nn.Parameter(np.zeros(1))
optimizer, places = mt.optim.SGD([parameter], lr=0.001, momentum=0.99), [0.0]
parameter.grad = mt.Tensor(np.ones(1))  # always the same gradient
for _ in range(600):
    optimizer.step()
    places.append(parameter.item())
moves = -np.diff(places)
print(f"moves with lr 0.001 and gradient 1: first {moves[0]:.4f}, hundredth {moves[99]:.4f}, last {moves[-1]:.4f}")

# %% [markdown]
# The price is delay: after a hundred steps the velocity has reached 63 % (1 − 0.99¹⁰⁰). What is it good for? Not for
# averaging noise away: in the end every gradient, with its noise, has moved the parameter by lr/(1 − m) of itself. It
# is good for *narrow valleys*. Below, the loss is (x² + 5000 y²)/2. Plain SGD with a rate above 2/5000 jumps from wall
# to wall across y, ever higher. With momentum such jumps, whose sign changes at each step, cancel in v, while the slow
# way along x adds up.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
plans = (0, 4.1e-4, "tab:red"), (0, 3.5e-4, "tab:blue"), (0.9, 3.5e-4, "tab:orange"), (0.99, 3.5e-4, "black")
for momentum, lr, colour in plans:
    place = nn.Parameter(np.array([10.0, 0.3]))
    optimizer = mt.optim.SGD([place], lr=lr, momentum=momentum)
    path, loss = [place.data.copy()], [0.0]
    while len(loss) <= 2000 and loss[-1] < 1e4:
        energy = (place * place * np.array([0.5, 2500.0])).sum()
        optimizer.backward_and_step(energy)
        loss.append(energy.item())
        path.append(place.data.copy())
    text = f"momentum {momentum:g}, rate {lr:g}"
    print(f"{text}: loss {loss[-1]:.2g} after {len(loss) - 1} steps")
    axes[0].plot(*np.array(path[:80]).T, "o-", color=colour, markersize=2, linewidth=0.6, label=text)
    axes[1].semilogy(np.convolve(loss[1:], np.ones(30) / 30, "valid"), color=colour, label=text)
axes[0].set(xlabel="x, flat", ylabel="y, steep", xlim=(2, 10.3), ylim=(-0.9, 0.9), title="80 steps from (10, 0.3)")
axes[1].set(xlabel="step", ylabel="loss", title="Loss, mean of 30 steps")
axes[1].legend(fontsize=8)
show(figure, "11_momentum")

# %% [markdown]
# ## 3. A batch of one is a batch of many pixels
#
# The loss is a mean over the *pixels* of a tile. A tile of 100 × 100 scores averages ten thousand terms, so its
# gradient is far less noisy than "one image" sounds. But neighbours resemble each other: they count for less than as
# many pixels taken from everywhere. *Noise* is how far a batch's gradient lies from that of all pictures; that of one
# tile of 4 × 4 pixels is 1.

# %%
samples = list(SyntheticCells(8, 128, seed=4))
network = mt.UNet(base=4, depth=2)


def gradient(size_out, places):
    """Gradient of all weights as one vector, for a batch of tiles (picture, top, left)."""
    size_in, halo = size_out + 2 * network.sizes.halo, network.sizes.halo
    images = [extract(samples[i].image, top - halo, left - halo, size_in, size_in) for i, top, left in places]
    labels = [extract(samples[i].label, top, left, size_out, size_out) for i, top, left in places]
    network.zero_grad()
    F.cross_entropy(network(mt.Tensor(np.stack(images))), np.stack(labels)).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in network.parameters()])


everything = gradient(128, [(i, 0, 0) for i in range(8)])
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for name, plan, colour in (
    ("one tile, larger and larger", [(4, 1), (12, 1), (28, 1), (60, 1), (100, 1)], "black"),
    ("more and more tiles of 4 × 4", [(4, 1), (4, 9), (4, 25)], "tab:orange"),
):
    noise = []
    for size_out, tiles in plan:
        off = [gradient(size_out, rng.integers((8, 254, 254), size=(tiles, 3))) - everything for _ in range(16)]
        noise.append(np.linalg.norm(off, axis=1).mean())
        read = tiles * (size_out + 2 * network.sizes.halo) ** 2
        print(f"{tiles:2} of {size_out:3} × {size_out:3} pixels, {read:5} read: noise {noise[-1] / noise[0]:.2f}")
    axis.semilogx([tiles * size_out**2 for size_out, tiles in plan], noise / noise[0], "o-", color=colour, label=name)
axis.set(xlabel="pixels in the batch", ylabel="noise of the gradient", title="Many pixels are a batch")
axis.legend()
show(figure, "11_batch")

# %% [markdown]
# Both lines fall: one large tile is a batch, too. For equal numbers of pixels many small tiles are less noisy, since
# they come from many places. But each brings its own halo. Compare the pixels *read*, which are what costs time: 9
# small tiles read about as many as the largest tile, and are about as noisy. So the paper takes the largest tile that
# fits into memory, one at a time, and lets the momentum gather a hundred of them.
#
# ## Questions
#
# `python -m minitorch_unet.course start 11` writes answers_11.py; fill it in, then
# `python -m minitorch_unet.course check 11`.
#
# 1. `weight_scale`: the standard deviation of the first weights of a layer.
# 2. `rms_after`: what a wrong constant does after many layers.
# 3. `effective_rate`: what a step comes to with momentum.
# 4. `sgd`: write the optimiser.
