"""A tape in 60 lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Exercise, WrongAnswer, expect


class Node:
    """A number in a graph: what it was made from, and its slope with respect to each of these."""

    def __init__(self, name: str, parents: tuple[Node, ...] = (), slopes: tuple[float, ...] = ()) -> None:
        self.name, self.parents, self.slopes = name, parents, slopes

    def __repr__(self) -> str:
        return self.name


def _graph(rng: np.random.Generator, size: int) -> list[Node]:
    """Nodes, each made from one to three earlier ones, perhaps from one of them twice."""
    nodes = [Node("n0")]
    for i in range(1, size):
        chosen = rng.integers(max(0, i - 4), i, rng.integers(1, 4))
        slopes = tuple(float(s) for s in rng.integers(-2, 3, len(chosen)))
        nodes.append(Node(f"n{i}", tuple(nodes[j] for j in chosen), slopes))
    return nodes


def _chain(size: int) -> Node:
    node = Node("n0")
    for i in range(1, size):
        node = Node(f"n{i}", (node,), (1.0,))
    return node


def _below(result: Node) -> list[Node]:
    """All nodes that the result was made from, and itself."""
    found, stack = {result: None}, [result]
    while stack:
        new = [parent for parent in stack.pop().parents if parent not in found]
        found.update(dict.fromkeys(new))
        stack += new
    return list(found)


def _check_eager(answer: Any) -> None:
    hint = "b's gradient is 1 at the first visit and 2 at the second; each time a is given all of it, twice."
    expect(answer, 6, "eager_gradient", hint, tell=False)


def _check_quotient(answer: Any) -> None:
    for a, b in ((6.0, 3.0), (1.0, -4.0), (-5.0, 0.5)):
        found = answer(a, b)
        if not isinstance(found, tuple) or len(found) != 2:
            raise WrongAnswer(f"quotient({a:g}, {b:g}) is {found!r}; it must be a pair: the value, and the two slopes.")
        expect(found[0], a / b, f"the value of quotient({a:g}, {b:g})")
        hint = "The slope in the divisor b is that of a b^-1: a (-1) b^-2."
        expect(found[1], (1 / b, -a / b**2), f"the slopes of quotient({a:g}, {b:g})", hint)


def _check_order(answer: Any) -> None:
    rng = np.random.default_rng(2)
    for size in (1, 2, 5, 12, 40):
        result = _graph(rng, size)[-1]
        _judge_order(result, answer(result))
    result = _chain(10_000)
    _judge_order(result, answer(result))


def _judge_order(result: Node, order: Any) -> None:
    if not isinstance(order, list):
        raise WrongAnswer(f"topological_order(...) is a {type(order).__name__}; it must be a list of nodes.")
    wanted = _below(result)
    strange = [node for node in order if node not in wanted] if len(wanted) < 100 else []
    if strange:
        raise WrongAnswer(f"The list holds {strange[0]!r}, which {result} was not made from.")
    if len(order) != len(set(order)):
        twice = next(node for i, node in enumerate(order) if node in order[:i])
        raise WrongAnswer(f"The list holds {twice} more than once; look whether a node is there before you add it.")
    if len(order) != len(wanted):
        raise WrongAnswer(f"The list holds {len(order)} nodes; {result} was made from {len(wanted)}, itself included.")
    place = {node: i for i, node in enumerate(order)}
    for node in order:
        for parent in node.parents:
            if place[parent] < place[node]:
                raise WrongAnswer(
                    f"{parent} (place {place[parent]}) comes before {node} (place {place[node]}), which was made "
                    "from it. Add a node to a list after all of its parents, and turn the list round in the end."
                )


def _check_gradients(answer: Any) -> None:
    rng = np.random.default_rng(3)
    for size in (1, 2, 4, 8, 30):
        nodes = _graph(rng, size)
        wanted = dict.fromkeys(nodes, 0.0)
        wanted[nodes[-1]] = 1.0
        for node in reversed(nodes):  # they were made in this order, so that its reverse is a legal one
            for parent, slope in zip(node.parents, node.slopes, strict=True):
                wanted[parent] += wanted[node] * slope
        found = answer(nodes[-1])
        if not isinstance(found, dict):
            raise WrongAnswer(f"gradients(...) is a {type(found).__name__}; it must be a dict from node to number.")
        for node in _below(nodes[-1]):
            if node not in found:
                raise WrongAnswer(f"There is no gradient of {node}, which {nodes[-1]} was made from.")
            hint = f"It is the sum of gradient times slope over all uses of {node}, twice if it is used twice."
            expect(found[node], wanted[node], f"the gradient of {node} in a graph of {size} nodes", hint)


EXERCISES = [
    Exercise(
        name="eager_gradient",
        question="""eager_gradient: dc/da as the walk *eager* finds it for b = a + a; c = b + b, at any a. A
