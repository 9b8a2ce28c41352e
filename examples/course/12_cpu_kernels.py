# %% [markdown]
# # 12. The CPU ladder: one convolution, seven speeds
#
# Nearly all the time of a U-Net goes into 3 × 3 convolutions. This lesson computes one layer in seven ways. All give
# the same numbers. The slowest takes thousands of times as long as the fastest.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from minitorch_unet.backend import kernels_of, set_num_threads
from minitorch_unet.course import show

set_num_threads(1)
C, K, P = 64, 64, 64  # channels, filters, rows and columns of the result
rng = np.random.default_rng(0)
x = rng.standard_normal((C, P + 2, P + 2), dtype=np.float32)
w = rng.standard_normal((K, C, 3, 3), dtype=np.float32) / 24
fmas = 9 * C * K * P * P
print(f"{C} -> {K} channels, {P} x {P} pixels: {fmas / 1e6:.0f} million products to add up")
least = 4 * (x.size + w.size + K * P * P)
print(f"at least {least / 1e6:.1f} MB to read or write: {2 * fmas / least:.0f} operations for each byte")

# %% [markdown]
# More than a hundred operations for each byte: memory is not the limit. What counts is how many products there are, and
# how well the processor is kept busy with them.
#
# ## Rung 0: loops in Python
#
# The definition: for each result a sum over channels and taps. Only 40 results are computed; the time is scaled up.


# %%
def one_result(k, p, q):
    total = 0.0
    for c in range(C):
        for r in range(3):
            for s in range(3):
                total += x[c, p + r, q + s] * w[k, c, r, s]
    return total


windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(1, 2))
truth = np.tensordot(w.astype(np.float64), windows, ([1, 2, 3], [0, 3, 4]))  # in float64, to judge the others by
seconds, errors = {}, {}


def judge(name, results, expected, took):
    seconds[name] = took
    errors[name] = float(np.sqrt(np.mean((results - expected) ** 2)) / np.std(expected))


begin = time.process_time()
few = [one_result(0, 0, q) for q in range(40)]
judge("loops in Python", few, truth[0, 0, :40], (time.process_time() - begin) * truth.size / 40)  # as if of all

# %% [markdown]
# ## Rung 1: im2col, one large matrix product
#
# Copy what lies under the filter side by side, for every result. Then the convolution is one matrix product, and every
# numerical library has a fast one. The price: the copy is nine times as large as the input.


# %%
def im2col(x, w):
    """(C, H, W), (K, C, 3, 3) -> (K, P, Q)."""
    under = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # (C, P, Q, 3, 3): a view, no copy yet
    rows = under.transpose(1, 2, 0, 3, 4).reshape(P * P, -1)  # now it is copied
    return (rows @ w.reshape(K, -1).T).T.reshape(K, P, P)


def timed(name, compute):
    """The best of a few runs: what else the machine does only ever adds time."""
    took = []
    for _ in range(5):
        begin = time.process_time()
        y = compute()
        took.append(time.process_time() - begin)
    judge(name, y, truth, min(took))


timed("im2col, whole", lambda: im2col(x, w))

# %% [markdown]
# ## The engine's rungs
#
# The engine has five. `MINITORCH_UNET_CONV=direct` in the environment chooses one for a whole program; here we set it
# by hand.
#
# - *naive*: the loops again, compiled. Each addition waits for the one before.
# - *im2col*: NumPy, but copied in slabs of a few rows, which stay in the cache.
# - *direct*: no copy. A block of sums stays in the registers; each number loaded is used for many of them.
# - *winograd2*, *winograd4*: fewer products. A tile of 4 × 4 results takes 36 in place of 144.

# %%
kernels = kernels_of(np)
chosen = getattr(kernels, "algorithm", None)  # None: no compiled kernels here, NumPy serves everything
batch = np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1)[None]  # (1, C, H, W), channels last in memory
names = {"naive": "loops, compiled", "im2col": "im2col, in slabs", "direct": "direct, in registers",
         "winograd2": "Winograd F(2×2)", "winograd4": "Winograd F(4×4)"}  # fmt: skip
for algorithm, name in names.items():
    if chosen is None and algorithm != "im2col":
        print(f"{name}: left out, the kernels were not compiled when the package was installed")
        continue
    kernels.algorithm = algorithm
    timed(name, lambda: kernels.conv2d(batch, w, None, (1, 1), (0, 0), (1, 1), 1)[0])
kernels.algorithm = chosen

# %%
order = sorted(seconds, key=seconds.get)
print("rung                           ms  GFLOP/s     error")
for name in reversed(order):
    print(f"{name:22} {1e3 * seconds[name]:10.2f} {2e-9 * fmas / seconds[name]:8.2f} {errors[name]:9.1e}")
figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
bars = axis.barh(order, [1e3 * seconds[name] for name in order], color="tab:blue")
axis.bar_label(bars, [f"{seconds[name] / seconds[order[0]]:,.1f} × the fastest" for name in order], padding=4)
axis.set(xscale="log", xlabel="milliseconds, one thread", title=f"3 × 3 convolution, {C} → {K} channels, {P} × {P}")
axis.set_xlim(right=50e3 * max(seconds.values()))
show(figure, "12_ladder")

# %% [markdown]
# The times are those of your machine. Compiling the loops is the largest step, keeping the multipliers busy the second.
# GFLOP/s counts the definition's work, so Winograd may exceed what the processor can do: it multiplies less. All errors
# are those of float32, some 10⁻⁷; Winograd's is a little larger, as its additions cancel digits.
#
# ## Fewer multiplications: how can that be?
#
# Two neighbouring results of a filter with three taps take six products. Four suffice:

# %%
d, g = np.array([2.0, 1.0, 3.0, 5.0]), np.array([1.0, 2.0, -1.0])
print("six products: ", d[0] * g[0] + d[1] * g[1] + d[2] * g[2], "and", d[1] * g[0] + d[2] * g[1] + d[3] * g[2])
m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[2]
m1, m2 = (d[1] + d[2]) * (g[0] + g[1] + g[2]) / 2, (d[2] - d[1]) * (g[0] - g[1] + g[2]) / 2
print("four products:", m0 + m1 + m2, "and", m1 - m2 + m3)

# %% [markdown]
# What is made of g alone is computed once for all pixels. [docs/cpu-kernels.md](../../docs/cpu-kernels.md) has more.
#
# ## Questions
#
# `python -m minitorch_unet.course start 12` writes answers_12.py; fill it in, then
# `python -m minitorch_unet.course check 12`.
#
# 1. `im2col`: the matrix of rung 1.
# 2. `savings`: how many times fewer products does Winograd's F(m × m, r × r) need?
# 3. `four_products`: the two results of any d and g, with four products of numbers from d with numbers from g.
# 4. `intensity`: how many operations there are for each byte, for a layer of any size.
