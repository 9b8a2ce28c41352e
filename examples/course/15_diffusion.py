# %% [markdown]
# # 15. Diffusion: pictures out of noise
#
# So far a picture went in and an answer came out. Here the same engine makes pictures, out of noise (Ho, Jain and
# Abbeel 2020). To destroy a picture is easy: noise does it. A U-Net learns to undo a little of that; and whoever can
# undo a little at every strength of the noise can begin with noise alone and undo it all.
#
# This trains for half a minute; MINITORCH_UNET_STEPS=5000 in the environment gives better digits.

# %%
import os
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn, optim
from minitorch_unet.course import show

SIZE, T, STEPS = 16, 200, int(os.environ.get("MINITORCH_UNET_STEPS", "1200"))
rng = np.random.default_rng(15)
mt.manual_seed(15)
fonts = [ImageFont.load_default(size) for size in (54, 57, 60, 63)]  # drawn four times too large, then made smooth


def drawn(digit):
    """A digit of random size, thickness, slant and place: (1, SIZE, SIZE), -1 is black and 1 white."""
    picture, middle = Image.new("L", (4 * SIZE, 4 * SIZE)), 2 * SIZE + rng.uniform(-4, 4, 2)
    how = {"font": fonts[rng.integers(4)], "stroke_width": int(rng.integers(3)), "anchor": "mm"}
    ImageDraw.Draw(picture).text(tuple(middle), str(digit), fill=255, **how)
    picture = picture.rotate(rng.uniform(-8, 8), Image.Resampling.BILINEAR).resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(picture, np.float32)[None] / 127.5 - 1


labels = np.arange(2000) % 10
pictures = np.stack([drawn(digit) for digit in labels])

# %% [markdown]
# ## To noise
#
# At time t = 0 ... T a picture x0 has become x_t = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise. alpha_bar falls
# from 1 (the picture) to 0 (noise alone); here sqrt(alpha_bar) is a cosine, and so the other root is the sine.

# %%
alpha_bar = np.cos(np.pi / 2 * np.arange(T + 1) / T).astype(np.float32) ** 2
signal, sigma = (np.sqrt(a)[:, None, None, None] for a in (alpha_bar, 1 - alpha_bar))  # (T + 1, 1, 1, 1)


def draw(rows, title, name):
    image = np.vstack([np.hstack(row[:, 0]) for row in rows])
    figure, axes = plt.subplots(figsize=(image.shape[1] / 25, image.shape[0] / 25 + 0.3), layout="constrained")
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axes.set(title=title, xticks=[], yticks=[])
    show(figure, name)


noise, times = rng.standard_normal((2, 1, SIZE, SIZE), dtype=np.float32), list(range(0, T + 1, 20))
draw([signal[times] * pictures[i + 3] + sigma[times] * noise[i] for i in (0, 1)], f"t = {times}", "15_noising")

# %% [markdown]
# ## The network
#
# A padded U-Net of one level, on patches of 2 x 2 pixels: noisy picture in, its guess of x0 out. (Ho et al. let it
# guess the noise; given x_t one gives the other, question 3.) It must know t: at 190 it is to find an outline, at 10
# to clean edges. A number alone moves a network little, so t comes as sines and cosines, the hands of clocks of
# different speeds, and beside them which digit is asked for. In each block a linear layer adds both to the maps.

# %%
SPEEDS = np.exp(np.linspace(0, np.log(64), 8)) * np.pi / 2 / T  # from a quarter of a turn to 16 turns


class Block(nn.Module):
    def __init__(self, channels_in, channels_out):
        self.first, self.second = (nn.Conv2d(c, channels_out, 3, padding=1) for c in (channels_in, channels_out))
        self.norm, self.told = nn.GroupNorm(4, channels_out), nn.Linear(64, channels_out)

    def forward(self, x, known):
        x = F.relu(self.norm(self.first(x)) + self.told(known).reshape(x.shape[0], -1, 1, 1))
        return F.relu(self.second(x))


