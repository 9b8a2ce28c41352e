"""What importing the package costs, and which module may import which."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "minitorch_unet"

# A room is a module or a folder inside the package. An import must lead to a room of lower rank or stay
# in its room. Rooms of equal rank stand beside each other and do not know each other.
RANKS = {
    "errors": 0,
    "kernels": 0,
    "files": 1,
    "svg": 0,
    "shades": 0,
    "tables": 0,
    "pages": 1,
    "checkpoint": 2,
    "config": 2,
    "simulator": 1,
    "backend": 2,
    "notebook": 2.5,
    "ops": 3,
    "tensor": 4,
    "functional": 5,
    "profiler": 5,
    "testing": 6,
    "nn": 6,
    "metrics": 7,
    "instances": 7,
    "data": 7,
    "schedules": 1,
    "optim": 7,
    "layered": 0,
    "expressions": 6,
    "module_groups": 7,
    "summary": 7,
    "autograd_graph": 7.5,
    "amp": 7.5,
    "graphs": 6,
    "gradients": 8,
    "unet": 7,
    "presets": 7.5,
    "shapes": 7.5,
    "planner": 8,
    "planner_gpu": 8,
    "plots": 8,
    "info": 8,
    "gradcheck_cases": 8,
    "gradcheck_modules": 9,
    "gradcheck_table": 10,
    "batches": 8,
    "tiled": 8,
    "predict": 8.5,
    "scoring": 8,
    "score_choice": 9,
    "evaluate": 9,
    "runs": 8,
    "steps": 9,
    "train": 10,
    "report": 11,
    "demo": 12,
    "doctor": 11,
    "microscope": 11,
    "course": 12,
    "cli": 13,
    "__main__": 14,
}
# What `import minitorch_unet` itself may load: nothing above the model.
FACADE = "__init__"
FACADE_RANK = 8

LAZY = ["cupy", "matplotlib", "scipy", "PIL", "safetensors", "tqdm", "tifffile", "imagecodecs", "tensorboardX"]


def test_import_is_light() -> None:
    code = f"import sys, minitorch_unet; print([name for name in {LAZY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def imported_rooms(
    source: str, module: tuple[str, ...], is_package: bool, rooms: set[str]
) -> Iterator[tuple[int, str]]:
    """Yield (line, room) for every import of the package in `source`, at any depth.

    module: the module's path below the package: ("ops", "conv"); () is the package itself.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                here = ("minitorch_unet", *module)
                base = here[: len(here) - node.level + is_package] + base
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "kernels":
                yield node.lineno, "kernels"
            elif target[0] == "minitorch_unet" and len(target) > 1 and target[1] in rooms:
                yield node.lineno, target[1]
            elif target[0] == "minitorch_unet" and target[1:2] != ("__version__",):
                yield node.lineno, FACADE


def violations(sources: dict[str, str], ranks: dict[str, int]) -> list[str]:
    """Return a sentence for each import that leads up or sideways.

    sources: the text of each file by its path in the package.
    """
    rooms = {path.split("/")[0].removesuffix(".py") for path in sources} - {FACADE}
    found = [f"{room}: give it a rank in tests/test_imports.py" for room in sorted(rooms - set(ranks))]
    for path, source in sources.items():
        parts = tuple(path.removesuffix(".py").split("/"))
        is_package = parts[-1] == FACADE
        room = parts[0]
        module = parts[:-1] if is_package else parts
        for line, target in imported_rooms(source, module, is_package, rooms | set(ranks)):
            up = ranks.get(target, FACADE_RANK) >= ranks.get(room, FACADE_RANK)
            if up and target != room:
                found.append(f"{path}:{line}: {room} must not import {target}")
    return found


def test_imports_point_one_way() -> None:
    sources = {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
        for path in PACKAGE.rglob("*.py")
    }
    assert len(sources) > 5
    assert not violations(sources, RANKS)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/conv.py", "from ..tensor import Tensor"),
        ("ops/conv.py", "from .. import tensor"),
        ("ops/__init__.py", "from ..tensor import Tensor"),
        ("ops/conv.py", "def f():\n    from minitorch_unet.tensor import Tensor"),
        ("ops/conv.py", "import minitorch_unet.functional as F"),
        ("tensor.py", "from minitorch_unet import nn"),
        ("tensor.py", "from . import functional"),
        ("tensor.py", "import minitorch_unet"),
        ("tensor.py", "from minitorch_unet import Tensor"),
        ("optim.py", "from .unet import UNet"),
        ("unet.py", "if True:\n    import minitorch_unet.data.tiles"),
        ("backend/__init__.py", "from ..ops import conv"),
        ("__init__.py", "from .train import train"),
        ("novelty.py", ""),
    ],
)
def test_arrows_that_run_up_are_found(path: str, source: str) -> None:
    assert len(violations({path: source}, RANKS)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/conv.py", "from .elementwise import add\nfrom . import reduce\nfrom ..backend import cpu"),
        ("ops/__init__.py", "from .conv import conv2d\nfrom . import conv"),
        ("backend/cpu.py", "from minitorch_unet.kernels import source_folder"),
        ("kernels.py", "from kernels import source_folder"),
        ("cli.py", "from minitorch_unet import __version__, train\nimport json"),
        ("__init__.py", "from .tensor import Tensor\nfrom . import nn"),
        ("__main__.py", "from .cli import main"),
    ],
)
def test_arrows_that_run_down_are_accepted(path: str, source: str) -> None:
    assert violations({path: source}, RANKS) == []
