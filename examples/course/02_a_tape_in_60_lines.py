# %% [markdown]
# # 2. A tape in 60 lines
#
# Lesson 1 walked back through steps that we knew by heart. An engine must do that for any program: it lets the
# program run, notes each step, and reads its notes backwards. Here is one, for single numbers. What goes wrong
# in most first attempts is not calculus but order.
#
# Each number remembers what it was made from, and its slope with respect to that. A product's slope in one
# factor is the other, known when the product is computed: so slopes are noted on the way forward.

# %%
import matplotlib.pyplot as plt

import minitorch_unet as mt
from minitorch_unet.course import show


class Value:
    """A number, the numbers it was made from, and its slope with respect to each."""

    def __init__(self, value, parents=(), slopes=()):
        self.value, self.parents, self.slopes, self.grad = value, parents, slopes, 0.0

    def __add__(self, other):
        return Value(self.value + other.value, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.value * other.value, (self, other), (other.value, self.value))


# %% [markdown]
# ## Three walks back
#
# Each begins at the result, whose gradient is 1, and hands on to each parent: own gradient times slope. They
# differ in when a number hands on what it has.
#
# - *eager*: as soon as something arrives, it hands on all it has.
# - *once*: the same, but who was visited is not visited again.
# - *ordered*: it waits until all who use it have handed on. The order comes from a sort: each number is put on
#   a list after its parents, and the list is read from the end. (A stack of its own spares it calling itself.)


# %%
def eager(node):
    for parent, slope in zip(node.parents, node.slopes, strict=True):
        parent.grad += node.grad * slope
        eager(parent)


def once(node, seen):
    for parent, slope in zip(node.parents, node.slopes, strict=True):
        parent.grad += node.grad * slope
        if parent not in seen:
            seen.add(parent)
            once(parent, seen)


def ordered(result):
    order, seen, stack = [], set(), [(result, False)]
    while stack:
        node, parents_are_listed = stack.pop()
        if parents_are_listed:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    for node in reversed(order):
        for parent, slope in zip(node.parents, node.slopes, strict=True):
            parent.grad += node.grad * slope


WALKS = {"eager": eager, "once": lambda result: once(result, set()), "ordered": ordered}


def gradient(program, a, walk):
    a = Value(a)
    result = program(a)
    result.grad = 1.0
    WALKS[walk](result)
    return a.grad


# %% [markdown]
# ## The smallest program that tells them apart
#
# b = a + a, c = b b. So c = 4 a^2 and dc/da = 8 a: 24 at a = 3.


# %%
def twice_squared(a):
    b = a + a
    return b * b


tensor = mt.Tensor(3.0, requires_grad=True)
twice_squared(tensor).backward()
found = {walk: gradient(twice_squared, 3.0, walk) for walk in WALKS}
for walk, slope in found.items():
    print(f"{walk:8} dc/da = {slope:g}")
print(f"engine   dc/da = {tensor.grad.item():g}")

# %% [markdown]
# c uses b twice, and hands it 6 twice: b's gradient is 12. *once* handed on the first 6 and never came back for
# the other, so it finds half. *eager* handed on 6, and then all 12, in which the first 6 counts again: a got 2
# (6 + 12) = 36. Only the walk that waits until b's 12 is complete is right.
#
# `Value` and `ordered` are a whole engine in 25 lines; relu, exp, log and division make it the 60 of the title.
# A true *tape*, a list of all steps as they happen, needs no sort: what uses b is written after b. Our engine
# keeps no such list, so that numbers that nobody holds any more are freed; it sorts, like `ordered`.
#
# ## Order is speed, too
#
# *eager* could be repaired: hand on only what has just arrived. It is then right, but visits a number once for
# every route that leads to it. After 15 doublings that is 65,535 visits to 16 numbers. And a walk that calls
# itself comes only as deep as Python lets it, some 1,000 steps; question 3 is about that.

# %%
def visits(node):
    return 1 + sum(visits(parent) for parent in node.parents)


doubled, counts = Value(1.0), []
for _ in range(15):
    doubled = doubled + doubled
    counts.append(visits(doubled))
print(f"15 doublings: 16 numbers, {counts[-1]} visits along every route")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
left.bar(list(found), list(found.values()), color=["tab:red", "tab:red", "tab:green"])
left.axhline(8 * 3, color="black", linestyle="--")
left.set(ylabel="dc/da at a = 3", title="b = a + a,  c = b b: the line is the derivative")
right.semilogy(range(1, 16), counts, "o-", color="tab:red", label="along every route")
right.semilogy(range(1, 16), range(2, 17), "o-", color="tab:green", label="in order")
right.set(xlabel="how often x = x + x", ylabel="visits", title="visits of a walk back")
right.legend()
show(figure, "02_walks")

# %% [markdown]
# ## Questions
#
# `python -m minitorch_unet.course start 2` writes answers_02.py; fill it in, then
# `python -m minitorch_unet.course check 2`.
#
# 1. `eager_gradient`: what does *eager* make of another program? Think first, then run it here.
# 2. `quotient`: the notes that a division has to make.
# 3. `topological_order`: the sort, for any graph, 10,000 steps deep.
# 4. `gradients`: the walk itself.
