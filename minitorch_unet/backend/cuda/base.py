"""What all families of CUDA kernels share: the launcher, how maps lie in memory, the type a kernel is compiled for."""

from __future__ import annotations

from typing import Any

from ..precision import get_float32_matmul_precision
from ..reference import Array, Kernels
from .launcher import TYPE_NAMES, Launcher


class CudaBase(Kernels):
    """The reference for CuPy (or the simulator's stand-in), and the launcher that the kernels' families use."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.launcher = Launcher(xp)
        self.launch = self.launcher.launch
        self._multiprocessors: dict[int, int] = {}  # by device: CuPy asks for all hundred attributes each time

    @property
    def multiprocessors(self) -> int:
        """How many multiprocessors the device has: what a grid should fill."""
        device = self.xp.cuda.Device()
        if device.id not in self._multiprocessors:
            self._multiprocessors[device.id] = int(device.attributes["MultiProcessorCount"])
        return self._multiprocessors[device.id]

    @property
    def compute_capability(self) -> int:
        """The device's, as 80 or 90."""
        return int(self.xp.cuda.Device().compute_capability)

    @property
    def tf32_allowed(self) -> bool:
        """Whether float32 products may round their factors to TF32."""
        return get_float32_matmul_precision() == "high"

    def channels_last(self, x: Array) -> Array:
        """x (N, C, H, W) itself where its memory order is (N, H, W, C) without gaps, else a copy that is so."""
        inner = x.transpose(0, 2, 3, 1)
        return x if inner.flags.c_contiguous else self.xp.ascontiguousarray(inner).transpose(0, 3, 1, 2)


def type_name(*arrays: Array | None) -> str | None:
    """The C type of all arrays (None counts for nothing): "float", "half", "bf16"; None if another or mixed."""
    names = {array.dtype.name for array in arrays if array is not None}
    name = TYPE_NAMES.get(names.pop()) if len(names) == 1 else None
    return name if name != "double" else None


def map_strides(x: Array) -> tuple[int, int, int] | None:
    """(image, row, pixel) strides of (N, C, H, W) in elements; None where a pixel's channels are not neighbours."""
    n, c, h, w = x.strides
    if c != x.itemsize and x.shape[1] != 1:
        return None
    size = x.itemsize
    return (n // size, h // size, w // size) if n % size == h % size == w % size == 0 else None
