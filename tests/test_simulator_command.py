"""`minitorch-unet simulate` as a user meets it: the examples, their planted mistakes, the tutorial."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minitorch_unet.simulator import build
from minitorch_unet.simulator.errors import HINTS

pytestmark = pytest.mark.skipif(build.unavailable_reason() is not None, reason=str(build.unavailable_reason()))
ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "cuda"
PAGE = ROOT / "docs" / "simulator.md"


def simulate(*arguments: object, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "minitorch_unet", "simulate", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | how.pop("environment", {})
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **how)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_make_no_mistakes(path: Path) -> None:
    done = simulate(path, "--check", "--seed", 3)
    assert (done.returncode, done.stderr) == (0, "")
    error = float(re.search(r"error ([\d.e+-]+)", done.stdout)[1])
    assert error < 1e-3


@pytest.mark.parametrize(
    ("name", "define", "kind", "code"),
    [
        ("vector_add", "NO_TEST", "out of bounds", "c[i] = a[i] + b[i];"),
        ("matrix_product", "NO_FIRST_BARRIER", "race", None),
        ("matrix_product", "NO_SECOND_BARRIER", "race", None),
        ("reduction", "HALF_A_WARP", "warp", "for (int bit = 16; bit > 0; bit /= 2) sum += __shfl_xor_sync("),
        ("convolution", "NARROW", "index", "part[y][x] = "),
    ],
)
def test_planted_mistakes_of_the_examples(name: str, define: str, kind: str, code: str | None) -> None:
    path = EXAMPLES / f"{name}.py"
    done = simulate(path, "--check", "--", "--define", define)
    assert done.returncode == 1 and done.stdout == ""
    first, where, what, place, line, *hint = done.stderr.splitlines()
    assert re.fullmatch(rf"KERNEL ERROR in \w+: {kind}", first)
    assert re.fullmatch(r"  block \(\d+, \d+, \d+\), thread \(\d+, \d+, \d+\)", where)
    found = re.fullmatch(rf"  {name}\.py:(\d+)", place)
    assert path.read_text(encoding="utf-8").splitlines()[int(found[1]) - 1].strip() == line.strip()
    assert line.strip().startswith(code or "")
    assert what.startswith("  ") and hint[0].startswith("  look for: ")


SCRIPT = '''
import sys
import cupy as cp
import numpy as np

kernel = cp.RawKernel("""
extern "C" __global__ void f(int* y) {
  y[threadIdx.x] = VALUE;
}
""", "f", options=("-DVALUE=" + sys.argv[1],))
y = cp.zeros(4, np.int32)
kernel((1,), (4,), (y,))
print(sys.argv[1:], y.get().tolist())
'''


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_arguments_go_to_the_script(script) -> None:
    done = simulate(script, "7", "--check", "-x")
    assert (done.returncode, done.stdout) == (0, "['7', '--check', '-x'] [7, 7, 7, 7]\n"), done.stderr
    done = simulate("--check", script, "--seed", 1, "--", "--check")
    assert done.returncode == 1  # -DVALUE=--check
    done = simulate(script, "7", environment={"MINITORCH_UNET_SIMULATOR": "nonsense"})
    assert done.returncode == 0  # what the command line says counts


def test_a_script_ends_as_it_would_by_itself(script) -> None:
    script.write_text("import cupy\nprint(cupy.__name__)\nraise SystemExit(7)\n")
    assert simulate(script).returncode == 7
    script.write_text("def f():\n    return [][1]\n\nf()\n")
    done = simulate(script)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "IndexError: list index out of range"
    assert done.stderr.splitlines()[1] == f'  File "{script}", line 4, in <module>'  # nothing of ours before it


def test_what_does_not_compile(script) -> None:
    done = simulate(script, "nothing")
    assert done.returncode == 1
    assert "does not compile" in done.stderr and "kernel.cu:3" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no_such.py"], "there is no file no_such.py"),
        (["SCRIPT", "--check", "--count"], "exclude each other"),
        (["SCRIPT", "--seed"], "--seed needs a whole number"),
        (["SCRIPT", "--seed", "x"], "invalid literal"),
    ],
)
def test_wrong_use_is_one_line(script, arguments: list[str], text: str) -> None:
    done = simulate(*(str(script) if a == "SCRIPT" else a for a in arguments))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and text in done.stderr
    assert done.stderr.startswith("minitorch-unet simulate: ")


def test_no_compiler_is_one_line(script) -> None:
    done = simulate(script, "1", environment={"CXX": "no-such-compiler"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "install g++" in done.stderr


def test_counts_follow_the_output() -> None:
    done = simulate(EXAMPLES / "convolution.py", "--count")
    assert done.returncode == 0
    head, *rows = done.stdout.split("\n\n")[1].splitlines()[1:]
    assert head.split() == ["line", "memory", "access", "requests", "needed", "least", "ratio"]
    filters = [row for row in rows if "global  load" in row and row.endswith("1.00")]
    assert len(rows) == 5 and len(filters) == 1  # all lanes read one weight: one sector


def test_the_tutorial_names_all_kinds_of_mistakes() -> None:
    rows = re.findall(r"^\| ([a-z, ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    raised = set(HINTS)
    for path in (ROOT / "kernels" / "simulator").iterdir():
        raised |= set(re.findall(r'(?:fail_at\([\w.]+,\s*|fail_as\()"([a-z ]+)"', path.read_text(encoding="utf-8")))
    assert {"race", "wgmma", "trap"} < raised
    assert raised <= {kind for row in rows for kind in row.split(", ")}


def test_commands_of_the_tutorial(tmp_path) -> None:
    """The page's script is written to a file, its console blocks are run, and all that they print is compared."""
    text = PAGE.read_text(encoding="utf-8")
    (listing,) = re.findall(r"^```py\n(# smooth\.py.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "smooth.py").write_text(listing)
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    command = f'minitorch-unet() {{ "{sys.executable}" -W error -m minitorch_unet "$@"; }}'
    for block in blocks:
        for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            shell = ["bash", "-c", f"{command}\n{found[1]}"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                shell, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                check=False,
            )  # fmt: skip
            assert done.stdout.strip() == found[2].strip(), found[1]
