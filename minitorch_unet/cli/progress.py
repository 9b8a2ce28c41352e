"""The progress bar of commands that take their time."""

from __future__ import annotations

import sys
from typing import Any

Event = dict[str, Any]


class Progress:
    """A progress bar on the standard error output (none when quiet or not a terminal), fed with events or counts."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def __enter__(self) -> Progress:
        from tqdm import tqdm

        self.bar = tqdm(disable=True if self.quiet else None, unit="step", dynamic_ncols=True)
        return self

    def __exit__(self, *error: Any) -> None:
        self.bar.close()

    def report(self, event: Event) -> None:
        """A training event: a step moves the bar, an epoch prints its scores."""
        if event["event"] == "step":
            self.bar.total = event["steps_in_all"]
            self.bar.n = event["step"]
            self.bar.set_postfix_str(f"loss {event['loss']:.3f}")
        elif event["event"] == "epoch":
            mark = " *" if event["best"] else ""
            text = f"epoch {event['epoch']}: validation loss {event['loss']:.4f}, IoU {event['mean_iou']:.4f}, "
            self.write(f"{text}Dice {event['mean_dice']:.4f}, {event['seconds']:.0f} s{mark}")
        else:
            self.write(f"{'stopped' if event['event'] == 'stop' else 'failed'}: {event['reason']}")

    def count(self, done: int, total: int) -> None:
        """So many of so many done."""
        self.bar.total, self.bar.n = total, done
        self.bar.refresh()

    def step(self, name: str) -> None:
        """One more of unknown many done."""
        self.bar.set_postfix_str(name)
        self.bar.update()

    def write(self, text: str) -> None:
        """A line above the bar."""
        self.bar.write(text, file=sys.stdout)
        sys.stdout.flush()
