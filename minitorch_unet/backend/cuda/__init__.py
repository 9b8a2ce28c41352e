"""CUDA: the kernels of `kernels/cuda/` behind the routines' usual names."""

from .kernels import CudaKernels

__all__ = ["CudaKernels"]
