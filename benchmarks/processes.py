"""What the benchmarks that start others share: running a command for its JSON line, and describing the machine."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

# Fixes OpenBLAS to a processor type it may not be best for: a measurement is to see the library's own choice.
NOT_HANDED_DOWN = ("OPENBLAS_CORETYPE",)


class Failed(Exception):
    """A command ended badly; the text says which, and what it said."""

    @property
    def reason(self) -> str:
        """One line: the first of the last exception's message, else the last line."""
        lines = str(self).strip().splitlines()
        raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Warning)\b", line)]
        return (raised or lines)[-1].strip()


def run_json(
    command: list[str], extra: dict[str, str] | None = None, given: str = "", seconds: float | None = None
) -> dict:
    """The JSON object on the last line that a command prints. `extra` environment, `given` on its standard input."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_HANDED_DOWN} | (extra or {})
    try:
        done = subprocess.run(
            command, env=environment, input=given, capture_output=True, text=True, timeout=seconds, check=False
        )
    except OSError as error:
        raise Failed(f"{shlex.join(command)} cannot be started:\n{error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{shlex.join(command)} was ended:\nnot done after {seconds:.0f} s") from error
    if done.returncode:
        raise Failed(f"{shlex.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
