"""CudaKernels: what the CUDA kernels speed up; everything else falls back to the reference, run by CuPy."""

from __future__ import annotations

from .conv import ConvKernels
from .dropout import DropoutKernels
from .loss import LossKernels
from .norm import NormKernels
from .optim import OptimKernels
from .pointwise import PointwiseKernels
from .pool import PoolKernels


class CudaKernels(ConvKernels, PointwiseKernels, PoolKernels, NormKernels, LossKernels, OptimKernels, DropoutKernels):
    """The reference for CuPy, with the kernels of kernels/cuda/ in the hot places. Put together from their families."""
