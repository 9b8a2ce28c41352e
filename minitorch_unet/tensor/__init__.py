"""Tensor: an array that remembers how it was computed, and the walk back through that history."""

from .state import (
    NonFiniteError,
    detect_anomaly,
    enable_grad,
    is_grad_enabled,
    module_scope,
    named_operations,
    no_grad,
    remade,
    state,
)
from .tensor import Node, Tensor, apply, from_dlpack, normal_axes, tensor_ops
from .walk import grad

__all__ = [
    "Node",
    "NonFiniteError",
    "Tensor",
    "apply",
    "detect_anomaly",
    "enable_grad",
    "from_dlpack",
    "grad",
    "is_grad_enabled",
    "module_scope",
    "named_operations",
    "no_grad",
    "normal_axes",
    "remade",
    "state",
    "tensor_ops",
]
