"""Each wrapper of primitives.cuh and hopper.cuh on this device, on random values, against NumPy's result.

What the simulator was written to imitate is checked where it cannot be: on the hardware. Matrix products of small whole
numbers must be exact; of other values, as exact as a float32 sum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gpu_child import Failed, Item, Skipped
from gpu_device import Device, on_host

from minitorch_unet.backend import named_dtype
from minitorch_unet.backend.cuda.sources import options, program
from minitorch_unet.backend.cuda.tensor_map import Axis, TensorMap

HERE = Path(__file__).parent
VARIANTS = (  # type, filters, whether a and b lie with their rows innermost
    ("bf16", 64, 0, 0), ("bf16", 128, 0, 0), ("bf16", 192, 0, 0), ("bf16", 256, 0, 0), ("half", 64, 0, 0),
    ("float", 64, 0, 0), ("bf16", 64, 1, 0), ("bf16", 128, 0, 1), ("half", 128, 1, 1),
)  # fmt: skip
DTYPES = {"bf16": "bfloat16", "half": "float16", "float": "float32"}


def items(settings: dict[str, Any]) -> list[Item]:
    d = Device(settings)
    products = [(name, lambda name=name: product(d, name)) for name in ("mma_tf32", "mma_bf16", "mma_half")]
    fragments = [
        (name := f"ldmatrix_{count}" + "_transposed" * turned, lambda n=name, c=count, t=turned: matrices(d, n, c, t))
        for count in (2, 4)
        for turned in (False, True)
    ]
    copies = [(f"cp_async_{size}", lambda size=size: copied(d, size)) for size in (4, 8, 16)]
    hopper = [
        (f"wgmma {kind} n{n}" + " a turned" * a + " b turned" * b, lambda v=(kind, n, a, b): hopper_product(d, *v))
        for kind, n, a, b in VARIANTS
    ]
    return [("conversions", lambda: conversions(d)), *products, *fragments, *copies, *hopper]


def kernel(d: Device, file: str, name: str, defines: dict[str, str] | None = None, family: str = "") -> Any:
    """A kernel of one of the sources beside this file."""
    flags = (*options(), *([f"-arch={family}"] if family else []))
    return d.xp.RawModule(code=program(HERE / file, defines or {}), options=flags).get_function(name)


def same(what: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raise Failed unless the arrays are equal; NaN equals NaN."""
    equal = (found == expected) | ((found != found) & (expected != expected))
    if not equal.all():
        at = np.argwhere(~equal)[0]
        text = f"{found[tuple(at)]!r} at {at.tolist()}, expected {expected[tuple(at)]!r}"
        raise Failed(f"{what}: {np.count_nonzero(~equal)} of {equal.size} values differ, first {text}")


def awkward_floats() -> np.ndarray:
    """Values of every size, ties between neighbours, subnormals, infinities and a NaN."""
    rng = np.random.default_rng(0)
    usual = rng.standard_normal(2000) * 2.0 ** rng.integers(-30, 20, 2000)
    ties = (1 + (np.arange(64) + 0.5) * 2.0**-10) * 2.0 ** rng.integers(-14, 15, 64)
    coarse = (1 + (np.arange(64) + 0.5) * 2.0**-7) * 2.0 ** rng.integers(-60, 60, 64)
    tiny = np.arange(1, 64) * 2.0**-25  # halves' subnormals and the ties between them
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519, 65520, 65536, 1e30, -1e30, 3.38e38, 2.0**-24, 2.0**-25]
    return np.concatenate([usual, ties, coarse, tiny, edges]).astype(np.float32)


def conversions(d: Device) -> dict[str, Any]:
    x = awkward_floats()
    n, xp = len(x), d.xp
    outputs = [xp.zeros(n, dtype) for dtype in ("uint16", "uint16", "uint32", "float32", "float32", "uint32")]
    kernel(d, "primitives.cu", "conversions")((1,), (128,), (xp.asarray(x), *outputs, np.int32(n)))
    halves, bf16s, tf32s, from_halves, from_bf16s, pairs = map(on_host, outputs)
    with np.errstate(over="ignore", invalid="ignore"):
        half, bf16 = x.astype(np.float16), x.astype(named_dtype("bfloat16"))
        turned = np.stack([bf16, bf16[::-1]], 1).astype(np.float32).astype(np.float16)
    same("half", halves.view(np.float16), half)
    same("bf16", bf16s.view(named_dtype("bfloat16")), bf16)
    same("half to float", from_halves, half.astype(np.float32))
    same("bf16 to float", from_bf16s, bf16.astype(np.float32))
    same("pack2 and unpack2", pairs.view(np.float16).reshape(-1, 2), turned)
    finite = np.isfinite(x)  # a conversion to tf32 may leave anything in the bits that products do not read
    same("tf32", (tf32s & 0xFFFFE000).view(np.float32)[finite], rounded_to_tf32(x)[finite])
    return {"values": n}


def rounded_to_tf32(x: np.ndarray) -> np.ndarray:
    """To 10 bits behind the point, ties away from zero."""
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)


def short(x: np.ndarray, kind: str) -> np.ndarray:
    """x as the matrix units read it, in float64."""
    narrow = rounded_to_tf32(x) if kind == "tf32" else x.astype(DTYPES[kind])
    return narrow.astype(np.float64)


