"""The walk back through the graph: from outputs to inputs, each node handed the finished sum of its gradients.

`backward` and `grad` walk the nodes from the outputs to the inputs in reverse topological order, and hand each node the
finished sum of the gradients of its output.

Why topological order? In `b = a + a; c = b * b`, c reaches b along two paths. A walk that followed each path as it
came would push b's first half-finished gradient on to a, then the second, and with it the first once more if it were
added up: a node must wait until everything that uses it has reported. In reverse topological order it always has.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..backend import Array, is_array, kernels_for
from ..ops import Part, Recipe, array_ops
from .state import changed, state
from .tensor import Node, Tensor, check_finite, source_of, tensor_ops

USED = (
    "backward: adds to gradients by which an optimiser has taken a step already, so that the next step would take them "
    "again; call zero_grad() before each backward()"
)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of `outputs` (weighted by `grad_outputs`) with respect to `inputs`, leaving `.grad` alone.

    With `create_graph` the result can be differentiated again. An input that no output depends on raises ValueError,
    or gives None with `allow_unused`.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    weights = list(grad_outputs) if isinstance(grad_outputs, list | tuple) else [grad_outputs] * len(outputs)
    if len(weights) != len(outputs):
        raise ValueError(f"grad: {len(outputs)} outputs but {len(weights)} grad_outputs")
    for i, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise ValueError(f"grad: input {i} does not require a gradient; create it with requires_grad=True")
    found = walk(outputs, weights, inputs, create_graph if retain_graph is None else retain_graph, create_graph)
    unused = [i for i, gradient in enumerate(found) if gradient is None]
    if unused and not allow_unused:
        raise ValueError(
            f"grad: the outputs do not depend on input {unused[0]}; pass allow_unused=True to get None for it"
        )
    return tuple(found)


def _start_gradient(output: Tensor, gradient: Any) -> Array:
    """The gradient to start the walk with: ones for a scalar, else the one given, checked."""
    if not output.requires_grad:
        raise ValueError(
            "backward: this Tensor has no history; some input must have requires_grad=True (outside "
            "no_grad), and what is computed from .data or .numpy() leaves the graph"
        )
    if gradient is None:
        if output.size != 1:
            raise ValueError(
                f"backward: the Tensor has shape {output.shape}, not a single value; reduce it with .sum() or .mean(), "
                "or pass gradient= of that shape"
            )
        return kernels_for(output.data).xp.ones_like(output.data)
    data = (
        gradient.data if isinstance(gradient, Tensor) else kernels_for(output.data).xp.asarray(gradient, output.dtype)
    )
    if data.shape != output.shape:
        raise ValueError(f"backward: gradient has shape {data.shape}, the Tensor {output.shape}; they must be equal")
    return data.astype(output.dtype, copy=False)


def reverse_topological(roots: Sequence[Node]) -> list[Node]:
    """All nodes that the roots were computed from, each after every node that uses it. Iterative: any depth goes."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in roots]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents if isinstance(parent, Node))
    return order[::-1]


