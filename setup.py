"""Builds the compiled CPU kernels; all other metadata stands in setup.cfg.

The extension is optional: without a C++ compiler the package installs all the same and NumPy serves every operation
(`minitorch-unet info` says which it is).
"""

import sys
from glob import glob

from setuptools import Extension, setup

WINDOWS = sys.platform == "win32"
FLAGS = ["/std:c++20", "/O2"] if WINDOWS else ["-std=c++20", "-O3", "-fvisibility=hidden", "-pthread"]

setup(
    ext_modules=[
        Extension(
            "minitorch_unet._cpu_kernels",
            sources=sorted(glob("kernels/cpu/*.cpp")),
            depends=sorted(glob("kernels/cpu/*.h")),
            extra_compile_args=FLAGS,
            extra_link_args=[] if WINDOWS else ["-pthread"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
