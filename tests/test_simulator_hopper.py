"""What the simulator's copy engine and matrix units say to small kernels that are wrong."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hopper_probe import DEVICE, probe, whole_numbers

from minitorch_unet import simulator
from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.precision import named_dtype
from minitorch_unet.simulator import KernelError

pytest.importorskip("ml_dtypes")
pytestmark = [
    pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())),
    pytest.mark.skipif(DEVICE != "simulate", reason="about the simulator"),
]


@pytest.fixture(autouse=True)
def check_mode() -> Iterator[None]:
    simulator.set_mode("check")
    yield
    simulator.set_mode(None)


@pytest.mark.parametrize(
    ("mistake", "kind", "text"),
    [
        (1, "tma", "covers the mbarrier at byte"),
        (2, "mbarrier", "was not initialised"),
        (3, "tma", "4 coordinates by a map of rank 3"),
        (6, "address", r"16384 bytes from byte \d+ on leave the 25608 bytes"),
        (4, "wgmma", "warps of a warpgroup issue wgmmas with different descriptors"),
    ],
)
def test_wrong_use_is_named(mistake: int, kind: str, text: str) -> None:
    bf16 = named_dtype("bfloat16")
    with pytest.raises(KernelError, match=text) as caught:
        probe(whole_numbers(64, bf16), whole_numbers(128, bf16), mistake=mistake)
    assert caught.value.kind == kind
    assert caught.value.line


def test_accumulators_read_too_early_are_nan() -> None:
    bf16 = named_dtype("bfloat16")
    _, d = probe(whole_numbers(64, bf16), whole_numbers(128, bf16), mistake=5)
    assert np.isnan(d).all()


def test_hang_names_barrier_parity_and_what_is_missing() -> None:
    bf16 = named_dtype("bfloat16")
    with pytest.raises(
        KernelError, match=r"parity 0 of the mbarrier at byte \d+ .* 0 arrivals of 1 and 8192 bytes are missing"
    ):
        probe(whole_numbers(64, bf16), whole_numbers(64, bf16))