def walk(
    outputs: Sequence[Tensor], weights: Sequence[Any], inputs: Sequence[Tensor] | None, retain: bool, record: bool,
    on_gradient: Callable[[Tensor, Tensor], bool] | None = None,
) -> list[Tensor | None]:  # fmt: skip
    """Carry gradients from the outputs back; into `.grad` of the leaves, or (with `inputs`) into the returned list."""
    pending: dict[int, Any] = {}  # gradient so far of each node's output, and of each leaf; local to this walk
    leaves: dict[int, Tensor] = {}
    results: dict[int, Any] = {}
    wanted = {id(source_of(t)) for t in inputs} if inputs is not None else set()

    uses: dict[int, int] = {}  # how many gradients a leaf still waits for
    owned_by_walk: set[int] = set()  # targets whose pending gradient's memory is nobody else's

    def accumulate(target: Node | Tensor, gradient: Any, owned: bool = False) -> None:
        key = id(target)
        if key not in pending:
            pending[key] = gradient
        elif record:
            pending[key], owned = pending[key] + gradient, True
        else:
            pending[key], owned = _sum((gradient, owned), (pending[key], key in owned_by_walk)), True
        if owned:
            owned_by_walk.add(key)
        if isinstance(target, Tensor):
            leaves[key] = target

    def finish(leaf: Tensor) -> None:
        key = id(leaf)
        gradient = _run_hooks(leaf._hooks, _whole(pending.pop(key)), record)
        if inputs is None:
            as_tensor = _own(gradient, handed_out)
            if on_gradient is None or not on_gradient(leaf, as_tensor):
                if leaf.grad is not None and leaf.grad._used:
                    warnings.warn(USED, stacklevel=4)
                leaf.grad = as_tensor if leaf.grad is None else leaf.grad + as_tensor
            else:  # the gradient may now be released, and its number belong to another array
                handed_out.discard(memory_of(as_tensor.data))
        elif key in wanted:
            results[key] = gradient

    handed_out: set[int] = set()
    with changed(recording=record, module_path=state.module_path):
        for output, weight in zip(outputs, weights, strict=True):
            start = _start_gradient(output, weight)
            handed_out.add(memory_of(start))
            keep_history = record and isinstance(weight, Tensor)
            accumulate(source_of(output), weight if keep_history else Tensor(start) if record else start)
        order = reverse_topological([t.node for t in outputs if t.node is not None])
        for target in itertools.chain(*(node.parents for node in order), map(source_of, outputs)):
            if isinstance(target, Tensor):
                uses[id(target)] = uses.get(id(target), 0) + 1
        for node in order:
            gy = pending.pop(id(node), None)
            if gy is None:
                continue
            if isinstance(gy, Part):
                gy = gy.whole()
                owned_by_walk.add(id(node))
            gy = _run_hooks(node.hooks, gy, record)
            if id(node) in wanted:
                results[id(node)] = gy
            owned = id(node) in owned_by_walk and not node.hooks and id(node) not in wanted and not state.anomaly
            state.module_path = node.path
            given = [gy]
            if not state.anomaly:
                del gy
            gradients = node.gradients(given, record, retain, owned)
            if state.anomaly:
                gradients = [_whole(g) for g in gradients]
                data = [g.data if record and g is not None else g for g in gradients]
                for g in (g for g in data if g is not None):
                    check_finite(g, [gy.data if record else gy], f"the gradient of '{node.op.name}'", node.path)
            for i, (parent, gradient) in enumerate(zip(node.parents, gradients, strict=True)):
                fitting = None
                if parent is not None:
                    fitting = _fit(gradient, node.shapes[i], node.dtypes[i], record)
                    accumulate(parent, fitting, node.op.owns_gradients or fitting is not gradient)
                if isinstance(parent, Tensor):
                    uses[id(parent)] -= 1
                    if not uses[id(parent)]:
                        finish(leaves.pop(id(parent)))
            del gradients, gradient, fitting
        for leaf in leaves.values():  # outputs that are leaves, and leaves with uses that no gradient reached
            finish(leaf)
        found = [results.get(id(source_of(t))) for t in inputs or ()]
        return [None if g is None else _own(g, handed_out) for g in found]


def _sum(*addends: tuple[Any, bool]) -> Array:
    """The sum of two gradients, each with whether its memory may be written to; in place if possible."""
    for (total, owned), (other, _) in (addends, addends[::-1]):
        if owned and not isinstance(total, Part) and total.ndim:  # NumPy gives sums without axes as scalars
            into, added = (total[other.index], other.array) if isinstance(other, Part) else (total, other)
            kernels_for(total).add_into(into, added)
            return total
    return _whole(addends[1][0]) + _whole(addends[0][0])


def _whole(gradient: Any) -> Any:
    return gradient.whole() if isinstance(gradient, Part) else gradient


def _own(gradient: Any, handed_out: set[int]) -> Tensor:
    """As a Tensor that may be changed: copied if its memory is also the caller's or another's, or a broadcast view."""
    data = gradient.data if isinstance(gradient, Tensor) else gradient
    shared = memory_of(data) in handed_out or 0 in data.strides
    handed_out.add(memory_of(data))
    if isinstance(gradient, Tensor):
        return gradient * 1.0 if shared else gradient
    # A freed gradient's id may come again, so a copy must not show: the memory order decides which kernel updates.
    return Tensor(data.copy(order="K") if shared else data)


def memory_of(array: Array) -> int:
    """What the array's memory belongs to: views of one array give the same number."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return id(array)


def saved_arrays(saved: Mapping[str, Any]) -> Iterator[Array]:
    """The arrays among the values that an operation keeps, also those within lists; not what would be made again."""
    for value in saved.values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if is_array(item) and not isinstance(item, Recipe):
                yield item


def not_seen(arrays: Iterable[Array], seen: set[int]) -> Iterator[Array]:
    """Those whose memory (`memory_of`) is not in `seen`, which takes it up: each piece of memory comes once."""
    for array in arrays:
        if memory_of(array) not in seen:
            seen.add(memory_of(array))
            yield array


def _run_hooks(hooks: Sequence[Callable[[Tensor], Tensor | None]], gradient: Any, record: bool) -> Any:
    for hook in list(hooks):
        replaced = hook(gradient if record else Tensor(gradient))
        if replaced is not None:
            gradient = replaced if record else replaced.data
    return gradient


def _fit(gradient: Any, shape: Any, dtype: Any, record: bool) -> Any:
    """Undo broadcasting and type promotion: the one place where a gradient takes on its input's shape and type."""
    ops: Any = tensor_ops if record else array_ops
    if gradient.dtype != dtype:
        gradient = _whole(gradient)
    if gradient.shape != shape:
        gradient = ops.sum_to(gradient, shape=shape)
    return gradient if gradient.dtype == dtype else ops.cast(gradient, dtype=dtype)
