"""The engine and PyTorch give the same numbers: a recorded training run, and hundreds of random calls.

The run was recorded by tests/parity/record_trajectory.py; replaying it needs no PyTorch. The comparison of single calls
does: `make parity` provides one in an environment of its own and runs everything.
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from parity.trajectory import BASE, DEPTH, LEARNING_RATE, MOMENTUM, OUTPUT, STEPS, batches, initial_weights, magnitude

from minitorch_unet import functional as F
from minitorch_unet.optim import SGD
from minitorch_unet.tensor import Tensor
from minitorch_unet.unet import UNet

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDED = Path(__file__).parent / "fixtures" / "torch_trajectory.npz"
RELATIVE = 1e-10
TORCH_PYTHON = os.environ.get("MINITORCH_UNET_TORCH_PYTHON")
needs_torch = pytest.mark.skipif(
    not TORCH_PYTHON,
    reason="needs PyTorch: set MINITORCH_UNET_TORCH_PYTHON to a Python that has it, or run make parity",
)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """What PyTorch made of the run: `losses`, the final weights by name, and notes on the recording."""
    with np.load(RECORDED) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def replayed(recorded: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses and final weights of the same run in this engine."""
    model = UNet(base=BASE, depth=DEPTH, dtype=np.float64)
    start = initial_weights({name: p.shape for name, p in model.named_parameters()})
    assert magnitude(start) == pytest.approx(float(recorded["drawn"]), rel=1e-12), (
        "this NumPy draws other weights or batches than those of the recorded run; record it again"
    )
    model.load_state_dict(start)
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    losses = []
    for image, labels in batches():
        optimizer.zero_grad()
        scores = model(Tensor(image))
        assert scores.shape == (1, 2, OUTPUT, OUTPUT)
        loss = F.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), model.state_dict()


def distance(mine: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the largest expected magnitude."""
    assert mine.shape == expected.shape
    assert mine.dtype == expected.dtype == np.float64
    return float(np.abs(mine - expected).max() / np.abs(expected).max())


def test_losses_of_twenty_steps_are_pytorchs(
    recorded: dict[str, np.ndarray], replayed: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    assert recorded["losses"].shape == (STEPS,)
    assert distance(replayed[0], recorded["losses"]) < RELATIVE


def test_final_weights_are_pytorchs(
    recorded: dict[str, np.ndarray], replayed: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    weights = replayed[1]
    assert weights.keys() == recorded.keys() - {"losses", "drawn", "torch_version"}
    far = {name: distance(value, recorded[name]) for name, value in weights.items()}
    assert {name: error for name, error in far.items() if not error < RELATIVE} == {}


def run_script(*arguments: str | Path) -> str:
    """Run a script of tests/parity in the Python that has PyTorch and return what it printed."""
    done = subprocess.run(
        [str(TORCH_PYTHON), *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@needs_torch
def test_random_calls_give_what_pytorch_gives() -> None:
    table = run_script("tests/parity/compare_torch.py")
    print(table)
    assert "\nPASSED: " in table


@needs_torch
def test_recorded_run_is_the_one_that_the_script_records(recorded: dict[str, np.ndarray], tmp_path: Path) -> None:
    """The bits may differ where PyTorch's kernels do, on another processor, but no more."""
    print(run_script("tests/parity/record_trajectory.py", tmp_path / "again.npz"))
    with np.load(tmp_path / "again.npz") as again:
        assert set(again.files) == recorded.keys()
        assert max(distance(again[name], recorded[name]) for name in again.files if name != "torch_version") < RELATIVE
