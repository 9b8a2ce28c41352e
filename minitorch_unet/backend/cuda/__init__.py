"""What runs, compiles and inspects the CUDA kernels of `kernels/cuda`."""
