"""The report of a training run: a page in its folder, in a notebook, and TensorBoard event files."""

from .page import PAGE, Report, write_report
from .tensorboard import tensorboard_missing
from .training import train_with_report

__all__ = ["PAGE", "Report", "tensorboard_missing", "train_with_report", "write_report"]
