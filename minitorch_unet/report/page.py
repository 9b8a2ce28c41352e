"""The page of a run: made from what its folder holds, as a file or in a notebook."""

from __future__ import annotations

import os
from pathlib import Path

from ..files import atomic_write
from ..pages import asset, escape, page
from . import facts, sections
from .story import Story

PAGE = "report.html"
_FOOT = (
    '<footer class="quiet small">Written by minitorch-unet; <code>minitorch-unet report</code> makes it anew.</footer>'
)


class Report:
    """A run's report: `Report("runs/mine")` at the end of a notebook's cell shows it, `html()` is the whole page.

    Raises DataError for a folder that holds no run.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.story = Story(Path(folder))

    def html(self) -> str:
        """One HTML page that needs nothing beside itself."""
        story = self.story
        body = "".join(
            part(story)
            for part in (
                sections.head, sections.curves, sections.examples, sections.layers, facts.operations, facts.data,
                facts.settings,
            )
        )  # fmt: skip
        style = asset("report.css", "minitorch_unet.report")
        return page(f"Training run {story.folder.resolve().name}", f"<main>{body}</main>{_FOOT}", style)

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that neither its style nor the notebook's reaches the other."""
        frame = "width:100%;height:720px;border:1px solid #8888;border-radius:6px"
        return f'<iframe title="training run" sandbox="" style="{frame}" srcdoc="{escape(self.html())}"></iframe>'

    def __repr__(self) -> str:
        return f"Report({str(self.story.folder)!r}): {self.story.status()}"


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write report.html into a run's folder, from what is there; returns its path. Raises DataError for no run."""
    path = Path(folder) / PAGE
    atomic_write(path, Report(folder).html().encode())
    return path
