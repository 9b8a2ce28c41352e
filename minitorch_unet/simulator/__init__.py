"""CUDA without a GPU: a look-alike of CuPy whose arrays lie in host memory, and kernels that run on the processor.

`standin` is the module that plays CuPy, `module` builds a .cu source with g++ and launches its kernels.
"""

from .build import MODES, CompileError, CompilerMissing
from .errors import KernelError
from .module import Function, Module
from .settings import mode, seed, set_mode, set_seed

__all__ = [
    "MODES", "CompileError", "CompilerMissing", "Function", "KernelError", "Module", "mode", "seed", "set_mode",
    "set_seed",
]  # fmt: skip