class Denoiser(nn.Module):
    def __init__(self):
        self.clock = nn.Sequential(nn.Linear(26, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.enter, self.leave = nn.Conv2d(1, 32, 2, stride=2), nn.ConvTranspose2d(32, 1, 2, stride=2)
        self.down, self.bottom, self.merge = Block(32, 32), Block(32, 64), Block(64, 32)
        self.up = nn.ConvTranspose2d(64, 32, 2, stride=2)

    def forward(self, x, t, digits):
        angles = t[:, None] * SPEEDS
        known = np.hstack([np.sin(angles), np.cos(angles), np.eye(10)[digits]])  # (N, 8 + 8 + 10)
        known = self.clock(mt.Tensor(known.astype(np.float32)))
        skip = self.down(self.enter(mt.Tensor(x)), known)  # (N, 32, 8, 8)
        x = self.bottom(F.max_pool2d(skip, 2), known)  # (N, 64, 4, 4)
        return self.leave(self.merge(F.cat([skip, self.up(x)], 1), known))


# %% [markdown]
# ## Training: random pictures, times and noise; the network guesses the pictures; mean squared error

# %%
network = Denoiser()
optimizer = optim.Adam(network.parameters())
for step in range(STEPS):
    optimizer.lr = 4e-3 * min(1, (step + 1) / 50) * np.cos(np.pi / 2 * step / STEPS) ** 2
    i, t = rng.integers(0, len(pictures), 64), rng.integers(1, T + 1, 64)
    x0, noise = pictures[i], rng.standard_normal((64, 1, SIZE, SIZE), dtype=np.float32)
    loss = F.mse_loss(network(signal[t] * x0 + sigma[t] * noise, t, labels[i]), mt.Tensor(x0))
    optimizer.backward_and_step(loss)
    if step % max(1, STEPS // 10) == 0 or step == STEPS - 1:
        print(f"step {step:5}  loss {loss.item():.4f}")

# %% [markdown]
# ## From noise to pictures
#
# x_T is noise. At each of 20 steps the guess of the picture says what in x is noise; the two are mixed again, with
# less noise (Song, Meng and Ermon 2021; Ho et al. add some fresh noise instead, question 2). Below: x, then guesses.

# %%
def sample(guess, x, steps=20):
    """All x on the way from noise x (N, 1, SIZE, SIZE) to pictures, and all guesses; guess(x, t) gives the latter."""
    xs, guesses = [x], []
    for now, later in pairwise(np.linspace(T, 0, steps + 1).round().astype(int)):
        guesses.append(np.clip(guess(xs[-1], now), -1, 1))
        noise = (xs[-1] - signal[now] * guesses[-1]) / sigma[now]
        xs.append(signal[later] * guesses[-1] + sigma[later] * noise)
    return xs, guesses


asked = np.repeat(np.arange(10), 12)
with mt.no_grad():
    start = rng.standard_normal((len(asked), 1, SIZE, SIZE), dtype=np.float32)
    xs, guesses = sample(lambda x, t: network(x, np.full(len(x), t), asked).data, start)
draw(xs[-1].reshape(10, 12, 1, SIZE, SIZE), f"drawn from noise after {STEPS} steps of training", "15_samples")
draw([np.stack(way[::2])[:, i] for i in (24, 60, 96) for way in (xs[:-1], guesses)], "2, 5 and 8 emerge", "15_film")
nearest = ((xs[-1][:, None] - pictures) ** 2).sum((2, 3, 4)).argmin(1)
print(f"{np.sum(labels[nearest] == asked)} of {len(asked)} are nearest to a picture of the digit that was asked for")

# %% [markdown]
# ## Questions
#
# `python -m minitorch_unet.course start 15` writes answers_15.py; fill it in, then `python -m
# minitorch_unet.course check 15`.
#
# 1. `noised`: x_t in one formula, for a whole batch of times.
# 2. `posterior`: where x_(t-1) must lie if x_t and x0 are known; the heart of Ho et al.'s sampler.
# 3. `noise_error`: the error of the noise that belongs to an error of the picture.
