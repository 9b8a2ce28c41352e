"""The project's own tests on this device: those of the CUDA kernels, and the others' cases for it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from gpu_child import Failed, Item, Skipped

ROOT = Path(__file__).resolve().parents[2]
# Tests of the sources and of what compiles them need no GPU; compilation.py does that part here.
NO_DEVICE = ("test_cuda_compile.py",)
NEWER_LIBRARIES = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")  # warn of things to come


def items(settings: dict[str, Any]) -> list[Item]:
    files = [path for path in sorted((ROOT / "tests").glob("test_cuda_*.py")) if path.name not in NO_DEVICE]
    own = [(path.stem, lambda path=path: tested(settings, [str(path)])) for path in files]
    ignored = [f"--ignore={path}" for path in (ROOT / "tests").glob("test_cuda_*.py")]
    return [*own, ("cases for this device", lambda: tested(settings, ["tests", "-k", "cuda", *ignored]))]


def tested(settings: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Counts of passed, failed and skipped tests; failures with their messages, reasons of skips."""
    if settings["device"] == "simulate":
        raise Skipped("`make test` runs them in the simulator")
    for name in ("pytest", "ml_dtypes"):
        if importlib.util.find_spec(name) is None:
            raise Skipped(f"{name} is not installed")
    several = importlib.util.find_spec("xdist") is not None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
            *(f"-Wdefault::{name}" for name in NEWER_LIBRARIES),
            *(["-p", "xdist.plugin", "-n", "6"] if several else []), *arguments,
        ]  # fmt: skip
        # Without whatever other plugins are installed there: their warnings would be errors here.
        environment = {"MINITORCH_UNET_TEST_DEVICE": settings["device"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        environment = {**os.environ, **environment}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise Failed(f"pytest ended with code {done.returncode}: {(done.stdout + done.stderr)[-600:]}")
        return counted(ElementTree.parse(report).getroot(), done.returncode)


def counted(report: Any, code: int) -> dict[str, Any]:
    """The row for a JUnit report; raises Failed where a test failed or none was run."""
    row: dict[str, Any] = {"passed": 0, "failures": {}, "skips": {}}
    for test in report.iter("testcase"):
        bad = [child for child in test if child.tag in ("failure", "error")]
        skip = test.find("skipped")
        if bad:
            message = " ".join(str(bad[0].get("message")).split())
            row["failures"][f"{test.get('classname')}.{test.get('name')}"] = message[:400]
        elif skip is not None:
            reason = str(skip.get("message"))[:200]
            row["skips"][reason] = row["skips"].get(reason, 0) + 1
        else:
            row["passed"] += 1
    if importlib.util.find_spec("hypothesis") is None:  # conftest.py leaves them out
        texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py")}
        left_out = sorted(name for name, text in texts.items() if "\nfrom hypothesis import" in text)
        row["left_out"] = {"hypothesis is not installed": left_out}
    if row["failures"]:
        raise Failed(f"{len(row['failures'])} failed, {row['passed']} passed", **row)
    if code not in (0, 5):
        raise Failed(f"pytest ended with code {code}", **row)
    return row
