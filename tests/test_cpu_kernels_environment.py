"""The compiled kernels in other processes: forced instruction sets, forks, PyTorch as neighbour, no compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitorch_unet.backend import compiled
from minitorch_unet.backend.cpu import ALGORITHMS

REPOSITORY = Path(__file__).resolve().parents[1]
TORCH_PYTHON = os.environ.get("MINITORCH_UNET_TORCH_PYTHON")
REQUIRED = os.environ.get("CI") == "true" or os.environ.get("MINITORCH_UNET_REQUIRE_KERNELS") == "1"
needs_kernels = pytest.mark.skipif(
    compiled.library_path() is None, reason="the kernels were not built: no C++ compiler at installation"
)
# Forward and backward through every kind of layer of the U-Net.
STEP = """
import sys
import numpy as np
from minitorch_unet import Tensor, functional as F
from minitorch_unet.backend.devices import kernels_of

def step():
    rng = np.random.default_rng(0)
    normal = lambda *shape: Tensor(rng.standard_normal(shape, dtype=np.float32), requires_grad=True)
    x, w, b, up = normal(2, 9, 34, 30), normal(17, 9, 3, 3), normal(17), normal(17, 8, 2, 2)
    y = F.max_pool2d(F.conv2d_relu(x, w, b), 2)
    z = F.conv_transpose2d(y, up, stride=2)
    (z * z).mean().backward()
    return [y.data, z.data, *(t.grad.data for t in (x, w, b, up))]
"""
# Prints the kernels in use, saves all results.
SAVE = """
kernels = kernels_of(np)
print(type(kernels).__name__, getattr(kernels, "algorithm", ""))
np.savez(sys.argv[1], *step())
"""


def run(*command: str | Path, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a Python, with the settings of the kernels only from `environment`."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MINITORCH_UNET_")}
    return subprocess.run(
        [str(word) for word in command], env=clean | {"OPENBLAS_NUM_THREADS": "1"} | environment, cwd=cwd,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def step(output: Path, cwd: Path = REPOSITORY, **environment: str) -> tuple[str, list[np.ndarray]]:
    """What STEP says and computes in a process of its own."""
    done = run(sys.executable, "-W", "error", "-c", STEP + SAVE, output, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    with np.load(output) as results:
        return done.stdout.strip(), [results[name] for name in results.files]


@pytest.fixture(scope="module")
def by_numpy(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Return the results without compiled kernels."""
    said, results = step(tmp_path_factory.mktemp("numpy") / "results.npz", MINITORCH_UNET_KERNELS="numpy")
    assert said == "Kernels"
    return results


