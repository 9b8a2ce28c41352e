"""The process that works off a stage's items for gpu.py, and says how far it is, line by line, into a file."""

from __future__ import annotations

import importlib
import json
import operator
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
        row = work()
    except Skipped as reason:
        row = {"skipped": str(reason)}
    except Failed as found:
        row = {"failed": str(found), **found.row}
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        where = traceback.extract_tb(error.__traceback__)[-1]
        row = {"failed": f"{text} ({Path(where.filename).name}:{where.lineno})"[:2000]}
    lost = device_lost()
    return ({"failed": lost, **row} if lost else row), bool(lost)


def device_lost() -> str:
    """What CUDA answers if it refuses everything from now on, as after an illegal address; "" if all is well."""
    for library, wait in (("cupy", "runtime.deviceSynchronize"), ("torch", "synchronize")):
        cuda = getattr(sys.modules.get(library), "cuda", None)
        if cuda is None or (library == "torch" and not cuda.is_initialized()):
            continue
        try:
            operator.attrgetter(wait)(cuda)()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    import gpu_child  # the stages raise the exceptions of the module of this name

    gpu_child.main()
