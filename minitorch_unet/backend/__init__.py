"""Array routines and the devices they run on."""

from . import memory
from .devices import (
    Array,
    array_module,
    check_device,
    cuda_unavailable_reason,
    describe_device,
    device_of,
    is_array,
    is_device,
    kernels_for,
    kernels_of,
    laid_out,
    library,
    simulator_unavailable_reason,
    to_device,
    to_numpy,
    use_device,
)
from .draws import NUMBERS_PER_BLOCK, Draws, take
from .dry import dry_run, dry_running
from .precision import (
    autocast,
    autocast_dtype,
    get_float32_matmul_precision,
    is_floating,
    is_short,
    named_dtype,
    set_float32_matmul_precision,
    wide,
)
from .reference import Kernels
from .threads import assumed_threads, available_cores, get_num_threads, run_parallel, set_num_threads
from .updates import Clock, Scaling, unscaled

__all__ = [
    "NUMBERS_PER_BLOCK",
    "Array",
    "Clock",
    "Draws",
    "Kernels",
    "Scaling",
    "array_module",
    "assumed_threads",
    "autocast",
    "autocast_dtype",
    "available_cores",
    "check_device",
    "cuda_unavailable_reason",
    "describe_device",
    "device_of",
    "dry_run",
    "dry_running",
    "get_float32_matmul_precision",
    "get_num_threads",
    "is_array",
    "is_device",
    "is_floating",
    "is_short",
    "kernels_for",
    "kernels_of",
    "laid_out",
    "library",
    "memory",
    "named_dtype",
    "run_parallel",
    "set_float32_matmul_precision",
    "set_num_threads",
    "simulator_unavailable_reason",
    "take",
    "to_device",
    "to_numpy",
    "unscaled",
    "use_device",
    "wide",
]
