"""The table that `minitorch-unet gradcheck` prints: every case, checked once and twice over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .gradcheck_cases import Case, function_cases
from .gradcheck_modules import module_cases
from .testing import gradcheck, gradgradcheck


@dataclass(frozen=True)
class Row:
    """One case: largest relative errors (None: not checked twice), kinks skipped, and what failed ('' if nothing)."""

    name: str
    error: float
    second_error: float | None
    kinks: int
    message: str

    @property
    def passed(self) -> bool:
        """Whether all checks of the case passed."""
        return not self.message


def all_cases() -> list[Case]:
    """Every case, in the order of the table."""
    return [*function_cases(), *module_cases()]


def check_case(case: Case, device: str = "cpu") -> Row:
    """Gradcheck, and for a smooth case gradgradcheck, of one case."""
    function, inputs = case.make(device)
    first = gradcheck(function, inputs, mode=case.mode, raise_exception=False)
    if not case.smooth:
        return Row(case.name, first.max_relative_error, None, first.kinks, first.message)
    second = gradgradcheck(function, inputs, mode=case.mode, raise_exception=False)
    return Row(
        case.name, first.max_relative_error, second.max_relative_error, first.kinks + second.kinks,
        "; ".join(m for m in (first.message, second.message) if m),
    )  # fmt: skip


def run_table(
    filter: str | None = None, progress: Callable[[Row], None] | None = None, device: str = "cpu"
) -> list[Row]:
    """Check all cases whose name contains `filter`; `progress` is called with each row as it is finished.

    On other devices than the processor, without the cases that are `host_only`. Raises ValueError if no case's name
    contains it.
    """
    cases = [case for case in all_cases() if filter is None or filter in case.name]
    cases = [case for case in cases if device == "cpu" or not case.host_only]
    if not cases:
        raise ValueError(f"gradcheck: filter {filter!r} matches no case; try 'functional.', 'nn.' or 'conv'")
    rows = []
    for case in cases:
        rows.append(check_case(case, device))
        if progress is not None:
            progress(rows[-1])
    return rows


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, failures explained below, and a last line that counts them."""
    width = max([len(row.name) for row in rows] + [len("case")])
    lines = [f"{'case':{width}}  {'gradcheck':>9}  {'gradgrad':>9}  kinks  status"]
    for row in rows:
        second = "-" if row.second_error is None else f"{row.second_error:.1e}"
        status = "ok" if row.passed else "FAILED"
        lines.append(f"{row.name:{width}}  {row.error:9.1e}  {second:>9}  {row.kinks:5d}  {status}")
    lines += [f"{row.name}: {row.message}" for row in rows if not row.passed]
    failed = sum(not row.passed for row in rows)
    lines.append(f"{len(rows)} cases, {failed} failed" if failed else f"{len(rows)} cases, all passed")
    return "\n".join(lines)
