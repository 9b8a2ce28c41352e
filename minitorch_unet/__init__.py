"""A from-scratch NumPy/CuPy deep-learning engine that builds, trains, explains and measures the original U-Net."""

__version__ = "0.1.0"
