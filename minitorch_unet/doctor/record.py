"""What the doctor says about one fault, and how it is shown."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

ERROR, WARNING = "error", "warning"
_WIDTH = 110


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """One fault: `severity` "error" or "warning", a `name` for programs, `what` it is, `evidence`, `advice`."""

    severity: str
    name: str
    what: str
    evidence: str
    advice: str


@dataclasses.dataclass(frozen=True)
class Report:
    """What was looked at, what could not be, and the diagnoses, errors first."""

    examined: list[str]
    notes: list[str]
    diagnoses: list[Diagnosis]

    @property
    def names(self) -> list[str]:
        """Names of the diagnoses, in order."""
        return [diagnosis.name for diagnosis in self.diagnoses]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The report for people: three pieces of text for each fault, at most 110 columns wide."""
        lines = [f"looked at {each}" for each in self.examined] + [f"note: {each}" for each in self.notes]
        for found in self.diagnoses:
            lines += ["", *_folded(f"{found.severity.upper()} {found.name}: ", found.what, "  ")]
            lines += _folded("  seen: ", found.evidence, " " * 8) + _folded("  do:   ", found.advice, " " * 8)
        counts = [_count([d for d in self.diagnoses if d.severity == kind], kind) for kind in (ERROR, WARNING)]
        return [*lines, "", " and ".join(counts) if self.diagnoses else "nothing wrong was found"]


def _folded(head: str, text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        head + text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _count(found: Sequence[Diagnosis], word: str) -> str:
    return f"{len(found)} {word}{'' if len(found) == 1 else 's'}"
