"""Modules: functions with parameters, found by walking attributes in the order in which they were set.

A Module's parameters are its attributes of type Parameter, its buffers the other Tensor attributes (running means),
its children the Modules among its attributes, also inside lists and tuples. Nothing is registered behind your back:
what is not an attribute after `__init__` is not trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import functional as F
from .backend import device_of, dry_running, is_device, is_floating, laid_out, memory, to_device, to_numpy
from .functional.norm import default_generator
from .functional.windows import PairLike, pair
from .tensor import Tensor, module_scope, state
from .tensor.state import changed

# Axes of a convolution's weight (K, C, R, S) in memory: (R, S, C, K) for the kernels of the processor, (K, R, S, C) for
# those of a GPU.
FILTER_ORDER = {"cpu": (2, 3, 1, 0), "cuda": (0, 2, 3, 1)}


class Parameter(Tensor):
    """A Tensor that an optimiser trains: an attribute of a Module."""

    def __init__(self, data: Any) -> None:
        super().__init__(data, requires_grad=True)
        if state.new_parameters is not None:
            state.new_parameters.append(self)


class Module:
    """Base of all modules: set attributes in `__init__`, compute in `forward`, call the module itself."""

    training = True

    def forward(self, *inputs: Any) -> Any:
        """Compute the output; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *inputs: Any) -> Any:
        """`forward`. Raises ValueError for parameters that it makes and forgets: no optimiser will ever know them."""
        if state.new_parameters is not None or not state.recording:
            return self._call(*inputs)
        with changed(new_parameters=[]):
            result = self._call(*inputs)
            if state.new_parameters:
                self._refuse_forgotten(state.new_parameters)
        return result

    def _refuse_forgotten(self, new: list[Parameter]) -> None:
        kept = {id(p) for p in self.parameters()}
        shapes = [str(p.shape) for p in new if id(p) not in kept]
        if shapes:
            raise ValueError(
                f"{type(self).__name__}: parameters of shape {', '.join(shapes[:4])} were made inside forward and are "
                "no attribute of a module: they are others at each call and are never trained; make the module in "
                "__init__ and keep it as an attribute"
            )

    def _call(self, *inputs: Any) -> Any:
        """`forward`, and the note of which module is running where it is asked for (`named_operations`)."""
        if not state.naming:
            return self.forward(*inputs)
        names = state.module_names
        if names is None or id(self) not in names:
            names = {id(module): name for name, module in self.named_modules()}
        with module_scope(names[id(self)] or type(self).__name__, names):
            return self.forward(*inputs)

    # ------------------------------------------------------------- what it holds

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Modules held directly, with the attribute's name; those in a list as `name.0`, `name.1`, ..."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{i}", item) for i, item in enumerate(value) if isinstance(item, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their paths; the root's own path is empty."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths, in the order in which they were set; a shared one only once."""
        seen: set[int] = set()
        for name, value in self._named_tensors():
            if isinstance(value, Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def parameters(self) -> list[Parameter]:
        """All parameters, in order."""
        return [p for _, p in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """All Tensors that belong to the state but are not trained, with their paths."""
        return ((name, value) for name, value in self._named_tensors() if not isinstance(value, Parameter))

    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(p.size for p in self.parameters())

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies in host memory of all parameters and buffers by path, in PyTorch's weight layouts, C-contiguous."""
        return {name: np.array(to_numpy(value.data), order="C") for name, value in self._named_tensors()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values in by path. Raises ValueError listing missing, unknown (if strict) and misshapen entries."""
        own = dict(self._named_tensors())
        faults = [f"{name} is missing" for name in own if strict and name not in state_dict]
        faults += [f"{name} is unknown" for name in state_dict if strict and name not in own]
        values = {name: np.asarray(state_dict[name]) for name in own if name in state_dict}
        faults += [
            f"{name} has shape {value.shape}, expected {own[name].shape}"
            for name, value in values.items()
            if value.shape != own[name].shape
        ]
        if faults:
            more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise ValueError(f"load_state_dict: {'; '.join(faults[:5])}{more}")
        for name, value in values.items():
            tensor = own[name]
            tensor.data[...] = to_device(value.astype(tensor.dtype, copy=False), tensor.device)
            tensor._version[0] += 1

    # ------------------------------------------------------------------- modes

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all below it to training (dropout on, batch statistics) or, with False, off it."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to prediction."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients; without this, backward adds to those of the last step."""
        for p in self.parameters():
            p.grad = None

    def to(self, target: Any) -> Module:
        """Move all parameters and buffers to a device, or change their floating-point type, in place.

        The weight of a convolution is laid out as the device's kernels read it. Make an optimiser after the move.
        """
        moving = is_device(target)
        for _, tensor in self._named_tensors():
            if moving or is_floating(tensor.dtype):
                data = tensor.detach().to(target).data
                if moving and isinstance(tensor, Parameter) and data.ndim == 4:
                    data = laid_out(data, FILTER_ORDER["cpu" if device_of(data) == "cpu" else "cuda"])
                if data is not tensor.data:
                    tensor.data, tensor.grad = data, None
        return self

    def __repr__(self) -> str:
        return "\n".join(self._tree(type(self).__name__, 0))

    def _repr_html_(self) -> str:
        """In a notebook: the tree as a table."""
        from .notebook import module_html

        return module_html(self)

    def _tree(self, title: str, depth: int) -> Iterator[str]:
        own = [f"{name} {value.shape}" for name, value in vars(self).items() if isinstance(value, Tensor)]
        count = self.parameter_count()
        yield "  " * depth + title + (f"  {', '.join(own)}" if own else "") + (f"  [{count:,}]" if count else "")
        for name, child in self.named_children():
            yield from child._tree(f"{name}: {child.describe()}", depth + 1)

    def describe(self) -> str:
        """Class name and settings on one line, as `repr` prints them."""
        plain = (int, float, str, bool, tuple)
        settings = [f"{k}={v}" for k, v in vars(self).items() if isinstance(v, plain) and not _holds_modules(v)]
        return f"{type(self).__name__}({', '.join(s for s in settings if not s.startswith('training='))})"


def _holds_modules(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(item, Module) for item in value)


class Sequential(Module):
    """Modules applied one after another; its children are named 0, 1, ..."""

    def __init__(self, *modules: Module) -> None:
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def forward(self, x: Any) -> Any:
        """The last module's output."""
        for _, module in self.named_children():
            x = module(x)
        return x


def he_normal(shape: Sequence[int], incoming: int, dtype: Any = np.float32) -> np.ndarray:
    """Gaussian weights with standard deviation sqrt(2 / incoming), drawn from the engine's generator.

    `incoming` is the number of values that one output value is a weighted sum of (He et al. 2015; Ronneberger et al.
    2015, section 3). A convolution's weight (K, C, R, S) is laid out (R, S, C, K) in memory, as its kernels read it.
    """
    order = FILTER_ORDER["cpu"] if len(shape) == 4 else tuple(range(len(shape)))
    laid_out = [shape[i] for i in order]
    if dry_running():  # zeros that the system gives no memory for
        return np.zeros(laid_out, dtype).transpose(np.argsort(order))
    values = memory.empty(tuple(laid_out), np.dtype(dtype)).transpose(np.argsort(order))
    scale = math.sqrt(2 / incoming)
    rows = max(1, (1 << 16) // max(1, math.prod(shape[1:])))  # a little at a time: drawn in float64, and not in order
    for first in range(0, shape[0], rows):
        part = values[first : first + rows]
        part[...] = default_generator.standard_normal(part.shape) * scale
    return values


def _bias(size: int, wanted: bool, dtype: Any) -> Parameter | None:
    return Parameter(np.zeros(size, dtype)) if wanted else None


class Linear(Module):
    """y = x weight^T + bias, weight (out_features, in_features). He initialisation, bias 0. See functional.linear."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = np.float32) -> None:
        self.weight = Parameter(he_normal((out_features, in_features), in_features, dtype))
        self.bias = _bias(out_features, bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """See functional.conv2d. weight (out, in/groups, R, S) by He initialisation with N = in/groups R S, bias 0."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: PairLike, stride: PairLike = 1,
        padding: PairLike | str = 0, dilation: PairLike = 1, groups: int = 1, bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        kernel = pair("Conv2d", "kernel_size", kernel_size, 1)
        _check_groups("Conv2d", in_channels, out_channels, groups)
        per_group = in_channels // groups
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = Parameter(he_normal((out_channels, per_group, *kernel), per_group * math.prod(kernel), dtype))
        self.bias = _bias(out_channels, bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, P, Q)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(Module):
    """See functional.conv_transpose2d. weight (in, out/groups, R, S), bias 0.

    He initialisation with N = the number of input values that reach one output value: in/groups times the kernel area
    over the stride area (in for the U-Net's 2x2 up-convolution with stride 2).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: PairLike, stride: PairLike = 1, padding: PairLike = 0,
        output_padding: PairLike = 0, groups: int = 1, bias: bool = True, dilation: PairLike = 1,
        dtype: Any = np.float32,
    ) -> None:  # fmt: skip
        kernel = pair("ConvTranspose2d", "kernel_size", kernel_size, 1)
        steps = pair("ConvTranspose2d", "stride", stride, 1)
        _check_groups("ConvTranspose2d", in_channels, out_channels, groups)
        incoming = max(1, in_channels // groups * math.prod(kernel) // math.prod(steps))
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.groups, self.dilation = groups, dilation
        self.weight = Parameter(he_normal((in_channels, out_channels // groups, *kernel), incoming, dtype))
        self.bias = _bias(out_channels, bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, P, Q) -> (N, out, H, W)."""
        return F.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


def _check_groups(name: str, in_channels: int, out_channels: int, groups: int) -> None:
    if min(in_channels, out_channels, groups) < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"{name}: in_channels {in_channels}, out_channels {out_channels}, groups {groups}: all must be at least 1 "
            "and groups must divide both"
        )


class MaxPool2d(Module):
    """See functional.max_pool2d."""

    def __init__(
        self, kernel_size: PairLike, stride: PairLike | None = None, padding: PairLike = 0, dilation: PairLike = 1,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, P, Q)."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool2d(Module):
    """See functional.avg_pool2d."""

    def __init__(self, kernel_size: PairLike, stride: PairLike | None = None, padding: PairLike = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, P, Q)."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


class Upsample(Module):
    """See functional.interpolate."""

    def __init__(self, scale_factor: float = 2, mode: str = "nearest") -> None:
        self.scale_factor, self.mode = scale_factor, mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H * scale_factor, W * scale_factor)."""
        return F.interpolate(x, scale_factor=self.scale_factor, mode=self.mode)


class BatchNorm2d(Module):
    """See functional.batch_norm. weight starts at 1, bias at 0; running_mean and running_var are buffers.

    With relu, the ReLU that follows it is done in the same pass.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, dtype: Any = np.float32,
        relu: bool = False,
    ) -> None:  # fmt: skip
        self.eps, self.momentum, self.relu = eps, momentum, relu
        self.weight, self.bias = _scale_and_shift((num_features,), affine, dtype)
        self.running_mean = Tensor(np.zeros(num_features, dtype))
        self.running_var = Tensor(np.ones(num_features, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        running = self.running_mean, self.running_var
        return F.batch_norm(
            x, *running, self.weight, self.bias, self.training, self.momentum, self.eps, self.relu
        )


class GroupNorm(Module):
    """See functional.group_norm."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, dtype: Any = np.float32
    ) -> None:
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = _scale_and_shift((num_channels,), affine, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm2d(Module):
    """See functional.instance_norm. Like PyTorch's, without weight and bias unless affine=True."""

    def __init__(self, num_features: int, eps: float = 1e-5, affine: bool = False, dtype: Any = np.float32) -> None:
        self.eps = eps
        self.weight, self.bias = _scale_and_shift((num_features,), affine, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return F.instance_norm(x, self.weight, self.bias, self.eps)


class LayerNorm(Module):
    """See functional.layer_norm."""

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, affine: bool = True, dtype: Any = np.float32
    ) -> None:
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight, self.bias = _scale_and_shift(self.normalized_shape, affine, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(..., *normalized_shape) -> the same shape."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


def _scale_and_shift(shape: tuple[int, ...], wanted: bool, dtype: Any) -> tuple[Parameter | None, Parameter | None]:
    return (Parameter(np.ones(shape, dtype)), Parameter(np.zeros(shape, dtype))) if wanted else (None, None)


class Dropout(Module):
    """See functional.dropout; acts in training only."""

    def __init__(self, p: float = 0.5, generator: np.random.Generator | None = None) -> None:
        self.p = p
        self._generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.dropout(x, self.p, self.training, self._generator)


class ReLU(Module):
    """See functional.relu."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.relu(x)


class LeakyReLU(Module):
    """See functional.leaky_relu."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.leaky_relu(x, self.negative_slope)


class Sigmoid(Module):
    """See functional.sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.sigmoid(x)


class Tanh(Module):
    """See functional.tanh."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.tanh(x)


class SiLU(Module):
    """See functional.silu."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.silu(x)


class GELU(Module):
    """See functional.gelu."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return F.gelu(x, self.approximate)
