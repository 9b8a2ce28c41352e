"""Settings and fixtures that every test file shares."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import on_device
import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # on a GPU's machine, say: the files that need it are left out
    settings = None

REPOSITORY = Path(__file__).resolve().parents[1]

if settings is None:
    texts = {path: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    collect_ignore = [path.name for path, text in texts.items() if "\nfrom hypothesis import" in text]
else:
    # derandomize: the same examples in every run, so that a red test is red for everyone. One fixture for all examples
    # of a test is what is meant: the device they run on.
    settings.register_profile(
        "fixed", derandomize=True, deadline=None, print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    settings.load_profile("fixed")


@pytest.fixture(params=on_device.DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each device in turn; `on_device` makes Tensors on it."""
    with on_device.using(request.param):
        yield request.param


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of the folder benchmarks/ as a script there would."""
    folder = REPOSITORY / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module
    for name in [name for name, m in sys.modules.items() if str(folder) in str(getattr(m, "__file__", ""))]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real images that lies beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real images in {folder}, which are not part of the project")
    return folder
