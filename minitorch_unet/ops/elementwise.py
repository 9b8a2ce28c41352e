"""Elementwise operations. Inputs broadcast as in NumPy; the graph sums gradients back to each input's shape.

Conventions at kinks, as in PyTorch: relu, abs: gradient 0 at 0; leaky_relu: the slope at 0; clamp: gradient 1 on both
edges; maximum and minimum: half to each input where they are equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .core import Context, Op


class Add(Op):
    """y = a + b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        return a + b

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return gy, gy


class Sub(Op):
    """y = a - b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        return a - b

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return gy, -gy if ctx.needs[1] else None


class Mul(Op):
    """y = a * b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(a=a if ctx.needs[1] else None, b=b if ctx.needs[0] else None)
        return a * b

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return gy * ctx.b if ctx.needs[0] else None, gy * ctx.a if ctx.needs[1] else None


class Div(Op):
    """y = a / b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(a=a if ctx.needs[1] else None, b=b)
        return a / b

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        ga = gy / ctx.b
        return ga, -ga * (ctx.a / ctx.b) if ctx.needs[1] else None


class Neg(Op):
    """y = -a."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        return -a

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (-gy,)


class Pow(Op):
    """y = a ** b, both arrays. d/da = b a^(b-1); d/db = y log a, taken as 0 where a is 0 and b >= 0."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(a=a, b=b)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # nan and inf are the answers there
            return a**b

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        a, b, ops = ctx.a, ctx.b, ctx.ops
        # 0^0 alone needs care: b times the infinite 0^-1 would be nan instead of 0.
        ga = gy * b * ops.pow(a, ops.where((a == 0) & (b == 0), 1.0, b - 1)) if ctx.needs[0] else None
        if not ctx.needs[1]:
            return ga, None
        flat = (a == 0) & (b >= 0)
        return ga, gy * ops.where(flat, 0.0, ops.pow(a, b) * ops.log(ops.where(flat, 1.0, a)))


class PowScalar(Op):
    """y = a ** exponent for a number; d/da = exponent a^(exponent-1), 0 for exponent 0."""

    @staticmethod
    def forward(ctx: Context, a: Any, exponent: float) -> Any:
        ctx.save(a=a, exponent=exponent)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return a**exponent

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        if ctx.exponent == 0:
            return (0 * gy,)
        return (gy * (ctx.exponent * ctx.ops.pow_scalar(ctx.a, exponent=ctx.exponent - 1)),)


class Exp(Op):
    """y = e^a. Keeps y."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        with np.errstate(over="ignore"):
            y = ctx.xp.exp(a)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * ctx.y,)


class Log(Op):
    """y = log a."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(a=a)
        with np.errstate(invalid="ignore", divide="ignore"):
            return ctx.xp.log(a)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy / ctx.a,)


class Sqrt(Op):
    """y = square root of a. Keeps y."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        with np.errstate(invalid="ignore"):
            y = ctx.xp.sqrt(a)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy / (2 * ctx.y),)


class Abs(Op):
    """y = |a|. Keeps the sign."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(sign=ctx.xp.sign(a))
        return ctx.xp.abs(a)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * ctx.sign,)


class Clamp(Op):
    """y = min(max(a, low), high); either bound may be None."""

    @staticmethod
    def forward(ctx: Context, a: Any, low: float | None, high: float | None) -> Any:
        inside = ctx.xp.ones(a.shape, bool)
        if low is not None:
            inside &= a >= low
        if high is not None:
            inside &= a <= high
        ctx.save(inside=inside)
        return ctx.xp.clip(a, low, high)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * ctx.inside,)


class Maximum(Op):
    """y = the larger of a and b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(share=_share(ctx.xp, a, b))
        return ctx.xp.maximum(a, b)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return gy * ctx.share, gy * (1 - ctx.share)


class Minimum(Maximum):
    """y = the smaller of a and b."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(share=_share(ctx.xp, b, a))
        return ctx.xp.minimum(a, b)


def _share(xp: Any, a: Any, b: Any) -> Any:
    """1 where a > b, 1/2 where they are equal, 0 elsewhere, in the inputs' common type."""
    return ((a > b) + 0.5 * (a == b)).astype(xp.result_type(a, b))


class Where(Op):
    """y = a where the boolean condition holds, b elsewhere."""

    @staticmethod
    def forward(ctx: Context, condition: Any, a: Any, b: Any) -> Any:
        ctx.save(condition=condition)
        return ctx.xp.where(condition, a, b)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        c = ctx.condition
        return (
            None,
            ctx.ops.where(c, gy, 0.0) if ctx.needs[1] else None,
            ctx.ops.where(c, 0.0, gy) if ctx.needs[2] else None,
        )


class Relu(Op):
    """y = max(a, 0). The mask is the sign of the output: nothing is kept but the output."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        y = ctx.kernels.relu(a)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * (ctx.y > 0),)


class LeakyRelu(Op):
    """y = a where positive, negative_slope a elsewhere."""

    @staticmethod
    def forward(ctx: Context, a: Any, negative_slope: float) -> Any:
        slope = ctx.xp.where(a > 0, 1, negative_slope).astype(a.dtype)
        ctx.save(slope=slope)
        return a * slope

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * ctx.slope,)


class Sigmoid(Op):
    """y = 1 / (1 + exp(-a)). Far below 0 exp overflows, and y is 0 as it should be."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        with np.errstate(over="ignore"):
            y = 1 / (1 + ctx.xp.exp(-a))
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * (ctx.y * (1 - ctx.y)),)


class Tanh(Op):
    """y = tanh a. Keeps y."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        y = ctx.xp.tanh(a)
        ctx.save(y=y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * (1 - ctx.y * ctx.y),)


class Softplus(Op):
    """y = log(1 + exp(beta a)) / beta, and y = a where beta a > threshold."""

    @staticmethod
    def forward(ctx: Context, a: Any, beta: float, threshold: float) -> Any:
        scaled = beta * a
        linear = scaled > threshold
        ctx.save(a=a, beta=beta, linear=linear)
        soft = ctx.xp.maximum(scaled, 0) + ctx.xp.log1p(ctx.xp.exp(-ctx.xp.abs(scaled)))
        return ctx.xp.where(linear, a, soft / beta)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * ctx.ops.where(ctx.linear, 1.0, ctx.ops.sigmoid(ctx.a * ctx.beta)),)


class Erf(Op):
    """y = 2 / sqrt(pi) * integral of exp(-t^2) from 0 to a."""

    @staticmethod
    def forward(ctx: Context, a: Any) -> Any:
        ctx.save(a=a)
        return ctx.kernels.erf(a)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy * (2 / np.sqrt(np.pi).item() * ctx.ops.exp(-ctx.a * ctx.a)),)


class Cast(Op):
    """The same values in another floating-point type; the graph casts the gradient back."""

    @staticmethod
    def forward(ctx: Context, a: Any, dtype: Any) -> Any:
        return ctx.kernels.cast(a, dtype)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy,)
