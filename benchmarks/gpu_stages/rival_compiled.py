"""PyTorch's network by torch.compile, the settings that matter most first: compiling takes most of the time."""

from __future__ import annotations

from typing import Any

from gpu_child import Item

from .rival import network

ORDER = (("bfloat16", 1), ("tf32", 1), ("bfloat16", 8), ("tf32", 8), ("float32", 1), ("float32", 8))


def items(settings: dict[str, Any]) -> list[Item]:
    return [
        (f"{precision}, batch {batch}", lambda p=precision, b=batch: network(settings, p, b, compiled=True))
        for precision, batch in ORDER
    ]
