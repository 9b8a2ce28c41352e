"""Tensor: an array that remembers how it was computed, and the walk back through that history.

Every operation on Tensors makes a `Node`: which op, what it kept, and the nodes of its inputs. `backward` and `grad`
walk these nodes from the outputs to the inputs in reverse topological order, and hand each node the finished sum of
the gradients of its output.

Why topological order? In `b = a + a; c = b * b`, c reaches b along two paths. A walk that followed each path as it
came would push b's first half-finished gradient on to a, then the second, and with it the first once more if it were
added up: a node must wait until everything that uses it has reported. In reverse topological order it always has.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .backend import (
    Array,
    check_device,
    device_of,
    is_array,
    is_device,
    is_floating,
    kernels_for,
    library,
    named_dtype,
    to_device,
    to_numpy,
)
from .ops import OPS, Context, Op, Part, Recipe, array_ops

CPU_KINDS, GPU_KINDS = (1, 3), (2, 13)  # DLPack's device types: CPU and pinned; CUDA and managed


class NonFiniteError(FloatingPointError):
    """Raised in anomaly mode at the first operation that turns finite numbers into NaN or infinity."""


class _State(threading.local):
    """Per thread: is the graph recorded, are results remade, anomaly mode on, modules named, and which one runs."""

    recording = True
    remaking = False
    anomaly = False
    naming = False
    module_path = ""
    module_names: dict[int, str] | None = None


state = _State()


@contextlib.contextmanager
def _set(**values: Any) -> Iterator[None]:
    before = {name: getattr(state, name) for name in values}
    vars(state).update(values)
    try:
        yield
    finally:
        vars(state).update(before)


def no_grad() -> contextlib.AbstractContextManager[None]:
    """Within `with no_grad():` (or a function decorated with `@no_grad()`) no history is kept."""
    return _set(recording=False)


def enable_grad() -> contextlib.AbstractContextManager[None]:
    """Within `with enable_grad():` history is kept again, also inside `no_grad`."""
    return _set(recording=True)


def remade(on: bool = True) -> contextlib.AbstractContextManager[None]:
    """Within `with remade():` whatever keeps a result for its backward rule keeps the way to make it again instead.

    To save memory with operations that are quickly done and whose inputs are kept anyway: a pooled map is remade from
    the map, an upsampled one by its up-convolution. The same routine runs on the same arrays, so no bit changes.
    """
    return _set(remaking=on)


def is_grad_enabled() -> bool:
    """Whether operations on Tensors are being recorded."""
    return state.recording


def detect_anomaly() -> contextlib.AbstractContextManager[None]:
    """Check every result and gradient; raise NonFiniteError naming op, module and element of the first bad one."""
    return _set(anomaly=True, naming=True)


def named_operations() -> contextlib.AbstractContextManager[None]:
    """Within it each operation knows the path of its module: `state.module_path`, in the backward pass, too."""
    return _set(naming=True)


def module_scope(path: str, names: dict[int, str]) -> contextlib.AbstractContextManager[None]:
    """Within it, operations belong to the module at `path`; `names` holds the paths of all modules below the root."""
    return _set(module_path=path, module_names=names)


class Node:
    """One recorded operation: the op, its ctx, and for each input the Node (or leaf Tensor) it came from."""

    __slots__ = (
        "ctx",
        "dtypes",
        "hooks",
        "op",
        "parents",
        "path",
        "saved_inputs",
        "saved_output",
        "shapes",
        "versions",
    )

    def __init__(self, op: type[Op], ctx: Context, inputs: Sequence[Any], arrays: Sequence[Any], out: Array) -> None:
        self.op = op
        self.ctx: Context | None = ctx
        self.parents = [_source(t) if need else None for t, need in zip(inputs, ctx.needs, strict=True)]
        self.shapes = [a.shape if need else None for a, need in zip(arrays, ctx.needs, strict=True)]
        self.dtypes = [a.dtype if need else None for a, need in zip(arrays, ctx.needs, strict=True)]
        self.hooks: list[Callable[[Tensor], Tensor | None]] = []
        self.path = state.module_path
        # Which saved values are inputs or the output themselves: a recorded backward must see those as Tensors,
        # and an in-place change between forward and backward would falsify them.
        self.saved_inputs: dict[str, int] = {}
        self.saved_output: list[str] = []
        self.versions: list[tuple[list[int], int]] = []
        for name, value in list(ctx.saved.items()):
            if value is out and value is not None:
                self.saved_output.append(name)
            used = value.arrays if isinstance(value, Recipe) else (value,)
            for i, (t, a) in enumerate(zip(inputs, arrays, strict=True)):
                if not isinstance(t, Tensor) or not any(a is array for array in used):
                    continue
                self.versions.append((t._version, t._version[0]))
                if value is a:
                    self.saved_inputs[name] = i
                    if t._recipe is not None:
                        ctx.saved[name] = t._recipe
                        self.versions += t._recipe.versions

    def gradients(self, given: list[Any], record: bool, retain: bool, owned: bool) -> Sequence[Any]:
        """The op's backward rule applied to the gradient in the list: an array, or with `record` a Tensor.

        The gradient is taken out of the list and, unless `retain`, the kept values out of this node: the rule then
        holds the only references, and can release large arrays as soon as it has no more use for them. `owned` tells it
        (as `ctx.owned`) that the gradient's memory is nobody else's, and may be overwritten.
        """
        if self.ctx is None:
            raise ValueError(
                f"backward: the values kept by '{self.op.name}' are gone, because this graph was walked before; call "
                "the first backward or grad with retain_graph=True, or compute the loss again"
            )
        for cell, version in self.versions:
            if cell[0] != version:
                raise ValueError(
                    f"backward: a value kept by '{self.op.name}' was changed in place after it was used; "
                    "change a copy, or call backward before the change"
                )
        ctx = self.ctx
        if not retain:
            self.ctx = None
        if not record:
            kept = ctx.for_backward(array_ops, owned=owned)
            del ctx
            return self.op.backward(kept, given.pop())
        as_tensors: dict[str, Any] = {}
        for name, i in self.saved_inputs.items():
            parent = self.parents[i]
            data = ctx.saved[name]
            data = data.make() if isinstance(data, Recipe) else data
            as_tensors[name] = parent if isinstance(parent, Tensor) else Tensor._from_node(data, parent)
        for name in self.saved_output:
            as_tensors[name] = Tensor._from_node(ctx.saved[name], self)
        return self.op.backward(ctx.for_backward(tensor_ops, owned=False, **as_tensors), given.pop())


def _source(tensor: Tensor) -> Node | Tensor:
    return tensor.node if tensor.node is not None else tensor


def apply(name: str, *inputs: Any, **params: Any) -> Tensor:
    """Run the op `name` on Tensors (numbers, arrays, None pass as constants); record it if a gradient is wanted."""
    op = OPS[name]
    arrays = [t.data if isinstance(t, Tensor) else _constant(t) for t in inputs]
    needs = tuple(state.recording and isinstance(t, Tensor) and t.requires_grad for t in inputs)
    operands = [a for a in arrays if hasattr(a, "dtype")]
    devices = {device_of(a) for a in operands}
    if len(devices) > 1:
        raise ValueError(
            f"{name}: inputs are on different devices ({', '.join(sorted(devices))}); move them with .to(device)"
        )
    remaking = state.remaking and any(needs)
    ctx = Context(kernels_for(operands[0]), needs, array_ops, remaking)
    made = op.forward(ctx, *arrays, **{key: _constant(value) for key, value in params.items()})
    out = ctx.xp.asarray(made)
    if out is not made:  # NumPy turns results without axes into scalars: what is kept of them is still the output
        ctx.saved.update({kept: out for kept, value in ctx.saved.items() if value is made})
    result = Tensor(out)
    for t, a in zip(inputs, arrays, strict=True):
        if isinstance(t, Tensor) and (out is a or (out.base is not None and (out.base is a or out.base is a.base))):
            result._version = t._version  # a view: a change in place concerns both
    if any(needs):
        result.node = Node(op, ctx, inputs, arrays, out)
        result.requires_grad = True
    if remaking:
        tensors = [t if isinstance(t, Tensor) else None for t in inputs]
        kept = [a if t is None or t._recipe is None else t._recipe for t, a in zip(tensors, arrays, strict=True)]
        result._recipe = Recipe(lambda *again: getattr(array_ops, name)(*again, **params), *kept)
        result._recipe.versions = [(t._version, t._version[0]) for t in tensors if t is not None]
    if state.anomaly:
        _check_finite(out, [a for a in operands if is_floating(a.dtype)], f"the result of '{name}'", state.module_path)
    return result


def _constant(value: Any) -> Any:
    """NumPy scalars become Python numbers, which take on the type of the array they meet."""
    return value.item() if isinstance(value, np.generic) else value


class _TensorOps:
    """Calls any op on Tensors, recording it: what `ctx.ops` is while a backward rule is itself being recorded."""

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        return lambda *inputs, **params: apply(name, *inputs, **params)


tensor_ops = _TensorOps()


def _check_finite(value: Array, sources: Sequence[Array], what: str, path: str) -> None:
    xp = kernels_for(value).xp
    if not is_floating(value.dtype) or xp.isfinite(value).all() or not all(bool(xp.isfinite(s).all()) for s in sources):
        return
    first = tuple(int(i) for i in np.unravel_index(int(xp.argmin(xp.isfinite(value))), value.shape))
    where = f" in module '{path}'" if path else ""
    raise NonFiniteError(
        f"{what}{where} is {float(value[first])} at element {list(first)}, though its inputs are finite"
    )


class Tensor:
    """An array on one device, with an optional gradient.

    `data` is anything NumPy accepts (Python floats become float32), or a NumPy or CuPy array, which is used as it is,
    not copied. `requires_grad=True` asks for its gradient in `.grad` after `backward()`.
    """

    __array_ufunc__ = None  # NumPy leaves `array + tensor` to Tensor.__radd__

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> None:
        if isinstance(data, Tensor):
            data = data.data
        if not is_array(data):
            given = np.asarray(data)
            kept = isinstance(data, np.generic) or given.dtype != np.float64
            data = given if kept else given.astype(np.float32)
        if dtype is not None:
            data = data.astype(dtype, copy=False)
        if device is not None:
            data = to_device(data, device)
        if requires_grad and not is_floating(data.dtype):
            raise TypeError(f"Tensor: requires_grad needs a floating-point type, found {data.dtype}")
        self.data: Array = data
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self.node: Node | None = None
        self._version = [0]  # counts in-place changes; shared with views
        self._hooks: list[Callable[[Tensor], Tensor | None]] = []
        self._recipe: Recipe | None = None  # see `remade`

    @classmethod
    def _from_node(cls, data: Array, node: Any) -> Tensor:
        tensor = Tensor(data)
        tensor.node, tensor.requires_grad = node, node is not None
        return tensor

    # ------------------------------------------------------------- attributes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self.data.size

    @property
    def dtype(self) -> Any:
        """Type of the values, a NumPy dtype."""
        return self.data.dtype

    @property
    def device(self) -> str:
        """Where the values are: "cpu" or "cuda:N"."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """True for a Tensor that was not computed from others with history."""
        return self.node is None

    def numpy(self) -> np.ndarray:
        """The values in host memory; refuses a Tensor with history, which `.detach()` takes off. Raises as `item`."""
        if self.requires_grad:
            raise ValueError("numpy: this Tensor requires a gradient; call .detach().numpy()")
        values = to_numpy(self.data)
        kernels_for(self.data).check()
        return values

    def __dlpack__(self, **how: Any) -> Any:
        """The memory as a DLPack capsule, for `torch.from_dlpack(tensor)` and its like; not copied.

        Refuses a Tensor with history. Copied all the same if an axis runs backwards, which DLPack's takers refuse.
        """
        if self.requires_grad:
            raise BufferError("__dlpack__: this Tensor requires a gradient; hand over .detach()")
        backwards = any(stride < 0 for stride in self.data.strides)
        return (self.data.copy() if backwards else self.data).__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Type and number of the device in DLPack's terms: (1, 0) for the CPU, (2, N) for GPU N."""
        return self.data.__dlpack_device__()

    def item(self) -> float:
        """The single value as a Python number. Raises what kernels could not say earlier, see `Kernels.check`."""
        if self.size != 1:
            raise ValueError(f"item: a Tensor of shape {self.shape} holds {self.size} values; it must hold exactly one")
        value = self.data.item()
        kernels_for(self.data).check()
        return value

    def detach(self) -> Tensor:
        """The same data without history."""
        out = Tensor(self.data)
        out._version = self._version
        return out

    def to(self, target: Any) -> Tensor:
        """On another device ("cuda:1", "simulate"), or in another floating-point type; itself if nothing changes."""
        if is_device(target):
            moved = to_device(self.data, target)
            if moved is self.data:
                return self
            if self.node is not None:
                raise ValueError("to: only a leaf Tensor can change its device; move the inputs before computing")
            return Tensor(moved, self.requires_grad)
        dtype = named_dtype(target) if isinstance(target, str) else np.dtype(target)
        return self if self.dtype == dtype else apply("cast", self, dtype=dtype)

    def __repr__(self) -> str:
        text = np.array2string(to_numpy(self.data), separator=", ", threshold=100, prefix="Tensor(")
        history = f", from={self.node.op.name}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}, shape={self.shape}, dtype={self.dtype}, device={self.device}{history})"

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len: a Tensor without axes has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"bool: a Tensor of shape {self.shape} is neither true nor false; use .data with any() or all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    __hash__ = object.__hash__

    # -------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Tensor:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Tensor:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply("sub", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return apply("mul", self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply("mul", other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply("div", other, self)

    def __neg__(self) -> Tensor:
        return apply("neg", self)

    def __pow__(self, other: Any) -> Tensor:
        if isinstance(other, int | float | np.generic):
            return apply("pow_scalar", self, exponent=_constant(other))
        return apply("pow", self, other)

    def __matmul__(self, other: Any) -> Tensor:
        return apply("matmul", self, other)

    def __getitem__(self, index: Any) -> Tensor:
        parts = index if isinstance(index, tuple) else (index,)
        plain = tuple(part.data if isinstance(part, Tensor) else part for part in parts)
        return apply("getitem", self, index=plain if isinstance(index, tuple) else plain[0])

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.requires_grad and (self.node is not None or state.recording):
            raise ValueError(
                "setitem: this Tensor is part of a graph, and a change in place would falsify its gradient; build a "
                "new Tensor with where() or cat(), or assign inside `with no_grad():` to a Tensor without history"
            )
        self.data[index] = value.data if isinstance(value, Tensor) else value
        self._version[0] += 1

    def _compare(self, other: Any, how: Callable[[Any, Any], Any]) -> Tensor:
        return Tensor(how(self.data, other.data if isinstance(other, Tensor) else _constant(other)))

    def __eq__(self, other: Any) -> Any:
        return self._compare(other, lambda a, b: a == b)

    def __ne__(self, other: Any) -> Any:
        return self._compare(other, lambda a, b: a != b)

    def __lt__(self, other: Any) -> Tensor:
        return self._compare(other, lambda a, b: a < b)

    def __le__(self, other: Any) -> Tensor:
        return self._compare(other, lambda a, b: a <= b)

    def __gt__(self, other: Any) -> Tensor:
        return self._compare(other, lambda a, b: a > b)

    def __ge__(self, other: Any) -> Tensor:
        return self._compare(other, lambda a, b: a >= b)

    def __and__(self, other: Any) -> Tensor:
        return self._compare(other, lambda a, b: a & b)

    def __or__(self, other: Any) -> Tensor:
        return self._compare(other, lambda a, b: a | b)

    # ---------------------------------------------------------------- methods

    def sum(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """See functional.sum."""
        return apply("sum", self, axis=normal_axes("sum", dim, self.ndim), keepdims=keepdim)

    def mean(self, dim: int | tuple[int, ...] | None = None, keepdim: bool = False) -> Tensor:
        """See functional.mean."""
        axes = normal_axes("mean", dim, self.ndim)
        return apply("sum", self, axis=axes, keepdims=keepdim) * (
            1 / max(1, int(np.prod([self.shape[i] for i in axes])))
        )

    def reshape(self, *shape: Any) -> Tensor:
        """See functional.reshape."""
        return apply("reshape", self, shape=tuple(shape[0] if shape and isinstance(shape[0], tuple | list) else shape))

    def permute(self, *dims: Any) -> Tensor:
        """See functional.permute."""
        order = tuple(dims[0] if dims and isinstance(dims[0], tuple | list) else dims)
        return apply("permute", self, dims=normal_axes("permute", order, self.ndim))

    def swapaxes(self, dim0: int, dim1: int) -> Tensor:
        """The two axes exchanged: NumPy's name for functional.transpose, so that rules read alike on both."""
        order = list(range(self.ndim))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return apply("permute", self, dims=tuple(order))

    # --------------------------------------------------------------- gradients

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when this Tensor's gradient is complete; what it returns, if not None, replaces it.

        Returns a function that removes the hook.
        """
        if not self.requires_grad:
            raise ValueError(
                "register_hook: this Tensor does not require a gradient, so the hook would never be called"
            )
        hooks = self.node.hooks if self.node is not None else self._hooks
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    def backward(
        self, gradient: Any = None, retain_graph: bool = False, create_graph: bool = False,
        on_gradient: Callable[[Tensor, Tensor], bool] | None = None,
    ) -> None:  # fmt: skip
        """Add d(self)/d(leaf), times `gradient`, to `.grad` of every leaf that requires a gradient.

        `gradient` may be left out for a Tensor of one value. The kept values are freed on the way unless
        `retain_graph`; with `create_graph` the gradients themselves have a history. `on_gradient(leaf, gradient)` is
        called as soon as a leaf's gradient is complete; if it returns True, `.grad` stays as it is.
        Raises ValueError for a Tensor without history, a missing or misshapen gradient, a graph already walked.
        """
        _walk([self], [gradient], None, retain_graph or create_graph, create_graph, on_gradient)


def from_dlpack(source: Any) -> Tensor:
    """A Tensor on the memory of another library's array, not copied: `from_dlpack(torch_tensor)`.

    source has `__dlpack__` and `__dlpack_device__`; it lies on a CPU or, for CuPy, on a GPU. Raises TypeError for
    what has not, ValueError for other devices.
    """
    if isinstance(source, Tensor) or is_array(source):
        return source.detach() if isinstance(source, Tensor) else Tensor(source)
    if not hasattr(source, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: a {type(source).__name__} does not speak DLPack (it has no __dlpack_device__)")
    kind, number = source.__dlpack_device__()
    if kind in CPU_KINDS:
        return Tensor(np.from_dlpack(source))
    if kind not in GPU_KINDS:
        raise ValueError(f"from_dlpack: the array is on a device of type {kind}; legal are CPUs and CUDA GPUs")
    return Tensor(library(check_device(f"cuda:{number}")).from_dlpack(source))


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
    found = _walk(outputs, weights, inputs, create_graph if retain_graph is None else retain_graph, create_graph)
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
            "backward: this Tensor has no history; some input must have requires_grad=True (outside no_grad)"
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


def _reverse_topological(roots: Sequence[Node]) -> list[Node]:
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


def _walk(
    outputs: Sequence[Tensor], weights: Sequence[Any], inputs: Sequence[Tensor] | None, retain: bool, record: bool,
    on_gradient: Callable[[Tensor, Tensor], bool] | None = None,
) -> list[Tensor | None]:  # fmt: skip
    """Carry gradients from the outputs back; into `.grad` of the leaves, or (with `inputs`) into the returned list."""
    pending: dict[int, Any] = {}  # gradient so far of each node's output, and of each leaf; local to this walk
    leaves: dict[int, Tensor] = {}
    results: dict[int, Any] = {}
    wanted = {id(_source(t)) for t in inputs} if inputs is not None else set()

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
                leaf.grad = as_tensor if leaf.grad is None else leaf.grad + as_tensor
            else:  # the gradient may now be released, and its number belong to another array
                handed_out.discard(_memory(as_tensor.data))
        elif key in wanted:
            results[key] = gradient

    handed_out: set[int] = set()
    with _set(recording=record, module_path=state.module_path):
        for output, weight in zip(outputs, weights, strict=True):
            start = _start_gradient(output, weight)
            handed_out.add(_memory(start))
            keep_history = record and isinstance(weight, Tensor)
            accumulate(_source(output), weight if keep_history else Tensor(start) if record else start)
        order = _reverse_topological([t.node for t in outputs if t.node is not None])
        for target in itertools.chain(*(node.parents for node in order), map(_source, outputs)):
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
                    _check_finite(g, [gy.data if record else gy], f"the gradient of '{node.op.name}'", node.path)
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
        found = [results.get(id(_source(t))) for t in inputs or ()]
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
    shared = _memory(data) in handed_out or 0 in data.strides
    handed_out.add(_memory(data))
    if isinstance(gradient, Tensor):
        return gradient * 1.0 if shared else gradient
    # A freed gradient's id may come again, so a copy must not show: the memory order decides which kernel updates.
    return Tensor(data.copy(order="K") if shared else data)


def _memory(array: Array) -> int:
    """What the array's memory belongs to: views of one array give the same number."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return id(array)


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


def normal_axes(function: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """`dim` (None for all, a number or several, negative from the end) as a tuple of axes 0..ndim-1.

    Raises ValueError naming the function for an axis that does not exist or is named twice.
    """
    if dim is None:
        return tuple(range(ndim))
    dims = tuple(dim) if isinstance(dim, tuple | list) else (dim,)
    for d in dims:
        if not isinstance(d, int | np.integer) or not -ndim <= d < ndim:
            raise ValueError(f"{function}: dim is {d!r}; with {ndim} axes it must be from {-ndim} to {ndim - 1}")
    axes = tuple(int(d) % ndim for d in dims)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{function}: dim {dim} names an axis twice")
    return axes
