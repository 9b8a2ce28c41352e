"""Counting what functions compute and what they keep: an array that counts, and a look at what a graph holds.

Counted are the operations of the NumPy reference on floating-point values: one for each value that a ufunc makes (a
sum, a product, a comparison, an exponential: all alike), k for a sum or a maximum over k values, 2 k - 1 for an element
of a matrix product over k. Copies, changes of type and work on masks and indices alone count nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special

from minitorch_unet.backend import kernels_for
from minitorch_unet.ops import Recipe
from minitorch_unet.tensor import Node, Tensor, grad

count = 0


class Counting(np.ndarray):
    """An array whose arithmetic adds to `count`, as does that of every array made from it."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        global count
        plain = [np.asarray(a) if isinstance(a, Counting) else a for a in inputs]
        if how.get("out"):
            how["out"] = tuple(np.asarray(a) if isinstance(a, Counting) else a for a in how["out"])
        made = getattr(ufunc, method)(*plain, **how)
        arrays = [a for a in (*plain, made) if isinstance(a, np.ndarray | np.generic)]
        if any(a.dtype.kind == "f" for a in arrays):
            if method == "reduce":
                count += plain[0].size
            elif method == "at":
                count += np.size(plain[2])
            elif ufunc is np.matmul:
                count += np.size(made) * (2 * plain[0].shape[-1] - 1)
            else:
                count += np.size(made)
        return counting(made)

    def argmax(self, *arguments: Any, **how: Any) -> Any:
        global count
        count += self.size
        return super().argmax(*arguments, **how)

    def argmin(self, *arguments: Any, **how: Any) -> Any:
        global count
        count += self.size
        return super().argmin(*arguments, **how)

    def __array_function__(self, function: Any, types: Any, arguments: Any, how: Any) -> Any:
        global count
        made = super().__array_function__(function, types, arguments, how)
        if function is np.tensordot:  # of a matrix, see IndexAdd
            count += np.size(made) * (2 * arguments[0].shape[1] - 1)
        return made


def counting(array: Any) -> Any:
    """The same array, counting, if it is one."""
    return array.view(Counting) if isinstance(array, np.ndarray) else array


class CountingNumpy:
    """NumPy whose functions give arrays that count."""

    cupyx = SimpleNamespace(scipy=SimpleNamespace(special=scipy.special))  # where the reference looks for erf

    def __getattr__(self, name: str) -> Any:
        found = getattr(np, name)
        if isinstance(found, np.ufunc | type) or not callable(found):
            return found
        return lambda *arguments, **how: counting(found(*arguments, **how))


@contextmanager
def counted() -> Iterator[None]:
    """Within it the reference's routines work on arrays that count; `count` starts at 0."""
    global count
    kernels = kernels_for(np.zeros(1))
    xp, empty = kernels.xp, kernels._empty
    kernels.xp, kernels._empty = CountingNumpy(), lambda *how: counting(empty(*how))
    count = 0
    try:
        yield
    finally:
        kernels.xp, kernels._empty = xp, empty


def operations(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[int, int]:
    """Operations of one call, forward and backward, all gradients wanted that the arguments ask for."""
    with counted():
        given = {name: _counting_argument(value) for name, value in arguments.items()}
        result = main_result(function(**given))
        forward = count
        leaves = [t for t in tensors_of(given) if t.requires_grad]
        if not leaves or not result.requires_grad:
            return forward, 0
        # A Tensor as weight lets the walk begin with an array that counts.
        grad(result, leaves, Tensor(counting(np.ones(result.shape))), allow_unused=True)
        return forward, count - forward


def _counting_argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Tensor(counting(value.data), requires_grad=value.requires_grad)
    return [_counting_argument(v) for v in value] if isinstance(value, list) else counting(value)


def main_result(made: Any) -> Tensor:
    """The result, or the first of several."""
    return made[0] if isinstance(made, tuple) else made


def tensors_of(arguments: dict[str, Any]) -> list[Tensor]:
    """The Tensors among the arguments and in lists among them."""
    parts = [v if isinstance(v, list) else [v] for v in arguments.values()]
    return [t for part in parts for t in part if isinstance(t, Tensor)]


def kept(result: Tensor, arguments: dict[str, Any]) -> tuple[set[str], int]:
    """What the graph of `result` holds on to: names of arguments and "result", and bytes of anything else."""
    owners: dict[int, str] = {id(_root(result.data)): "result"}
    for name, value in arguments.items():
        for part in value if isinstance(value, list) else [value]:
            data = part.data if isinstance(part, Tensor) else part
            if isinstance(data, np.ndarray):
                owners[id(_root(data))] = name
    names, others = set(), {}
    for node in _nodes(result):
        for array in _arrays(list(node.ctx.saved.values()) if node.ctx else []):
            root = _root(array)
            if id(root) in owners:
                names.add(owners[id(root)])
            elif root.size > 1:
                others[id(root)] = root.nbytes
    return names, sum(others.values())


def _nodes(result: Tensor) -> list[Node]:
    found: dict[int, Node] = {}
    ahead = [result.node]
    while ahead:
        node = ahead.pop()
        if isinstance(node, Node) and id(node) not in found:
            found[id(node)] = node
            ahead += node.parents
    return list(found.values())


def _arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, Recipe):
        yield from _arrays(value.arrays)


def _root(array: np.ndarray) -> np.ndarray:
    """The array that the memory belongs to."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