def check_close(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for mine, right in zip(results, expected, strict=True):
        assert np.abs(mine - right).max() <= 1e-5 * np.abs(right).max()


def info(cwd: Path = REPOSITORY, **environment: str) -> str:
    """What `minitorch-unet info` says about the compiled kernels."""
    done = run(sys.executable, "-W", "error", "-m", "minitorch_unet", "info", cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("compiled kernels")]
    return line.removeprefix("compiled kernels").strip(" :")


@pytest.mark.skipif(not REQUIRED, reason="only where CI=true or MINITORCH_UNET_REQUIRE_KERNELS=1")
def test_the_kernels_were_built_where_they_must_be() -> None:
    assert compiled.available(), compiled.status()


# ----------------------------------------------------------- environment variables


@needs_kernels
@pytest.mark.parametrize("instruction_set", compiled.INSTRUCTION_SETS)
def test_a_forced_instruction_set(instruction_set: str, tmp_path: Path, by_numpy: list[np.ndarray]) -> None:
    probe = run(
        sys.executable, "-c", "from minitorch_unet.backend import compiled; compiled.status()",
        MINITORCH_UNET_KERNELS=instruction_set,
    )  # fmt: skip
    if "this processor supports" in probe.stderr:
        pytest.skip(f"this processor has no {instruction_set}")
    said, results = step(tmp_path / "results.npz", MINITORCH_UNET_KERNELS=instruction_set)
    assert said == "CpuKernels auto"
    check_close(results, by_numpy)
    assert info(MINITORCH_UNET_KERNELS=instruction_set) == f"in use, instruction set {instruction_set}"


@needs_kernels
def test_without_a_wish_the_best_instruction_set_is_used() -> None:
    assert info() in [f"in use, instruction set {name}" for name in compiled.INSTRUCTION_SETS]
    assert info(MINITORCH_UNET_KERNELS="") == info()


def test_numpy_alone_is_named() -> None:
    expected = "none (switched off by MINITORCH_UNET_KERNELS=numpy); NumPy serves every operation"
    assert info(MINITORCH_UNET_KERNELS="numpy") == expected


def test_an_unknown_instruction_set_is_one_line() -> None:
    done = run(sys.executable, "-m", "minitorch_unet", "info", MINITORCH_UNET_KERNELS="sse9")
    assert done.returncode == 2
    assert done.stderr == (
        "minitorch-unet info: MINITORCH_UNET_KERNELS is 'sse9'; legal are avx512, avx2, baseline, numpy\n"
    )


@needs_kernels
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_forced_algorithm(algorithm: str, tmp_path: Path, by_numpy: list[np.ndarray]) -> None:
    said, results = step(tmp_path / "results.npz", MINITORCH_UNET_CONV=algorithm)
    assert said == f"CpuKernels {algorithm}"
    check_close(results, by_numpy)


@needs_kernels
def test_an_unknown_algorithm_is_an_error() -> None:
    done = run(sys.executable, "-c", STEP + "step()", MINITORCH_UNET_CONV="fft")
    assert done.returncode == 1
    expected = "MINITORCH_UNET_CONV is 'fft'; legal are auto, naive, im2col, direct, winograd2, winograd4"
    assert done.stderr.splitlines()[-1] == f"ValueError: {expected}"


@needs_kernels
def test_one_thread_gives_the_same_bits(tmp_path: Path) -> None:
    results = [step(tmp_path / f"{n}.npz", MINITORCH_UNET_NUM_THREADS=n)[1] for n in ("1", "3")]
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


# ------------------------------------------------------------------- neighbours


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_the_same_after_use_in_the_parent() -> None:
    code = f"""{STEP}
import os
from minitorch_unet import set_num_threads
set_num_threads(2)
assert type(kernels_of(np)).__name__ == "CpuKernels"
before = step()
same = lambda: all(np.array_equal(a, b) for a, b in zip(before, step()))
child = os.fork()
if child == 0:
    os._exit(7 if same() and same() else 1)
in_parent = same()
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), in_parent)
"""
    done = run(sys.executable, "-c", code)
    assert done.stdout == "7 True\n", done.stderr


@needs_kernels
@pytest.mark.skipif(not TORCH_PYTHON, reason="needs PyTorch: set MINITORCH_UNET_TORCH_PYTHON to a Python that has it")
@pytest.mark.parametrize("order", ["torch first", "torch last"])
def test_beside_pytorch_in_one_process(order: str) -> None:
    """Both libraries take turns, in both orders of import, each with its own threads."""
    first, then = ("import torch\n", STEP) if order == "torch first" else (STEP, "import torch\n")
    code = f"""{first}{then}
from minitorch_unet import set_num_threads
set_num_threads(2)
torch.set_num_threads(2)
assert type(kernels_of(np)).__name__ == "CpuKernels"
first = step()
for _ in range(3):
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((2, 16, 40, 40), (24, 16, 3, 3)))
    theirs = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    ours = F.conv2d(Tensor(x), Tensor(w)).data
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert all(np.array_equal(a, b) for a, b in zip(first, step()))
print("the same")
"""
    done = run(str(TORCH_PYTHON), "-c", code, PYTHONPATH=str(REPOSITORY))
    assert done.stdout == "the same\n", done.stderr


# ------------------------------------------------------------------- no compiler


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a folder with the package as it is where no compiler was found."""
    ignored = shutil.ignore_patterns("__pycache__", "_cpu_kernels*")
    shutil.copytree(REPOSITORY / "minitorch_unet", tmp_path / "bare" / "minitorch_unet", ignore=ignored)
    shutil.copytree(REPOSITORY / "kernels", tmp_path / "bare" / "kernels")
    return tmp_path / "bare"


NOT_BUILT = "none (not built: no C++ compiler when the package was installed); NumPy serves every operation"


def test_without_the_library_numpy_serves_silently(tmp_path: Path, bare: Path, by_numpy: list[np.ndarray]) -> None:
    said, results = step(tmp_path / "results.npz", cwd=bare, PYTHONPATH=str(bare))
    assert said == "Kernels"
    assert all(np.array_equal(a, b) for a, b in zip(results, by_numpy, strict=True))
    assert info(cwd=bare, PYTHONPATH=str(bare)) == NOT_BUILT


@needs_kernels
def test_a_damaged_library_is_named(tmp_path: Path, bare: Path) -> None:
    library = compiled.library_path()
    assert library
    (bare / "minitorch_unet" / library.name).write_bytes(b"not a library")
    said, _ = step(tmp_path / "results.npz", cwd=bare, PYTHONPATH=str(bare))
    assert said == "Kernels"
    assert info(cwd=bare, PYTHONPATH=str(bare)).startswith("none (cannot be loaded: ")


@pytest.mark.skipif(os.name != "posix", reason="sets the compiler as on POSIX")
def test_installation_without_a_compiler(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "*.so", "tests"
    )
    checkout = shutil.copytree(REPOSITORY, tmp_path / "checkout", ignore=ignored)
    target = tmp_path / "target"
    done = run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
        "--target", target, checkout, cwd=tmp_path, CC="/bin/false", CXX="/bin/false",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(target.glob("minitorch_unet/_cpu_kernels*"))
    assert info(cwd=tmp_path, PYTHONPATH=str(target)) == NOT_BUILT
