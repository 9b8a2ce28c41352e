"""The command report: the page of a run, made anew."""

from __future__ import annotations

import argparse

from .options import Command, path_option


def add_report(command: Command) -> None:
    """Add the parser; `command` is what build_parser adds commands with."""
    report = command("report", run_report, "write the page that tells a run's story, from what its folder holds")
    path_option(report, "run_folder", "RUN", "a run's folder")


def run_report(options: argparse.Namespace) -> int:
    """`minitorch-unet report`."""
    from ..report import write_report

    print(f"look at {write_report(options.run_folder)}")
    return 0
