"""Array routines and the devices they run on."""

from . import memory
from .devices import (
    Array,
    array_module,
    check_device,
    cuda_unavailable_reason,
    device_of,
    kernels_for,
    kernels_of,
    to_device,
    to_numpy,
)
from .dry import dry_run, dry_running
from .reference import Kernels
from .threads import assumed_threads, available_cores, get_num_threads, run_parallel, set_num_threads

__all__ = [
    "Array",
    "Kernels",
    "array_module",
    "assumed_threads",
    "available_cores",
    "check_device",
    "cuda_unavailable_reason",
    "device_of",
    "dry_run",
    "dry_running",
    "get_num_threads",
    "kernels_for",
    "kernels_of",
    "memory",
    "run_parallel",
    "set_num_threads",
    "to_device",
    "to_numpy",
]
