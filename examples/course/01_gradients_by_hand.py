# %% [markdown]
# # 1. Gradients by hand
#
# A gradient answers one question: if I change this number a little, how much does the result change? A network
# learns by asking it for every weight. This lesson answers it with a pencil, for one neuron, and then lets the
# engine answer.
#
# The neuron multiplies its input x by a weight w, adds a bias b and cuts off what is negative. The loss L says
# how far its output y is from the target t:
#
#     p = w x      z = p + b      y = relu(z)      L = (y - t)^2

# %%
import matplotlib.pyplot as plt
import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.course import show

x, w, b, t = 3.0, 2.0, -1.0, 1.0
p = w * x
z = p + b
y = max(z, 0.0)
L = (y - t) ** 2
print(f"forward:  p = {p:g}  z = {z:g}  y = {y:g}  L = {L:g}")

# %% [markdown]
# ## One step at a time, backwards
#
# Each step is so simple that its own slope, the local derivative, is known by heart. Write gq for dL/dq. The
# chain rule says: the gradient of a step's input is the gradient of its output times the local derivative. So
# we begin at the end, where dL/dL = 1, and walk back.

# %%
gL = 1.0
gy = gL * 2 * (y - t)  # the slope of a square is twice what is squared
gz = gy * (1.0 if z > 0 else 0.0)  # relu has slope 1 above 0, and 0 below
gp, gb = gz, gz  # a sum passes the gradient on to both of its terms
gw, gx = gp * x, gp * w  # a product: each factor's slope is the other factor
print(f"backward: gy = {gy:g}  gz = {gz:g}  gp = {gp:g}  gb = {gb:g}  gw = {gw:g}  gx = {gx:g}")

# %% [markdown]
# Notice what the way back needs: y and t, the sign of z, and x and w. These are values of the way forward. An
# engine has to keep them until it comes back, and that is what fills the memory when a large network trains.
#
# The engine does the same steps.

# %%
tx, tw, tb = (mt.Tensor(v, requires_grad=True) for v in (x, w, b))
loss = (F.relu(tw * tx + tb) - t) ** 2
loss.backward()
print(f"engine:   gw = {tw.grad.item():g}  gx = {tx.grad.item():g}  gb = {tb.grad.item():g}")

# %% [markdown]
# ## Seen as a picture
#
# Left: values flow to the right (black), gradients flow back (red). Right: the loss for every w. At w = 2 the
# curve is as steep as the red line, whose slope is gw. Left of the kink relu is off: the loss is flat and the
# gradient is 0, so a neuron that sits there learns nothing from this example.

# %%
figure, (graph, curve) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=(3, 2))
places = {"x": (0, 2), "w": (0, 1), "b": (1, 0), "p": (1, 1.5), "z": (2, 1), "y": (3, 1), "t": (3, 0), "L": (4, 1)}
values = {"x": x, "w": w, "b": b, "p": p, "z": z, "y": y, "t": t, "L": L}
gradients = {"x": gx, "w": gw, "b": gb, "p": gp, "z": gz, "y": gy, "L": gL}
for start, end in ("xp", "wp", "pz", "bz", "zy", "yL", "tL"):
    graph.annotate("", places[end], places[start], arrowprops={"arrowstyle": "->", "shrinkA": 17, "shrinkB": 17})
for name, (column, row) in places.items():
    box = {"boxstyle": "circle", "facecolor": "white", "edgecolor": "grey"}
    graph.text(column, row, name, ha="center", va="center", size=12, bbox=box)
    graph.text(column, row + 0.3, f"{values[name]:g}", ha="center", va="center", size=12)
    if name in gradients:
        graph.text(column, row - 0.32, f"{gradients[name]:g}", ha="center", va="center", size=12, color="tab:red")
graph.set(xlim=(-0.5, 4.5), ylim=(-0.7, 2.6), title="values (black), gradients (red)")
graph.axis("off")
ws = np.linspace(-1, 3, 200)
curve.plot(ws, (np.maximum(ws * x + b, 0) - t) ** 2, color="black")
curve.plot(w + np.array([-0.6, 0.6]), L + gw * np.array([-0.6, 0.6]), color="tab:red", label=f"slope {gw:g}")
curve.plot(w, L, "o", color="tab:red")
curve.set(xlabel="w", ylabel="L", title="the loss as a function of w")
curve.legend()
show(figure, "01_neuron")

# %% [markdown]
# ## Two routes
#
# In f = u v + u the value u reaches f on two routes. A small change of u travels along both, so their gradients
# add up: v from the product, 1 from the sum. Forgetting to add is the classic error of a home-made engine
# (lesson 2).

# %%
u, v = mt.Tensor(3.0, requires_grad=True), mt.Tensor(2.0, requires_grad=True)
f = u * v + u
f.backward()
print(f"f = u v + u at u = 3, v = 2:  gu = {u.grad.item():g} (2 by the product, 1 by the sum)  gv = {v.grad.item():g}")

# %% [markdown]
# ## What a gradient is good for
#
# A step against the gradient makes the loss smaller. gw predicts by how much, and the shorter the step, the
# better the prediction: it is the tangent of the picture, not the curve.

# %%
for step in (0.1, 0.01, 0.001):
    change = (max((w - step) * x + b, 0) - t) ** 2 - L
    print(f"w - {step:<5g}  predicted {-gw * step:8.4f}   found {change:8.4f}   off by {change + gw * step:.6f}")

# %% [markdown]
# A step ten times as short is off by a hundred times less.
#
# ## Questions
#
# `python -m minitorch_unet.course start 1` writes answers_01.py; fill it in, then
# `python -m minitorch_unet.course check 1`.
#
# 1. `neuron_gradients`: the three gradients of this neuron, for any numbers, without the engine.
# 2. `sigmoid_backward`: the step back through a sigmoid, from its output alone.
# 3. `reused_gradients`: f = (x + y) x, where x is used twice.
# 4. `predicted_change`: what the gradient says of a step from w = 2 to 2.01.
