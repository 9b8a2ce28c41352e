"""The command line: `minitorch-unet COMMAND`, also `python -m minitorch_unet COMMAND`.

What a user can get wrong ends with one line on the standard error output and exit code 2; a run that a signal stopped
is saved, says how to go on, and ends with 128 + the signal's number.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from minitorch_unet import __version__

from ..backend import check_device, set_num_threads, use_device
from .data import add_data_commands
from .doctor import add_doctor
from .graph import add_graph
from .microscope import add_microscope
from .options import HelpFormatter
from .predicting import add_predicting
from .presets import add_presets
from .report import add_report
from .tools import add_tools
from .training import add_training

EPILOG = """\
examples:
  minitorch-unet demo
  minitorch-unet train --data images/ --base 16 --validation 20% --output runs/mine
  minitorch-unet train --resume --output runs/mine
  minitorch-unet train --preset padded_512 --base 16 --data images/ --output runs/padded
  minitorch-unet predict runs/mine new_images/ --output segmented/
  minitorch-unet predict runs/mine new_images/ --instances masks/ --split distance
  minitorch-unet predict runs/mine slide.npy --memory 1GiB --average flips
  minitorch-unet evaluate runs/mine --data held_out/ --json scores.json
  minitorch-unet doctor runs/mine
  minitorch-unet graph "relu(a @ b + c).sum()"
  minitorch-unet inspect runs/mine image.png --label label.png -o inside.html
  minitorch-unet report runs/mine
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(argv)
    try:
        if getattr(options, "threads", None):
            set_num_threads(options.threads)
        if getattr(options, "device", None) and options.command != "plan":  # which only reckons
            options.device = check_device(options.device)
            use_device(options.device)
        return options.run(options)
    except BrokenPipeError:  # the reader (head, say) has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print(f"minitorch-unet {options.command}: interrupted", file=sys.stderr)
        return 130
    except (ValueError, TypeError, FloatingPointError, OSError) as error:
        if os.environ.get("MINITORCH_UNET_TRACEBACK"):
            raise
        print(f"minitorch-unet {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="minitorch-unet",
        description="Train, apply and examine the original valid-convolution U-Net, on plain NumPy or on a CUDA GPU.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minitorch-unet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, usage: str | None = None
    ) -> argparse.ArgumentParser:
        description = text[0].upper() + text[1:] + "."
        sub = commands.add_parser(name, help=text, description=description, usage=usage, formatter_class=HelpFormatter)
        sub.set_defaults(run=run)
        return sub

    add_training(command)
    add_predicting(command)
    add_data_commands(command)
    add_doctor(command)
    add_graph(command)
    add_microscope(command)
    add_report(command)
    add_presets(command)
    add_tools(command)
    return parser
