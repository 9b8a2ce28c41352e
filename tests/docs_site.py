"""The modules of docs/site, which is no package."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"


def load(name: str) -> ModuleType:
    """A module of docs/site; its neighbours are found while it is imported."""
    sys.path.insert(0, str(SITE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SITE))
