"""CudaKernels: what the CUDA kernels speed up; everything else falls back to the reference, run by CuPy."""

from __future__ import annotations

from .base import CudaBase


class CudaKernels(CudaBase):
    """The reference for CuPy, with the kernels of kernels/cuda/ in the hot places. Put together from their families."""
