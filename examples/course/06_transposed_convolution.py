# %% [markdown]
# # 6. Transposed convolution is the gradient
#
# On its way up the U-Net makes maps larger. It uses a transposed convolution, often called up-convolution (and,
# wrongly, deconvolution). Nothing new has to be learnt for it. Lesson 4 has shown it already: it is the matrix
# T turned over, the way back from the result of a convolution to its image, taken as a way forward.
#
# ## Stamping
#
# A convolution gathers: each result reads a patch. Its transpose scatters: each input value stamps the kernel,
# times itself, into the output. With stride 2 the stamps are two pixels apart, and so the map doubles.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show


def stamped(x, kernel, stride):
    out = np.zeros([(n - 1) * stride + k for n, k in zip(x.shape, kernel.shape, strict=True)])
    for p, q in np.ndindex(x.shape):
        out[p * stride : p * stride + kernel.shape[0], q * stride : q * stride + kernel.shape[1]] += x[p, q] * kernel
    return out


def four(array):
    """An array (H, W) as a Tensor (1, 1, H, W)."""
    return mt.Tensor(np.asarray(array, float)[None, None])


small = np.array([[1, 2], [3, 4]])
kernel = np.array([[1, 10], [100, 1000]])
print(stamped(small, kernel, stride=2).astype(int))
engine = F.conv_transpose2d(four(small), four(kernel), stride=2).numpy()[0, 0]
print("engine the same:", np.array_equal(stamped(small, kernel, 2), engine))

# %% [markdown]
# ## The same number from both sides
#
# If convT is conv's transpose, then for any x and any y
#
#     <conv x, y>  =  <x, convT y>         where <a, b> is the sum of all products a b
#
# because (T x)·y = x·(T^T y). This one equation catches errors of size, stride, padding and direction; it is
# the best test of such a pair. And it is the gradient: the derivative of `<conv x, y>` in x is convT y.

# %%
rng = np.random.default_rng(0)
for stride, padding in ((1, 0), (2, 0), (2, 1), (3, 1)):
    x = mt.Tensor(rng.standard_normal((1, 3, 13, 13)), requires_grad=True)
    w = mt.Tensor(rng.standard_normal((5, 3, 4, 4)))
    convolved = F.conv2d(x, w, stride=stride, padding=padding)
    y = mt.Tensor(rng.standard_normal(convolved.shape))
    extra = (13 + 2 * padding - 4) % stride
    back = F.conv_transpose2d(y, w, stride=stride, padding=padding, output_padding=extra)
    left, right = (convolved * y).sum(), (x.detach() * back).sum()
    left.backward()
    same = np.array_equal(back.numpy(), x.grad.numpy())
    print(f"stride {stride}, padding {padding}: {left.item():9.5f} = {right.item():9.5f}, equals the gradient: {same}")

# %% [markdown]
# It is the transpose and not the inverse: convT(conv(x)) has x's shape, but not its values.
#
# ## Sizes, and what `output_padding` is for
#
# The size of the result is (n - 1) stride - 2 padding + kernel (+ output_padding). A convolution with stride 2
# makes 3 pixels of 7 and 3 pixels of 8, as it leaves a row over. The way back cannot know which it was;
# `output_padding` tells it.

# %%
for n in (7, 8):
    result = F.conv2d(four(np.ones((n, n))), four(np.ones((3, 3))), stride=2)
    back = [F.conv_transpose2d(result, four(np.ones((3, 3))), stride=2, output_padding=e).shape[2] for e in (0, 1)]
    print(f"{n} -> {result.shape[2]}; back with output_padding 0 or 1: {back[0]} or {back[1]}")

# %% [markdown]
# ## Checkerboards
#
# All inputs are 1 and all weights are 1: then the result says how many stamps each pixel got. If the stride
# divides the kernel size, all pixels (but the border's) get the same number. Kernel 3 with stride 2 gives 1, 2
# and 4 in turns: a pattern that the weights would have to learn to cancel. The U-Net's up-convolution has
# kernel 2 and stride 2: no stamp touches another, and 28 pixels become exactly 56.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for axis, (size, stride) in zip(axes, ((2, 2), (3, 2), (4, 2), (5, 3)), strict=True):
    count = F.conv_transpose2d(four(np.ones((5, 5))), four(np.ones((size, size))), stride=stride).numpy()[0, 0]
    shown = axis.imshow(count, cmap="viridis", vmin=0, vmax=4)
    inner = sorted({int(c) for c in count[size:-size, size:-size].ravel()})
    axis.set(title=f"kernel {size}, stride {stride}: {', '.join(map(str, inner))}", xticks=[], yticks=[])
figure.colorbar(shown, ax=axes, label="stamps on a pixel", ticks=range(5))
show(figure, "06_checkerboard")

deepest, weight = np.zeros((1, 1024, 28, 28), np.float32), np.zeros((1024, 512, 2, 2), np.float32)
up = F.conv_transpose2d(mt.Tensor(deepest), mt.Tensor(weight), stride=2)
print("the U-Net's first up-convolution:", deepest.shape, "->", up.shape)

# %% [markdown]
# ## Questions
#
# `python -m minitorch_unet.course start 6` writes answers_06.py; fill it in, then
# `python -m minitorch_unet.course check 6`.
#
# 1. `stamp_counts`: the picture above in one dimension, for any kernel, stride and padding.
# 2. `exact_scaling`: padding and output_padding that make the result exactly stride times as large.
# 3. `output_padding_for`: what the way back of a convolution must be told.
# 4. `transpose_as_convolution`: a transposed convolution by means of an ordinary one.
