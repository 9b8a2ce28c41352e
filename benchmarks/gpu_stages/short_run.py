"""Every kernel once or twice on small shapes, results checked: what the sanitizer watches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gpu_child import Failed, Item
from gpu_device import Device

from minitorch_unet.backend import kernels_of

from . import ladder

TESTS = Path(__file__).resolve().parents[2] / "tests"
SEEDS = 3


def items(settings: dict[str, Any]) -> list[Item]:
    d = Device(settings)
    sys.path.append(str(TESTS))
    from cuda_kernel_cases import CASES, find_cases, problems

    find_cases()

    def called(name: str) -> dict[str, Any]:
        wrong = [text for seed in range(SEEDS) for text in problems(name, seed, kernels_of(d.xp))]
        if wrong:
            raise Failed("; ".join(wrong)[:600])
        return {"calls": SEEDS}

    others = [(name, lambda name=name: called(name)) for name in sorted(CASES)]
    return {"layers": ladder.items(settings), "others": others}[settings["part"]]
