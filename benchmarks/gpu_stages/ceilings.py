"""The ceilings of this device as measured here: what shares are shares of, rather than what a data sheet promises.

Streaming: bytes read and written per second. Multiply-adds: a kernel that does nothing else, and the library's float32
product. Matrix units: the library's product of large matrices in TF32, bfloat16 and float16, on random values (zeros
run faster). Rates in FLOP/s, a multiplication and an addition being two.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gpu_child import Failed, Item, Skipped
from gpu_device import Device, on_host

MULTIPLY_ADDS = Path(__file__).with_name("multiply_adds.cu")
CHAINS, ROUNDS = 8, 4096  # of the kernel in that file: independent sums a thread, steps of each
SIZES = (4096, 8192)


def items(settings: dict[str, Any]) -> list[Item]:
    d = Device(settings)
    return [
        ("copy", lambda: copy(d)),
        ("triad", lambda: triad(d)),
        ("multiply-adds", lambda: multiply_adds(d)),
        ("float32 product", lambda: library_product(d)),
        *((f"{kind} product", lambda kind=kind: torch_product(d, kind)) for kind in ("tf32", "bfloat16", "float16")),
    ]


def rate(found: dict[str, Any], amount: float, name: str) -> dict[str, Any]:
    """A timing with a rate beside it, where there is a time."""
    return {**found, name: amount / found["seconds"]} if "seconds" in found else found


def copy(d: Device) -> dict[str, Any]:
    count = 1 << (12 if d.simulated else 28)
    a = d.random((count,))
    b = d.xp.empty_like(a)
    return rate(d.seconds([lambda: d.xp.copyto(b, a)]), 2 * a.nbytes, "bytes_per_second")


def triad(d: Device) -> dict[str, Any]:
    a = d.random((1 << (10 if d.simulated else 27),))
    b, c = d.xp.ones_like(a), d.xp.empty_like(a)
    return rate(d.seconds([lambda: d.xp.add(a, b, out=c)]), 3 * a.nbytes, "bytes_per_second")


def multiply_adds(d: Device) -> dict[str, Any]:
    rounds = 64 if d.simulated else ROUNDS
    blocks, threads = (1, 32) if d.simulated else (8 * int(d.xp.cuda.Device().attributes["MultiProcessorCount"]), 256)
    kernel = d.xp.RawModule(code=MULTIPLY_ADDS.read_text()).get_function("multiply_adds")
    y = d.xp.zeros(threads, np.float32)
    arguments = (y, np.float32(0.5), np.float32(1.0), np.int32(rounds))
    found = d.seconds([lambda: kernel((blocks,), (threads,), arguments)])
    if abs(float(on_host(y)[0]) - 2 * CHAINS) > 1e-5:  # x = x / 2 + 1 goes to 2, from wherever it starts
        raise Failed(f"the kernel's sum is {float(on_host(y)[0])}, not {2 * CHAINS}")
    return rate(found, 2.0 * CHAINS * rounds * blocks * threads, "flops")


def library_product(d: Device) -> dict[str, Any]:
    if d.simulated:
        raise Skipped("the simulator has no library of products")
    best: dict[str, Any] = {}
    for n in SIZES:
        a, b = d.random((n, n)), d.random((n, n))
        out = d.xp.empty_like(a)
        found = rate(d.seconds([lambda a=a, b=b, out=out: d.xp.matmul(a, b, out=out)]), 2.0 * n**3, "flops")
        if found["flops"] > best.get("flops", 0):
            best = {**found, "size": n}
    return best


def torch_product(d: Device, kind: str) -> dict[str, Any]:
    """The matrix units' peak by PyTorch, which lets one choose TF32."""
    if d.simulated:
        raise Skipped("the simulator has no library of products")
    try:
        import torch
    except ImportError:
        raise Skipped("PyTorch is not installed") from None
    import statistics

    torch.backends.cuda.matmul.allow_tf32 = True
    best: dict[str, Any] = {}
    for n in SIZES:
        dtype = torch.float32 if kind == "tf32" else getattr(torch, kind)
        a, b = (torch.randn(n, n, device="cuda").to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        times = []
        for _ in range(5 + 20):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            torch.matmul(a, b, out=out)
            end.record()
            end.synchronize()
            times.append(1e-3 * begin.elapsed_time(end))
        seconds = statistics.median(times[5:])
        if 2.0 * n**3 / seconds > best.get("flops", 0):
            best = {"seconds": seconds, "flops": 2.0 * n**3 / seconds, "size": n}
    return best
