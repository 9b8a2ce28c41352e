"""Test bodies that run on every device: Tensors and arrays on the one under test, and their values in NumPy.

A test file asks for the fixture `device` of conftest.py (for all its tests with `pytestmark`) and takes `Tensor`,
`array` and `host` from here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minitorch_unet
from minitorch_unet.backend import Kernels, cuda_unavailable_reason, simulator_unavailable_reason, to_device, to_numpy
from minitorch_unet.backend import devices as backend_devices


def skipped(reason: str | None) -> Any:
    return pytest.mark.skipif(reason is not None, reason=str(reason))


DEVICES = [
    "cpu",
    pytest.param("simulate", marks=skipped(simulator_unavailable_reason())),
    pytest.param("cuda", marks=skipped(cuda_unavailable_reason())),
]
current = "cpu"


@contextlib.contextmanager
def using(device: str) -> Iterator[None]:
    """Make `device` the one under test. The stand-in runs the reference: kernels have tests of their own."""
    global current
    before = dict(backend_devices._kernels)
    if device == "simulate":
        backend_devices._kernels[backend_devices.standin()] = Kernels(backend_devices.standin())
    current = device
    try:
        yield
    finally:
        current = "cpu"
        backend_devices._kernels.clear()
        backend_devices._kernels.update(before)


def Tensor(data: Any, requires_grad: bool = False, dtype: Any = None) -> minitorch_unet.Tensor:
    """A Tensor on the device under test."""
    return minitorch_unet.Tensor(data, requires_grad, dtype, device=current)


def array(data: Any) -> Any:
    """An array on the device under test."""
    return to_device(np.asarray(data), current)


def host(x: Any) -> np.ndarray:
    """The values of a Tensor or an array, in host memory."""
    return to_numpy(x.data if isinstance(x, minitorch_unet.Tensor) else x)
