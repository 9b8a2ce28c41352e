# %% [markdown]
# # 3. Finite differences and when they lie
#
# How do we know that a backward rule is right? We move an input a little, look how much the result moves, and
# compare. That needs no calculus, only the forward pass. But computers round, functions have kinks, and so this
# judge must itself be judged.
#
#     forward difference   (f(x + h) - f(x)) / h            error about h f''/2
#     central difference   (f(x + h) - f(x - h)) / (2 h)    error about h^2 f'''/6
#
# ## How long should the step be?

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show
from minitorch_unet.testing import gradcheck

steps = 10.0 ** np.arange(-12, 0.25, 0.25)
places = np.linspace(0.5, 1.0, 20)


def errors(dtype, central):
    """Largest relative error of the difference of sin at 20 places, for each step, all in `dtype`."""
    x, h = places.astype(dtype), steps.astype(dtype)[:, None]
    difference = np.sin(x + h) - np.sin(x - h if central else x)
    slopes = difference / (2 * h if central else h)
    return np.abs(slopes / np.cos(places) - 1).max(1)


curves = {
    f"{kind}, {dtype.__name__}": errors(dtype, kind == "central")
    for dtype in (np.float32, np.float64)
    for kind in ("forward", "central")
}
for name, error in curves.items():
    best = error.argmin()
    print(f"{name:17}  best step {steps[best]:.0e}, relative error {error[best]:.0e}")

# %% [markdown]
# Follow a curve from the right. First the error falls with h, or with its square: the line through two points
# of the curve becomes a better tangent. Then it rises again: f(x + h) and f(x) agree in more and more digits,
# and their difference keeps only the noise of the last ones. This is *cancellation*. Of float32's seven digits
# five survive at best, too few to tell a small mistake from noise. So gradients are checked in float64, where
# eleven survive.
#
# Below, beside the curves: what a central difference makes of relu.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(3, 2))
for name, error in curves.items():
    colour = "tab:red" if "32" in name else "tab:blue"
    left.loglog(steps, np.maximum(error, 1e-17), "-" if "central" in name else "--", color=colour, label=name)
left.set(xlabel="step h", ylabel="relative error", title="the derivative of sin", ylim=(1e-12, 10))
left.legend()
x = np.linspace(-0.2, 0.2, 401)
h = 0.1
right.plot(x, (np.maximum(x + h, 0) - np.maximum(x - h, 0)) / (2 * h), color="tab:blue", label="central, h = 0.1")
right.plot(x, np.where(x > 0, 1.0, 0.0), "--", color="black", label="derivative")
right.set(xlabel="x", ylabel="slope", title="relu and its kink", xticks=(-0.2, -0.1, 0, 0.1, 0.2))
right.legend()
show(figure, "03_errors")

# %% [markdown]
# ## Kinks
#
# A step across relu's kink mixes two slopes. At x = 0.03 with h = 0.1 the difference says 0.65. Neither side is
# wrong: the engine gives the slope where we stand, the difference an average over the neighbourhood.
#
# On the kink there is no derivative, and the engine follows a convention: 0 for relu. Two equal values in a
# pooling window are the same thing: a little more of one and it wins, a little less and it does not count.

# %%
point = mt.Tensor(0.03, requires_grad=True)
F.relu(point).backward()
print(f"relu at 0.03: engine {point.grad.item():g}, central difference {(max(0.13, 0) - max(-0.07, 0)) / 0.2:.2f}")


def pooled(values):
    return F.max_pool2d(values, 2).sum()


window = mt.Tensor(np.array([[[[5.0, 5.0], [1.0, 2.0]]]]), requires_grad=True)
pooled(window).backward()
print("max pool of 5 5 / 1 2: engine        ", window.grad.numpy().ravel())
differences = []
for index in np.ndindex(window.shape):
    up, down = window.data.copy(), window.data.copy()
    up[index] += 1e-3
    down[index] -= 1e-3
    differences.append((pooled(mt.Tensor(up)) - pooled(mt.Tensor(down))).item() / 2e-3)
print("                       central diff. ", np.array(differences).round(3))

# %% [markdown]
# The engine sends the whole gradient to the first 5; the difference gives half to each. Both are fair; only
# comparing them is not.
#
# ## gradcheck
#
# `gradcheck` does all this with care. Where the slopes to the left and to the right disagree it takes shorter
# steps; if that does not help, it is a kink, which is counted and not judged. Let it try pooling without and
# with ties, and a rule that we plant wrong: detached, one of the factors of x x looks constant, so the walk
# finds x instead of 2 x.

# %%
rng = np.random.default_rng(0)
distinct = mt.Tensor(rng.permutation(64).reshape(1, 1, 8, 8).astype(float), requires_grad=True)
tied = mt.Tensor(np.where(distinct.data < 12, 99.0, distinct.data), requires_grad=True)
for name, function, given in (
    ("distinct", pooled, distinct),
    ("tied", pooled, tied),
    ("planted", lambda v: v.detach() * v, distinct),
):
    result = gradcheck(function, given, raise_exception=False)
    print(f"{name:9} passed: {result.passed}, compared: {result.checked}, kinks: {result.kinks}  {result.message}")

# %% [markdown]
# In the image with ties seven elements share the largest value of their window; no verdict is given on them.
# The planted rule is found out: by its numbers, every gradient is half of what it should be.
#
# ## Questions
#
# `python -m minitorch_unet.course start 3` writes answers_03.py; fill it in, then
# `python -m minitorch_unet.course check 3`.
#
# 1. `numeric_gradient`: central differences for every element of an array.
# 2. `best_step`: where the V has its lowest point.
# 3. `relu_difference`: the blue curve of the right picture, as a formula.
# 4. `is_right`: a judge that neither lets errors of 1 % pass nor is misled by small numbers.
