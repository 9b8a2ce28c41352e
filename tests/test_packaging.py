"""Wheel, sdist and editable install are whole: kernels, metadata and the command are found from outside."""

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache"
)
PROBE = """
import minitorch_unet, minitorch_unet.kernels as kernels
from importlib.metadata import entry_points, version
print(minitorch_unet.__file__)
print(kernels.source_folder())
print(version("minitorch-unet") == minitorch_unet.__version__)
print(*[point.value for point in entry_points(group="console_scripts", name="minitorch-unet")])
"""

pytest.importorskip("build", reason="needs the package build, which .[test] installs")


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout's influence and return its output; show what it said if it fails."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the checkout, so that building leaves no trace in the real one."""
    return shutil.copytree(REPOSITORY, tmp_path / "checkout", ignore=NOT_COPIED)


def environment(folder: Path) -> Path:
    """Make an environment that sees this one's libraries, but not its editable installs; return its Python.

    The other site-packages folder is entered by a .pth line: .pth files inside such a folder are not read.
    """
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def install(python: Path, *arguments: str | Path, cwd: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed"]
    call(sys.executable, "-m", "pip", "--python", python, "install", *options, *arguments, cwd=cwd)


def check_probe(python: Path, package: Path, kernels: Path, cwd: Path) -> None:
    found = call(python, "-W", "error", "-c", PROBE, cwd=cwd).splitlines()
    assert found == [str(package / "__init__.py"), str(kernels), "True", "minitorch_unet.cli:main"]
    assert (kernels / "README.md").is_file()


@pytest.mark.skipif(os.name != "posix", reason="the environment's layout is that of POSIX")
def test_wheel_made_from_the_sdist(tmp_path: Path, checkout: Path) -> None:
    """`python -m build` makes the wheel from the unpacked sdist: what the sdist lacks is missing here too."""
    planted = {"cpu": ["a.cpp", "a.h"], "cuda": ["a.cu", "a.cuh"], "simulator": ["b.cpp", "b.h"]}
    for folder, names in planted.items():
        (checkout / "kernels" / folder).mkdir(exist_ok=True)
        for name in names:
            (checkout / "kernels" / folder / name).write_text("// planted\n")
    output = tmp_path / "dist"
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", output, checkout, cwd=tmp_path)
    (wheel,) = output.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in (checkout / "minitorch_unet").rglob("*.py"):
        assert path.relative_to(checkout).as_posix() in inside
    for path in (checkout / "minitorch_unet").rglob("*.*"):
        if path.suffix in (".css", ".html", ".js"):
            assert path.relative_to(checkout).as_posix() in inside
    for folder, names in planted.items():
        assert {f"minitorch_unet/kernels/{folder}/{name}" for name in names} <= inside
    assert not [name for name in inside if name.startswith(("tests", "kernels"))]

    python = environment(tmp_path / "env")
    install(python, wheel, cwd=tmp_path)
    (package,) = (tmp_path / "env").glob("lib/python*/site-packages/minitorch_unet")
    check_probe(python, package, package / "kernels", cwd=tmp_path)
    # In the checkout's root the checkout is imported, as with `python -m pytest`, with its own kernels.
    check_probe(python, checkout / "minitorch_unet", checkout / "kernels", cwd=checkout)


@pytest.mark.skipif(os.name != "posix", reason="the environment's layout is that of POSIX")
def test_editable_install(tmp_path: Path, checkout: Path) -> None:
    python = environment(tmp_path / "env")
    install(python, "--editable", checkout, cwd=tmp_path)
    for cwd in (tmp_path, checkout):
        check_probe(python, checkout / "minitorch_unet", checkout / "kernels", cwd=cwd)


def test_every_package_is_listed() -> None:
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    listed = set(settings["options"]["packages"].split())
    folders = {
        path.parent.relative_to(REPOSITORY).as_posix().replace("/", ".")
        for path in (REPOSITORY / "minitorch_unet").rglob("__init__.py")
    }
    assert listed == folders | {"minitorch_unet.kernels"}


def test_commands_of_readme_are_found() -> None:
    readme = load_script(REPOSITORY / ".ci" / "readme_blocks.py")
    text = (
        "one\n```sh\nmake test   # all\necho hi\n```\n```console\n$ false\n```\n"
        "<!-- ci: skip needs a GPU -->\n```python\nprint(1)\n```\n```python\nprint(2)\n```\n"
    )
    assert readme.find_blocks(text) == [
        (2, "sh", "make test   # all\necho hi\n", None),
        (10, "python", "print(1)\n", "needs a GPU"),
        (13, "python", "print(2)\n", None),
    ]
    assert readme.without_already_run("make test   # all\necho hi\n").splitlines()[1:] == ["echo hi"]
    assert readme.without_already_run("make tests\n") == "make tests\n"


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
