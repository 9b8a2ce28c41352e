"""The folder of compiled kernels' sources; installed as `minitorch_unet.kernels`."""

from pathlib import Path


def source_folder() -> Path:
    """Return the absolute path of the folder with the kernel sources (`cpu/`, `cuda/`) and their README."""
    return Path(__file__).resolve().parent
