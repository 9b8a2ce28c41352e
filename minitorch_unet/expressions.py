"""Expressions such as "relu(a @ b + c).sum()", computed without handing them to Python.

The text is parsed, and the few kinds of nodes below are computed here: names of tensors, numbers, operators, slices,
functions of `minitorch_unet.functional`, a few methods. Whatever else Python could do is refused by name.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import functional as F
from .tensor import Tensor, grad

DEFAULT_SHAPE = (3, 3)
LONGEST, LARGEST = 2000, 1 << 24  # letters of a text; values of a tensor
FUNCTIONS = {name: getattr(F, name) for name in F.__all__ if name not in ("manual_seed", "argmax")}
METHODS = ("sum", "mean", "reshape", "permute", "swapaxes", "detach")
OPERATORS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.MatMult: operator.matmul, ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """"a=2x3" as ("a", (2, 3)); "a=" is a single value. Raises ValueError for anything else and for too many values."""
    name, equals, sizes = (part.strip() for part in text.partition("="))
    numbers = sizes.lower().split("x") if sizes else []
    if not equals or not name.isidentifier() or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise ValueError(f"{text!r} is no tensor: write NAME=ROWSxCOLUMNS, such as a=2x3")
    shape = tuple(int(n) for n in numbers)
    if math.prod(shape) > LARGEST:
        raise ValueError(f"{text!r} has {math.prod(shape):,} values; at most {LARGEST:,} are allowed")
    return name, shape


def evaluate(text: str, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """The expression's value, with its history, and the tensors in it by name.

    They are random numbers from 0.5 to 1.5 (so that logarithms exist), always the same: of the shape in `shapes`, else,
    for a single letter, DEFAULT_SHAPE. `grad(y, x)` is the gradient of y with respect to x, with a history of its own.
    Raises ValueError or TypeError for what is no such expression, or cannot be computed.
    """
    if len(text) > LONGEST:
        raise ValueError(f"the expression has {len(text)} letters; at most {LONGEST} are allowed")
    evaluator = _Evaluator(text, shapes or {})
    try:
        tree = ast.parse(text.strip(), mode="eval")
        with np.errstate(all="ignore"):
            value = evaluator.value(tree.body)
    except SyntaxError as error:
        raise ValueError(f"{text!r} is no expression: {error.msg}") from None
    except (ArithmeticError, LookupError, MemoryError, RecursionError, AttributeError) as error:
        raise ValueError(f"{text!r} cannot be computed: {error or type(error).__name__}") from None
    if not isinstance(value, Tensor):
        raise ValueError(f"{text!r} gives {type(value).__name__}, not a tensor")
    if unused := [name for name in evaluator.shapes if name not in evaluator.tensors]:
        raise ValueError(f"there is no tensor {unused[0]!r} in {text!r}")
    return value, evaluator.tensors


class _Evaluator:
    def __init__(self, text: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.text, self.shapes = text, shapes
        self.tensors: dict[str, Tensor] = {}
        self.generator = np.random.default_rng(0)

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return value
            case ast.Name(id=name):
                return self.tensor(name)
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](self.operand(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return self.combined(op, self.operand(left), self.operand(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
                return self.combined(op, self.operand(left), self.operand(right))
            case ast.Subscript(value=of, slice=index):
                return self.indexable(of)[self.index(index)]
            case ast.Call(func=function, args=args, keywords=keywords):
                called = self.function(function)
                return called(*map(self.value, args), **{self.keyword(k): self.value(k.value) for k in keywords})
        raise self.refusal(node)

    def refusal(self, node: ast.AST) -> ValueError:
        part = ast.get_source_segment(self.text.strip(), node) or type(node).__name__
        return ValueError(
            f"{part!r} is not allowed here; allowed are tensors, numbers, operators, slices and functions of "
            "minitorch_unet.functional"
        )

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name, made when it is first met."""
        if name not in self.tensors:
            if name not in self.shapes and (len(name) > 1 or not name.isalpha()):
                if name in FUNCTIONS:
                    raise ValueError(f"{name!r} is a function and needs arguments, {name}(...)")
                raise ValueError(f"{name!r} is no single letter; give its shape, as in --tensor {name}=3x3")
            values = self.generator.uniform(0.5, 1.5, self.shapes.get(name, DEFAULT_SHAPE)).astype(np.float32)
            self.tensors[name] = Tensor(values, requires_grad=True)
        return self.tensors[name]

    def operand(self, node: ast.expr) -> Any:
        value = self.value(node)
        if not isinstance(value, Tensor | int | float):
            raise self.refusal(node)
        return value

    def combined(self, op: ast.AST, left: Any, right: Any) -> Any:
        if not isinstance(left, Tensor) and not isinstance(right, Tensor):
            left, right = float(left), float(right)  # powers of whole numbers may take for ever
        return OPERATORS[type(op)](left, right)

    def indexable(self, node: ast.expr) -> Any:
        value = self.value(node)
        if not isinstance(value, Tensor | tuple):
            raise self.refusal(node)
        return value

    def index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Tuple):
            return tuple(self.index(item) for item in node.elts)
        if isinstance(node, ast.Slice):
            return slice(*(None if part is None else self.whole(part) for part in (node.lower, node.upper, node.step)))
        return None if isinstance(node, ast.Constant) and node.value is None else self.whole(node)

    def whole(self, node: ast.expr) -> int:
        value = self.value(node)
        if not isinstance(value, int):
            raise self.refusal(node)
        return value

    def function(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id="grad"):
                return _gradient
            case ast.Name(id=name) if name in FUNCTIONS:
                return FUNCTIONS[name]
            case ast.Attribute(value=of, attr=name) if name in METHODS:
                value = self.value(of)
                if isinstance(value, Tensor):
                    return getattr(value, name)
        raise self.refusal(node)

    def keyword(self, keyword: ast.keyword) -> str:
        if keyword.arg is None:
            raise self.refusal(keyword.value)
        return keyword.arg


def _gradient(y: Any, x: Any) -> Tensor:
    if not isinstance(y, Tensor) or not isinstance(x, Tensor):
        raise TypeError("grad: takes two tensors, y and x")
    (found,) = grad(y, x, create_graph=True)
    assert found is not None  # `grad` raises for an input that y does not depend on
    return found