def close(what: str, found: np.ndarray, exact: np.ndarray, scale: np.ndarray) -> float:
    """The largest error, in float32 units of `scale`, the sum of absolute values; raises Failed for a large one."""
    error = float(np.max(np.abs(found - exact) / scale) * 2**23)
    if not error < 16:  # the units add up with some bits fewer than float32 has, cut off rather than rounded
        raise Failed(f"{what}: errors of up to {error:.1f} units of a float32 sum", error=error)
    return error


def product(d: Device, name: str) -> dict[str, Any]:
    kind = name.removeprefix("mma_")
    depth = 8 if kind == "tf32" else 16
    run = kernel(d, "primitives.cu", name)
    rng = np.random.default_rng(1)
    worst = 0.0
    for draw in range(2 if d.simulated else 50):
        shapes = (16, depth), (depth, 8), (16, 8)
        if draw % 2:
            a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
        else:
            a, b, c = (rng.integers(-8, 9, shape).astype(np.float32) for shape in shapes)
        result = d.xp.asarray(c)
        run((1,), (32,), (d.xp.asarray(a), d.xp.asarray(b), result))
        a, b = short(a, kind), short(b, kind)
        if draw % 2:
            worst = max(worst, close(name, on_host(result), c + a @ b, abs(c) + abs(a) @ abs(b)))
        else:
            same(name, on_host(result), (c + a @ b).astype(np.float32))
    return {"error": worst}


def matrices(d: Device, name: str, count: int, turned: bool) -> dict[str, Any]:
    values = np.random.default_rng(2).integers(0, 65536, (count, 8, 8)).astype(np.uint16)
    out = d.xp.zeros((32, count), "uint32")
    kernel(d, "primitives.cu", name)((1,), (32,), (d.xp.asarray(values), out))
    wanted = values.transpose(0, 2, 1) if turned else values
    # With lane = 4 g + t, register i holds elements [g][2t] and [g][2t+1] of matrix i: as they lie in memory.
    pairs = np.ascontiguousarray(wanted).view(np.uint32).reshape(count, 32)
    same(name, on_host(out), pairs.T)
    return {"values": values.size}


def copied(d: Device, size: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    x, ok = rng.integers(0, 255, (128, size)).astype(np.uint8), rng.integers(0, 2, 128).astype(np.int32)
    y = d.xp.zeros((128, size), "uint8")
    arguments = (d.xp.asarray(x), d.xp.asarray(ok), y, np.int32(50))
    kernel(d, "primitives.cu", f"cp_async_{size}")((1,), (128,), arguments)
    expected = np.where(ok[:, None] != 0, x, 0)
    same(f"cp_async_{size}", on_host(y), np.concatenate([expected[49::-1], expected[50:]]))
    return {"values": x.size}


def hopper_product(d: Device, kind: str, n: int, turn_a: int, turn_b: int) -> dict[str, Any]:
    """Two stages' worth of steps and a half: the ring goes round, and each barrier through both parities."""
    if int(d.xp.cuda.Device().compute_capability) // 10 != 9:
        raise Skipped("wgmma and the copy engine are of compute capability 9.x")
    defines = {"T": kind, "FILTERS": str(n), "TURN_A": str(turn_a), "TURN_B": str(turn_b)}
    run = kernel(d, "hopper_primitives.cu", "hopper_product", defines, "sm_90a")
    shared = 2 * (1 + n // 64) * 8192 + 8192 + 4 * 8 + 1024
    run.max_dynamic_shared_size_bytes = shared
    dtype, steps = named_dtype(DTYPES[kind]), 5
    depth = 128 // dtype.itemsize
    rng = np.random.default_rng(4)
    row: dict[str, Any] = {}
    for whole in (True, False):
        draw = rng.integers(-4, 5, (steps, 64 + n, depth)) if whole else rng.standard_normal((steps, 64 + n, depth))
        factors = draw.astype(np.float32).astype(dtype)
        a, b = factors[:, :64], factors[:, 64:]
        y = d.xp.full((64, n), np.nan, "float32")
        maps = [turned_map(d, m, turn) for m, turn in ((a, turn_a), (b, turn_b))]
        axes = (Axis(32, 4, 32), Axis(8, 4 * n, 8), Axis(8, 32 * n, 8), Axis(1, 256 * n, 1))
        out = TensorMap(d.xp, y, axes, "y")
        arguments = (*(by_value(m) for _, m in maps), by_value(out), y, np.int32(steps))
        run((1,), (256,), arguments, shared_mem=shared)
        x, w = (short(m.astype(np.float32), "tf32" if kind == "float" else kind) for m in (a, b))
        exact = np.einsum("smk,snk->mn", x, w)
        if whole:
            same("whole numbers", on_host(y), exact.astype(np.float32))
        else:
            row["error"] = close("sum", on_host(y), exact, np.einsum("smk,snk->mn", abs(x), abs(w)))
    return row


def turned_map(d: Device, matrices: np.ndarray, turned: int) -> tuple[Any, TensorMap]:
    """The steps' matrices (steps, rows, depth) below one another, or their transposes, on the device, with a map."""
    order = matrices.transpose(0, 2, 1) if turned else matrices
    array = d.xp.asarray(np.ascontiguousarray(order).reshape(-1, order.shape[2]))
    (rows, inner), row = array.shape, array.strides[0]
    box = min(inner, 128 // array.itemsize)
    axes = (Axis(inner, array.itemsize, box), Axis(1, row, 1), Axis(rows, row, 64))
    return array, TensorMap(d.xp, array, axes, "m", tf32=array.dtype == np.float32)


def by_value(tensor_map: TensorMap) -> np.ndarray:
    """A struct as a kernel's argument."""
    return np.frombuffer(bytes(tensor_map), "V128")