number. (The right gradient is 4.)""",
        start="eager_gradient = ...\n",
        solution="eager_gradient = 2 * 1 + 2 * 2  # b hands on twice: its gradient is 1 at first, then 2\n",
        wrong=["eager_gradient = 4\n", "eager_gradient = 2\n", "eager_gradient = 8\n"],
        check=_check_eager,
    ),
    Exercise(
        name="quotient",
        question="""quotient(a, b): for numbers, what a division notes: a pair of the value a / b and the
tuple of its slopes with respect to a and to b.""",
        start="""
def quotient(a, b):
    ...
""",
        solution="""
def quotient(a, b):
    return a / b, (1 / b, -a / b**2)
""",
        wrong=[
            "def quotient(a, b):\n    return a / b, (1 / b, a / b**2)\n",
            "def quotient(a, b):\n    return a / b, (1 / b, 1 / a)\n",
            "def quotient(a, b):\n    return a / b\n",
        ],
        check=_check_quotient,
    ),
    Exercise(
        name="topological_order",
        question="""topological_order(result): a list of all nodes that `result` was made from, itself
included, each once, and each before its parents. A node has `.parents`, a tuple of nodes, in which a node may
stand twice. The graph may be 10,000 nodes deep, too deep for a function that calls itself.""",
        start="""
def topological_order(result):
    order = []
    ...
    return order
""",
        solution="""
def topological_order(result):
    order, seen, stack = [], set(), [(result, False)]
    while stack:
        node, parents_are_listed = stack.pop()
        if parents_are_listed:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)
    return order[::-1]
""",
        wrong=[
            """
def topological_order(result):  # as they are met
    order, stack = [], [result]
    while stack:
        node = stack.pop()
        if node not in order:
            order.append(node)
            stack.extend(node.parents)
    return order
""",
            """
def topological_order(result):  # every route
    order, stack = [], [result]
    while stack:
        node = stack.pop(0)
        order.append(node)
        stack.extend(node.parents)
        if len(order) > 100:
            break
    return order
""",
            """
def topological_order(result):  # the wrong way round
    order = []
    while result.parents:
        order.append(result)
        result = result.parents[0]
    return [result] + order[::-1]
""",
        ],
        check=_check_order,
    ),
    Exercise(
        name="gradients",
        question="""gradients(result): a dict that gives, for every node that `result` was made from, the
derivative of `result` with respect to it (1 for `result` itself). A node has `.parents` and, beside them,
`.slopes`. You may use topological_order.""",
        start="""
def gradients(result):
    ...
""",
        solution="""
def gradients(result):
    uses, stack = {result: 0}, [result]  # another way to wait: count those who have not handed on yet
    while stack:
        for parent in stack.pop().parents:
            if parent not in uses:
                uses[parent] = 0
                stack.append(parent)
            uses[parent] += 1
    found, complete = dict.fromkeys(uses, 0.0), [result]
    found[result] = 1.0
    while complete:
        node = complete.pop()
        for parent, slope in zip(node.parents, node.slopes):
            found[parent] += found[node] * slope
            uses[parent] -= 1
            if uses[parent] == 0:
                complete.append(parent)
    return found
""",
        wrong=[
            """
def gradients(result):  # eager
    found = {result: 1.0}
    def walk(node):
        for parent, slope in zip(node.parents, node.slopes):
            found[parent] = found.get(parent, 0.0) + found[node] * slope
            walk(parent)
    walk(result)
    return found
""",
            """
def gradients(result):  # replaces where it should add
    found, queue = {result: 1.0}, [result]
    while queue:
        node = queue.pop(0)
        for parent, slope in zip(node.parents, node.slopes):
            found[parent] = found[node] * slope
            queue.append(parent)
    return found
""",
            "def gradients(result):\n    return {result: 1.0}\n",
        ],
        check=_check_gradients,
    ),
]
