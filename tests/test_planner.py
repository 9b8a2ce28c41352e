"""The planner against steps that were really taken, counted in bytes of arrays, and against sums made by hand."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from minitorch_unet import Tensor, UNet, UNetSizes, cli, manual_seed, no_grad, optim, planner, set_num_threads
from minitorch_unet import functional as F
from minitorch_unet.backend import (
    compiled,
    devices,
    dry_run,
    get_num_threads,
    library,
    memory,
    simulator_unavailable_reason,
)
from minitorch_unet.planner import Moment, bytes_of, format_plan, largest_size, plan, plan_prediction
from minitorch_unet.planner_gpu import OPTIMIZERS, format_gpu_plan, plan_gpu

needs_kernels = pytest.mark.skipif(not compiled.available(), reason="plans are of the compiled kernels")


@pytest.fixture
def count_small_arrays(monkeypatch) -> None:
    monkeypatch.setattr(memory, "LARGE", 256)


def really(size: int, base: int, batch: int, recompute: bool) -> list[Moment]:
    """The moments of a second step with a network of numbers."""
    network = UNet(base=base, recompute=recompute)
    rng = np.random.default_rng(0)
    image = Tensor(rng.standard_normal((batch, 1, size, size), dtype=np.float32))
    out = network.sizes.output_size(size)
    label = rng.integers(0, 2, (batch, out, out))
    optimizer = optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    for _ in range(2):
        moments = planner.record_step(network, image, label, optimizer)
    return moments


# ------------------------------------------------------------------------------------- against real steps


@needs_kernels
@pytest.mark.parametrize(
    ("size", "base", "batch", "recompute"), [(188, 8, 1, False), (204, 4, 2, True), (188, 8, 1, True)]
)
def test_the_plan_of_a_step_is_what_a_real_step_does(count_small_arrays, size, base, batch, recompute) -> None:
    planned = plan(size, base, batch, recompute=recompute).moments
    measured = really(size, base, batch, recompute)
    assert [m[:5] for m in planned] == [m[:5] for m in measured]
    assert max(m.live for m in planned) > 0 and planned[-1].live == 0


@needs_kernels
def test_scratch_is_what_threads_really_hold() -> None:
    before = get_num_threads()
    held: list[int] = []

    def work() -> None:
        really(188, 16, 1, False)
        held.append(sum(buffer.nbytes for buffer in compiled._scratch.buffers.values()))

    try:
        set_num_threads(1)  # then everything happens on the thread that calls, which is a new one
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        set_num_threads(before)
    planned = plan(188, 16, threads=1).scratch
    assert planned == held[0]
    assert planned < plan(188, 16, threads=3).scratch < 3 * planned


@needs_kernels
def test_a_prediction_needs_what_its_maps_need(count_small_arrays) -> None:
    size, base = 188, 8
    network = UNet(base=base)
    live = peak = 0

    def watch(number: int, change: int) -> None:
        nonlocal live, peak
        live += change
        peak = max(peak, live)

    with no_grad(), memory.watched(watch):
        network(Tensor(np.zeros((1, 1, size, size), np.float32)))
    found = plan(size, base)
    fixed = found.parameters + found.scratch
    assert fixed + peak <= found.prediction < fixed + peak + planner.OVERHEAD + (2 << 20)
    assert found.prediction < found.total


@needs_kernels
@pytest.mark.parametrize(
    "settings",
    [
        {"base": 4, "depth": 2, "padding": "same", "up": "nearest", "norm": "batch"},
        {"base": 4, "depth": 2, "up_relu": True, "wide_last_up": True, "up_first": True, "in_channels": 3},
        {"base": 8, "depth": 3, "num_classes": 4},
    ],
)
def test_a_prediction_of_any_network_and_shape_needs_what_its_maps_need(count_small_arrays, settings) -> None:
    network = UNet(**settings)
    network.eval()
    height, width = network.sizes.input_size(60), network.sizes.input_size(100)
    live = peak = 0

    def watch(number: int, change: int) -> None:
        nonlocal live, peak
        live += change
        peak = max(peak, live)

    with no_grad(), memory.watched(watch):
        network(Tensor(np.zeros((1, network.config["in_channels"], height, width), np.float32)))
    found = plan_prediction(network.config, height, width)
    parameters = sum(p.data.nbytes for p in network.parameters())
    assert parameters + peak + planner.OVERHEAD <= found < parameters + peak + planner.OVERHEAD + (8 << 20)


def test_two_plans_of_the_same_prediction_agree() -> None:
    """That of a step counts its labels, and the scratch of the backward pass."""
    found, of_a_step = plan_prediction({"base": 16, "depth": 4}, 572, 572), plan(572, 16).prediction
    assert 0.8 * of_a_step < found < of_a_step


# ------------------------------------------------------------------------------------------ sums by hand


def kept_by_hand(size: int, base: int, recompute: bool) -> int:
    """Bytes of what the backward pass needs: every block's result, some maps between convolutions, one upsampled."""
    n = dict(UNetSizes().trace(size))
    remade = {"down 0", "down 1"} | ({"down 2", "down 3", "merge 1"} if recompute else set())
    total = 0
    for stage, pixels in n.items():
        kind, _, level = stage.partition(" ")
        if kind in ("down", "merge"):
            channels = base * 2 ** int(level)
            total += 4 * channels * (pixels**2 + (0 if stage in remade else (pixels + 2) ** 2))
        elif stage == "up 3" and not recompute:
            total += 4 * base * 8 * pixels**2
    return total


