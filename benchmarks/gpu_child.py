"""The process that works off a stage's items for gpu.py, and says how far it is, line by line, into a file."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Item = tuple[str, Callable[[], dict[str, Any]]]


class Skipped(Exception):
    """An item cannot be done here; the text says why."""


class Failed(Exception):
    """An item found something wrong; `row` holds the figures that show it."""

    def __init__(self, text: str, **row: Any) -> None:
        super().__init__(text)
        self.row = row


def main() -> None:
    module, said, first, settings = sys.argv[1:]
    with Path(said).open("a") as file:

        def say(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")
            file.flush()

        items = importlib.import_module(module).items(json.loads(settings))
        say(planned=len(items))
        for index, (name, work) in enumerate(items):
            if index < int(first):
                continue
            say(begin=name, index=index)
            row, lost = done(work)
            say(item=name, row=row, lost=lost)
            if lost:
                sys.exit(3)
        say(complete=True)


def done(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """The item's row, or why there is none; and whether the device is lost to this process."""
    try:
        return work(), False
    except Skipped as reason:
        return {"skipped": str(reason)}, False
    except Failed as found:
        return {"failed": str(found), **found.row}, False
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"failed": f"{text} ({Path(where.filename).name}:{where.lineno})"[:2000]}, device_lost()


def device_lost() -> bool:
    """Whether CUDA refuses everything from now on, as it does after an illegal address or a kernel's trap."""
    cupy = sys.modules.get("cupy")
    if cupy is None or not hasattr(cupy, "cuda"):
        return False
    try:
        cupy.cuda.runtime.deviceSynchronize()
        return False
    except Exception:
        return True


if __name__ == "__main__":
    import gpu_child  # the stages raise the exceptions of the module of this name

    gpu_child.main()
