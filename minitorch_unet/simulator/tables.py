"""The names of CuPy that the project uses, with the parameters that CuPy's own functions have.

What is not listed does not exist in the stand-in, and neither does a parameter that is not named: the list is compared
with a real CuPy by tests/test_standin.py. Where NumPy calls it by another name the function stands beside.
"""

from __future__ import annotations

from typing import Any

UNARY = (
    "abs", "absolute", "exp", "expm1", "floor", "invert", "isfinite", "isinf", "isnan", "log", "log1p", "logical_not",
    "negative", "positive", "rint", "sign", "sqrt", "square", "tanh",
)  # fmt: skip
BINARY = (
    "add", "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "floor_divide", "greater", "greater_equal",
    "left_shift", "less", "less_equal", "logical_and", "logical_or", "maximum", "minimum", "multiply", "not_equal",
    "power", "remainder", "right_shift", "subtract", "true_divide", "divide",
)  # fmt: skip

# Operators: the special method's name without underscores, and the function it calls.
OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}  # fmt: skip
SIGNS = {"neg": "negative", "pos": "positive", "abs": "absolute", "invert": "invert"}

# Functions of arrays: parameters in CuPy's order. Those before the slash go to NumPy by position, under whatever name.
FUNCTIONS = {
    "all": "a / axis out keepdims",
    "allclose": "a b / rtol atol equal_nan",
    "any": "a / axis out keepdims",
    "argmax": "a / axis dtype out keepdims",
    "argmin": "a / axis dtype out keepdims",
    "array_equal": "a1 a2 / equal_nan",
    "broadcast_to": "array shape /",
    "clip": "a a_min a_max / out",
    "concatenate": "tup / axis out",
    "count_nonzero": "a / axis",
    "cumsum": "a / axis dtype out",
    "expand_dims": "a axis /",
    "flip": "a / axis",
    "matmul": "x1 x2 / out",
    "max": "a / axis out keepdims",
    "mean": "a / axis dtype out keepdims",
    "min": "a / axis out keepdims",
    "moveaxis": "a source destination /",
    "prod": "a / axis dtype out keepdims",
    "reshape": "a newshape / order",
    "roll": "a shift / axis",
    "squeeze": "a / axis",
    "stack": "tup / axis out",
    "sum": "a / axis dtype out keepdims",
    "take": "a indices / axis out",
    "take_along_axis": "a indices / axis",
    "tensordot": "a b / axes",
    "transpose": "a / axes",
    "where": "condition x y /",
}

# Methods of arrays: parameters in CuPy's order. Those with bodies of their own stand in methods.py.
METHODS = {
    "all": "axis out keepdims",
    "any": "axis out keepdims",
    "argmax": "axis out dtype keepdims",
    "argmin": "axis out dtype keepdims",
    "clip": "min max out",
    "cumsum": "axis dtype out",
    "dot": "b out",
    "flatten": "order",
    "max": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "min": "axis out keepdims",
    "prod": "axis dtype out keepdims",
    "ravel": "order",
    "repeat": "repeats axis",
    "round": "decimals out",
    "squeeze": "axis",
    "std": "axis dtype out ddof keepdims",
    "sum": "axis dtype out keepdims",
    "swapaxes": "axis1 axis2",
    "take": "indices axis out",
    "var": "axis dtype out ddof keepdims",
}

# Types and constants, which are NumPy's own.
CONSTANTS = (
    "bool_", "dtype", "e", "finfo", "float16", "float32", "float64", "iinfo", "inf", "int16", "int32", "int64", "int8",
    "intp", "nan", "newaxis", "pi", "uint16", "uint32", "uint64", "uint8", "uintp",
)  # fmt: skip

POSITIONAL_METHODS = ("dot", "swapaxes")  # NumPy takes their arguments by position only


def bound(function: str, parameters: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name, in the order of `parameters`; raises TypeError for one that does not exist."""
    names = [name for name in parameters.split() if name != "/"]
    if len(args) > len(names):
        raise TypeError(f"{function}: takes at most {len(names)} arguments, found {len(args)}")
    found = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            raise TypeError(f"{function}: stand-in: no parameter {name!r}; see tables.py for those that exist")
        if name in found:
            raise TypeError(f"{function}: {name} is given twice")
        found[name] = value
    return {name: found[name] for name in names if name in found}