@pytest.mark.parametrize("recompute", [False, True])
def test_what_is_kept_at_the_end_of_the_forward_pass_by_hand(count_small_arrays, recompute: bool) -> None:
    moments = plan(188, 8, recompute=recompute).moments
    last = [m for m in moments if m.phase == "forward"][-1]
    scores = 2 * 4 * 4 * 4  # too small to count, like the image
    assert scores < memory.LARGE
    assert last.kept == kept_by_hand(188, 8, recompute)


def test_the_papers_network_by_hand() -> None:
    usual, less = plan(572), plan(572, recompute=True, optimizer="adam")
    assert usual.parameters == 4 * 31_030_658
    assert (usual.state, less.state) == (usual.parameters, 2 * usual.parameters)
    for found, recompute in ((usual, False), (less, True)):
        kept = max(m.kept for m in found.moments)
        assert abs(kept - kept_by_hand(572, 64, recompute)) < 4 << 20  # the scores
    assert less.peak.resident < 0.9 * usual.peak.resident
    assert [m.phase for m in usual.moments] == sorted((m.phase for m in usual.moments), reverse=True)
    stages = list(dict.fromkeys(m.stage for m in usual.moments))
    down, up = [f"down {i}" for i in range(5)], [f"{k} {i}" for i in (3, 2, 1, 0) for k in ("up", "merge")]
    assert stages == [*down, *up, "head"]


