"""Tensor: an array that remembers how it was computed; and Node, one step of that history.

Every operation on Tensors goes through `apply`, which makes a `Node`: which op, what it kept, and the nodes of its
inputs. The walk back through them is in walk.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import (
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
from ..ops import OPS, Context, Op, Recipe, array_ops
from .state import NonFiniteError, state

CPU_KINDS, GPU_KINDS = (1, 3), (2, 13)  # DLPack's device types: CPU and pinned; CUDA and managed


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
        self.parents = [source_of(t) if need else None for t, need in zip(inputs, ctx.needs, strict=True)]
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
            if state.profiler is not None:
                return state.profiler.run_backward(self, kept, given)
            return self.op.backward(kept, given.pop())
        as_tensors: dict[str, Any] = {}
        for name, i in self.saved_inputs.items():
            parent = self.parents[i]
            data = ctx.saved[name]
            data = data.make() if isinstance(data, Recipe) else data
            as_tensors[name] = parent if isinstance(parent, Tensor) else Tensor._from_node(data, parent)
        for name in self.saved_output:
            as_tensors[name] = Tensor._from_node(ctx.saved[name], self)
        kept = ctx.for_backward(tensor_ops, owned=False, **as_tensors)
        if state.profiler is not None:
            return state.profiler.run_backward(self, kept, given)
        return self.op.backward(kept, given.pop())


def source_of(tensor: Tensor) -> Node | Tensor:
    """What made a Tensor: its node, or the Tensor itself if it is a leaf."""
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
    plain = {key: _constant(value) for key, value in params.items()}
    if state.profiler is not None:
        made = state.profiler.run_forward(op, ctx, arrays, plain)
    else:
        made = op.forward(ctx, *arrays, **plain)
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
        check_finite(out, [a for a in operands if is_floating(a.dtype)], f"the result of '{name}'", state.module_path)
    return result


def _plain(index: Any) -> Any:
    """An index with the arrays of the Tensors in it."""
    if isinstance(index, tuple):
        return tuple(part.data if isinstance(part, Tensor) else part for part in index)
    return index.data if isinstance(index, Tensor) else index


def _constant(value: Any) -> Any:
    """NumPy scalars become Python numbers, which take on the type of the array they meet."""
    return value.item() if isinstance(value, np.generic) else value


class _TensorOps:
    """Calls any op on Tensors, recording it: what `ctx.ops` is while a backward rule is itself being recorded."""

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        return lambda *inputs, **params: apply(name, *inputs, **params)


tensor_ops = _TensorOps()


def check_finite(value: Array, sources: Sequence[Array], what: str, path: str) -> None:
    """Raise NonFiniteError if `value` holds NaN or infinity though its sources hold none: `what` it is, and where."""
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
    _used = False  # of a gradient: an optimiser has taken a step by it

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

    def _repr_html_(self) -> str:
        """In a notebook: facts, and a picture of what has two axes; of a large Tensor a sample."""
        from ..notebook import tensor_html

        return tensor_html(self)

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
        """See `functional.matmul`."""
        if self.ndim == 0 or other.ndim == 0:
            raise ValueError("matmul: both arguments need at least one axis")
        a = self.reshape(1, -1) if self.ndim == 1 else self
        b = other.reshape(-1, 1) if other.ndim == 1 else other
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(
                f"matmul: shapes {self.shape} and {other.shape}: inner sizes {a.shape[-1]} and {b.shape[-2]} differ"
            )
        y = apply("matmul", a, b)
        kept = y.shape[:-2] + (y.shape[-2:-1] if self.ndim > 1 else ()) + (y.shape[-1:] if other.ndim > 1 else ())
        return y if kept == y.shape else y.reshape(kept)

    def __getitem__(self, index: Any) -> Tensor:
        return apply("getitem", self, index=_plain(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.requires_grad and (self.node is not None or state.recording):
            raise ValueError(
                "setitem: this Tensor is part of a graph, and a change in place would falsify its gradient; build a "
                "new Tensor with where() or cat(), or assign inside `with no_grad():` to a Tensor without history"
            )
        if state.recording and isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                "setitem: the value is part of a graph, which the assignment would forget; build a new Tensor with "
                "where() or cat(), or assign value.detach()"
            )
        self.data[_plain(index)] = value.data if isinstance(value, Tensor) else value
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
        from .walk import walk  # which is about Tensors, and so cannot be imported before this class is there

        walk([self], [gradient], None, retain_graph or create_graph, create_graph, on_gradient)


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