def test_planning_takes_little_memory_itself() -> None:
    """In a process of its own: the paper's network would take some 660 MiB."""
    code = (
        "import resource; from minitorch_unet.planner import plan\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); found = plan(572); print(peak() - before, found.total // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, planned = map(int, done.stdout.split())
    assert planned > 500_000 and grown < planned / 4


# ------------------------------------------------------------------------------------------------- dry runs


def test_numbers_are_right_again_after_a_plan() -> None:
    manual_seed(0)
    network = UNet(base=8, depth=1)
    x = Tensor(np.random.default_rng(0).standard_normal((1, 1, 28, 28), dtype=np.float32))
    expected = network(x).data.copy()
    plan(188, 4)
    assert np.array_equal(network(x).data, expected) and np.abs(expected).max() > 0


def test_a_dry_run_computes_nothing() -> None:
    x, weight = (Tensor(np.ones(shape, np.float32)) for shape in ((1, 2, 8, 8), (3, 2, 3, 3)))
    with dry_run() as record:
        y = F.conv2d(x, weight)
    assert y.shape == (1, 3, 6, 6) and not y.data.any()
    assert record.scratch_bytes > 0
    assert F.conv2d(x, weight).data.min() == 18


def test_a_plan_without_compiled_kernels_is_for_them() -> None:
    code = "from minitorch_unet.planner import plan; print([m[:5] for m in plan(188, 16).moments])"
    environment = os.environ | {"MINITORCH_UNET_KERNELS": "numpy"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str([m[:5] for m in plan(188, 16).moments])


def test_one_dry_run_at_a_time_and_none_after_a_failure() -> None:
    with dry_run(), pytest.raises(RuntimeError, match="another dry run"), dry_run():
        pass
    with pytest.raises(ValueError, match="size 200 is not legal"):
        plan(200)
    with dry_run():
        pass


def test_wrong_optimizer() -> None:
    with pytest.raises(ValueError, match="optimizer is 'rmsprop'; legal are 'sgd', 'adam'"):
        plan(188, 4, optimizer="rmsprop")


# ------------------------------------------------------------------------------------------ budget and table


@pytest.mark.parametrize("depth", [2, 4])
def test_the_largest_size_within_a_budget(depth: int) -> None:
    """Oracle: trying one legal size after another."""
    legal = [n for n in range(1, 1200) if UNetSizes(depth).is_legal(n)]

    def needs(size: int) -> int:
        return size * size

    for budget in (legal[0] ** 2 - 1, legal[0] ** 2, legal[1] ** 2 - 1, 500_000, 1_000_000, legal[40] ** 2):
        fitting = [n for n in legal if needs(n) <= budget]
        assert largest_size(budget, needs, depth) == (fitting[-1] if fitting else None)
        enough = legal[20]  # no more is taken where this fits
        assert largest_size(budget, needs, depth, "valid", enough) == (min(fitting[-1], enough) if fitting else None)


@pytest.mark.parametrize(
    ("text", "size"), [("4GiB", 4 << 30), ("900 MiB", 900 << 20), ("1.5GB", 1_500_000_000), ("77", 77), ("8KiB", 8192)]
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "four", "4 TiB", "-1GiB", "4Gi"])
def test_wrong_amounts_of_memory(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount of memory"):
        bytes_of(text)


def test_the_rows_of_the_table_add_up() -> None:
    found = plan(188, 16)
    figures = [float(line.split()[-2]) for line in format_plan(found).splitlines()]
    assert abs(sum(figures[:-2]) - figures[-2]) < 0.5
    assert figures[-2] == pytest.approx(found.total / 2**20, abs=0.06)




# ------------------------------------------------------------------------ a GPU's memory


@pytest.mark.skipif(simulator_unavailable_reason() is not None, reason="kernels cannot be simulated")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("recompute", [False, True])
def test_gpu_plan_is_what_a_step_takes(optimizer: str, recompute: bool) -> None:
    """The same step with its kernels run in the simulator, and its arrays counted by a pool."""
    found = plan_gpu(44, base=4, batch=2, depth=2, recompute=recompute, optimizer=optimizer)
    xp = library("simulate")
    pool = xp.cuda.MemoryPool()
    before = dict(devices._kernels)
    devices._kernels.pop(xp, None)  # new ones, with workspaces of their own
    try:
        with xp.cuda.using_allocator(pool.malloc):
            network = UNet(1, 2, 4, 2, recompute=recompute).to("simulate")
            image = Tensor(np.ones((2, 1, 44, 44), np.float32), device="simulate")
            with no_grad():
                network(image)
            assert pool.total_bytes() == found.prediction
            updates = OPTIMIZERS[optimizer](network.parameters())
            label = Tensor(np.ones((2, 4, 4), np.int64), device="simulate")
            assert pool.used_bytes() == found.parameters + found.state + found.inputs
            pool.free_all_blocks()
            for _ in range(2):
                updates.backward_and_step(F.cross_entropy(network(image), label))
            assert pool.total_bytes() == found.total
    finally:
        devices._kernels.clear()
        devices._kernels.update(before)
    rows = format_gpu_plan(found).splitlines()
    assert rows[-2].split()[-2] == f"{found.total / 2**20:.1f}"


def test_gpu_plan_of_the_papers_network() -> None:
    found = plan_gpu(572)
    assert 4 * 31_030_658 <= found.parameters < 4 * 31_030_658 + 64 * 512
    assert found.state < found.parameters + 1024
    assert found.parameters < found.prediction < found.total
    assert found.total > found.parameters * 3  # parameters, velocities, gradients
    with pytest.raises(ValueError, match="plan: optimizer is 'lion'; legal are 'sgd', 'adam'"):
        plan_gpu(572, optimizer="lion")
    with pytest.raises(ValueError, match="size 571 is not legal"):
        plan_gpu(571)


def test_gpu_plan_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    how = ["plan", "--device", "cuda", "--size", "44", "--base", "2", "--depth", "2", "--budget", "1MiB"]
    assert cli.main(how) == 0
    out = capsys.readouterr().out
    assert "training step on a GPU" in out
    assert out.splitlines()[-1].startswith("largest size for a step within 1MiB")
    assert cli.main([*how, "--picture", "a.png"]) == 2
    assert "--picture shows the memory of the processor" in capsys.readouterr().err
