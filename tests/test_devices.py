"""Devices: names, reasons, moving arrays, modules and checkpoints, and whole runs that give the same everywhere."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import on_device
import pytest
from on_device import Tensor, host
from small_runs import TRAINING, one_thread, patterns, run_in, tiny, write_patterns

import minitorch_unet
from minitorch_unet import UNet, backend, cli, from_dlpack, manual_seed, nn, no_grad, optim
from minitorch_unet import functional as F
from minitorch_unet.backend import devices, to_device
from minitorch_unet.evaluate import evaluate
from minitorch_unet.info import environment
from minitorch_unet.predict import load_network, predict_probabilities
from minitorch_unet.train import BEST, LAST, resume, start, train

__all__ = ["one_thread"]
every_device = pytest.mark.usefixtures("device")
OTHERS = on_device.DEVICES[1:]
other_devices = pytest.mark.parametrize("device", OTHERS, indirect=True)


# ------------------------------------------------------------- names and reasons


def test_full_names() -> None:
    assert backend.check_device("cpu") == "cpu"
    assert backend.check_device("auto") in ("cpu", "cuda:0")
    assert (backend.check_device("auto") == "cpu") == (backend.cuda_unavailable_reason() is not None)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "simulate:0", "cpu:0", "CUDA"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{name}'; legal are 'cpu', 'cuda', 'cuda:N', 'simulate' and"):
        backend.check_device(name)
    assert not backend.is_device("float32")
    assert not backend.is_device(np.float32)


def fake_cupy(available: bool = True, fault: str = "") -> types.ModuleType:
    """A module `cupy` whose kernels do not compile if there is a fault."""

    class RawModule:
        def __init__(self, code: str) -> None:
            assert "__global__" in code

        def compile(self) -> None:
            if fault:
                raise RuntimeError(fault)

    made = types.ModuleType("cupy")
    vars(made).update(
        RawModule=RawModule,
        cuda=types.SimpleNamespace(
            is_available=lambda: available, runtime=types.SimpleNamespace(getDeviceCount=lambda: 2)
        ),
    )
    return made


@pytest.fixture
def asked_anew() -> Any:
    devices._cuda_unavailable_reason.cache_clear()
    yield
    devices._cuda_unavailable_reason.cache_clear()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda: fake_cupy(available=False), "CuPy is installed but finds no CUDA device"),
        (lambda: fake_cupy(fault="no\n libnvrtc"), "CuPy cannot compile kernels: no libnvrtc"),
        (lambda: types.ModuleType("cupy"), "CuPy cannot be used: module 'cupy' has no attribute 'cuda'"),
    ],
)
def test_reasons(made: Any, reason: str, monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    monkeypatch.setitem(sys.modules, "cupy", made())
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object())
    assert backend.cuda_unavailable_reason() == reason
    with pytest.raises(ValueError, match="device 'cuda:1' is not available: " + reason.partition(":")[0]):
        backend.check_device("cuda:1")
    assert backend.check_device("auto") == "cpu"


def test_without_cupy(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="CuPy is not installed; install the extra 'cuda12' or 'cuda13'"):
        backend.check_device("cuda")


def test_numbers_of_devices(monkeypatch: pytest.MonkeyPatch, asked_anew: None) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object())
    assert backend.check_device("cuda") == "cuda:0"
    assert backend.check_device("auto") == "cuda:0"
    assert backend.check_device("cuda:1") == "cuda:1"
    with pytest.raises(ValueError, match="device 'cuda:2' does not exist: there are 2 CUDA devices, numbered from 0"):
        backend.check_device("cuda:2")


def test_simulation_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"device 'simulate' is not available: .*'no-such-compiler' is not found"):
        backend.check_device("simulate")


def test_info_tells_what_may_be_used() -> None:
    rows = dict(environment())
    assert rows["cuda"] == "available" or rows["cuda"].startswith("not available: ")
    assert rows["simulate"].startswith(("available: ", "not available: "))
    assert "cupy" in rows


def test_info_describes_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from minitorch_unet.simulator import standin

    if "cupy" in sys.modules:
        pytest.skip("CuPy is loaded")
    standin.install()
    try:
        rows = dict(environment())
        assert rows["cuda"] == "available"
        assert rows["cuda versions"] == "runtime 13.0, driver for up to 13.0"
        assert "simulated on the processor, 80.0 GiB, 132 multiprocessors, compute capability 9.0" in rows["cuda:0"]
        assert backend.describe_device("cuda:0") == "cuda:0 (simulated on the processor, 80 GiB)"
        x = minitorch_unet.Tensor([1.0, 2.0], device="cuda")
        assert x.device == "cuda:0"
        backend.use_device("cuda:0")
    finally:
        standin.uninstall()


# ----------------------------------------------------------------- moving arrays


@other_devices
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)])
def test_memory_order_travels_along(order: tuple[int, ...], device: str) -> None:
    h = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    laid = np.ascontiguousarray(h.transpose(order)).transpose(np.argsort(order))
    there = to_device(laid, device)
    assert backend.device_of(there) == backend.check_device(device)
    assert there.strides == laid.strides
    back = to_device(there, "cpu")
    assert type(back) is np.ndarray
    assert back.strides == laid.strides
    assert np.array_equal(back, h)
    assert to_device(there, device) is there
    assert to_device(laid, "cpu") is laid


@other_devices
def test_arrays_of_all_kinds_travel(device: str) -> None:
    h = np.arange(24).reshape(2, 3, 4)
    for given in (
        h[:, ::-1], h[:, :, ::2], np.broadcast_to(h[0], (2, 3, 4)), h[:0], np.array(3.5), np.float32(2), h > 3,
        h.astype(np.uint8), np.asfortranarray(h), h.astype(backend.named_dtype("bfloat16")),
    ):  # fmt: skip
        there = to_device(given, device)
        assert there.dtype == given.dtype
        assert np.array_equal(to_device(there, "cpu"), given)


@other_devices
def test_tensors_and_their_mixtures(device: str) -> None:
    x = minitorch_unet.Tensor(np.ones(3, np.float32), requires_grad=True)
    there = x.to(device)
    assert there.requires_grad
    assert there.is_leaf
    assert there.device == backend.check_device(device)
    assert there.to(device) is there
    with pytest.raises(ValueError, match=r"add: inputs are on different devices \(.*\); move them with .to\(device\)"):
        x + there
    with pytest.raises(ValueError, match="to: only a leaf Tensor can change its device"):
        (there * 2).to("cpu")
    assert there.detach().to("cpu").numpy().tolist() == [1, 1, 1]
    assert f"device={there.device}" in repr(there)


@other_devices
def test_modules_are_laid_out_for_their_device(device: str) -> None:
    manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, (2, 3)), nn.ConvTranspose2d(4, 5, 2, 2), nn.BatchNorm2d(5), nn.Linear(5, 2))
    before = model.state_dict()
    weights = [getattr(model, str(i)).weight for i in range(4)]
    assert model.to(device) is model
    assert {t.device for t in (*model.parameters(), *dict(model.named_buffers()).values())} == {weights[0].device}
    assert weights[0].device == backend.check_device(device)
    for weight in weights[:2]:
        assert weight.data.transpose(0, 2, 3, 1).flags.c_contiguous  # (K, R, S, C)
    assert weights[3].data.flags.c_contiguous
    state = model.state_dict()
    for name, value in before.items():
        assert type(state[name]) is np.ndarray
        assert state[name].flags.c_contiguous
        assert np.array_equal(state[name], value)
    arrays = [weight.data for weight in weights]
    model.to(device)
    assert all(weight.data is array for weight, array in zip(weights, arrays, strict=True))
    model.load_state_dict({name: value + 1 for name, value in before.items()})
    assert weights[0].data.transpose(0, 2, 3, 1).flags.c_contiguous
    model.to("cpu")
    for weight in weights[:2]:
        assert weight.data.transpose(2, 3, 1, 0).flags.c_contiguous  # (R, S, C, K)
    assert np.array_equal(model.state_dict()["0.weight"], before["0.weight"] + 1)


@other_devices
def test_optimisers_have_their_state_beside_the_parameters(device: str) -> None:
    model = nn.Conv2d(3, 4, 3).to(device)
    optimizer = optim.Adam(model.parameters())
    for p, slots in zip(optimizer.params, optimizer.slots, strict=True):
        for array in slots.values():
            assert backend.device_of(array) == p.device
            assert array.strides == p.data.strides
    model(Tensor(np.ones((1, 3, 5, 5), np.float32))).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert all(type(value) is np.ndarray and value.flags.c_contiguous for value in state.values())
    elsewhere = nn.Conv2d(3, 4, 3)
    continued = optim.Adam(elsewhere.parameters())
    continued.load_state_dict(state)
    assert all(np.array_equal(continued.state_dict()[name], value) for name, value in state.items())
    model.to("cpu")
    with pytest.raises(ValueError, match=r"Adam: params were on \S+ when it was made and are on cpu now"):
        optimizer.step()


@other_devices
def test_clipped_gradients_keep_their_memory_order(device: str) -> None:
    model = nn.Conv2d(3, 4, 3).to(device)
    weight = model.weight
    for clip in (optim.clip_grad_norm_, optim.clip_grad_value_):
        weight.grad = minitorch_unet.Tensor(backend.laid_out(Tensor(np.full((4, 3, 3, 3), 5.0)).data, (0, 2, 3, 1)))
        clip(model.parameters(), 1e-2)
        assert abs(host(weight.grad)).max() <= 1e-2
        assert weight.grad.data.transpose(0, 2, 3, 1).flags.c_contiguous


def test_parameters_on_several_devices_are_refused() -> None:
    here = nn.Parameter(np.ones(2, np.float32))
    there = nn.Parameter(to_device(np.ones(2, np.float32), "simulate"))
    with pytest.raises(ValueError, match="SGD: params are on the devices cpu, simulate; they must be on one"):
        optim.SGD([here, there])


# ------------------------------------------------------------------------ DLPack


class Foreign:
    """Another library's array: nothing but DLPack's two methods."""

    def __init__(self, array: Any, kind: int = 1) -> None:
        self.array, self.kind = array, kind

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


def test_dlpack_shares_memory_both_ways() -> None:
    h = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = from_dlpack(Foreign(h))
    assert isinstance(x, minitorch_unet.Tensor)
    assert np.shares_memory(x.data, h)
    taken = np.from_dlpack(x)
    assert np.shares_memory(taken, h)
    assert x.__dlpack_device__() == (1, 0)
    assert np.shares_memory(np.from_dlpack(minitorch_unet.Tensor(h.T)), h)
    assert from_dlpack(h).data is h
    assert from_dlpack(x).data is x.data


def test_dlpack_copies_what_runs_backwards() -> None:
    x = minitorch_unet.Tensor(np.arange(6.0)[::-1])
    taken = np.from_dlpack(x)
    assert taken.tolist() == [5, 4, 3, 2, 1, 0]
    assert all(stride > 0 for stride in taken.strides)
    assert not np.shares_memory(taken, x.data)


def test_dlpack_refusals() -> None:
    with pytest.raises(BufferError, match=r"this Tensor requires a gradient; hand over .detach\(\)"):
        np.from_dlpack(minitorch_unet.Tensor(np.ones(2), requires_grad=True))
    with pytest.raises(TypeError, match="from_dlpack: a list does not speak DLPack"):
        from_dlpack([1, 2])
    with pytest.raises(ValueError, match="from_dlpack: the array is on a device of type 7; legal are"):
        from_dlpack(Foreign(np.ones(2), 7))
    if backend.cuda_unavailable_reason():
        with pytest.raises(ValueError, match="device 'cuda:0' is not available"):
            from_dlpack(Foreign(np.ones(2), 2))


def test_dlpack_of_simulated_memory_is_a_copy() -> None:
    x = minitorch_unet.Tensor(np.arange(3.0), device="simulate")
    assert x.__dlpack_device__() == (12, 0)
    assert np.from_dlpack(x, device="cpu").tolist() == [0, 1, 2]
    with pytest.raises(BufferError):
        np.from_dlpack(x)


# ------------------------------------------------------------- the same everywhere


def trained(device: str, folder: Path, **changed: Any) -> Any:
    config = tiny(epochs=1, save_every=2, **changed)
    dataset = patterns(TRAINING)
    return train(start(config, dataset, {"data": "patterns"}, device), dataset, patterns([(20, 20)], 9), folder)


CONFIGS = {
    "paper": {},
    "adam, dropout, batch norm": {"optimizer": "adam", "dropout": 0.3, "norm": "batch", "batch": 2},
    "rmsprop, clip, group norm": {"optimizer": "rmsprop", "clip": 0.1, "norm": "group", "loss": "cross_entropy+dice"},
    "adamw, same, nearest": {
        "optimizer": "adamw", "padding": "same", "up": "nearest", "norm": "instance", "loss": "focal",
    },
}  # fmt: skip


@other_devices
@pytest.mark.parametrize("name", CONFIGS)
def test_training_is_that_of_the_processor(name: str, device: str, tmp_path: Path) -> None:
    here, there = (trained(where, tmp_path / str(i), **CONFIGS[name]) for i, where in enumerate(("cpu", device)))
    assert there.network.parameters()[0].device == backend.check_device(device)
    assert there.step == here.step > 3
    logs = [[json.loads(line) for line in (tmp_path / str(i) / "log.jsonl").read_text().splitlines()] for i in (0, 1)]
    for mine, theirs in zip(*logs, strict=True):
        assert mine["event"] == theirs["event"]
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=2e-3)
    # The predictions are compared: a bias before a normalisation has no gradient but rounding, which Adam makes large.
    image = patterns([(30, 33)], 5)[0].image
    probabilities = [predict_probabilities(run.network, image) for run in (here, there)]
    np.testing.assert_allclose(*probabilities, atol=5e-3)


@other_devices
def test_a_run_goes_on_on_another_device(device: str, tmp_path: Path) -> None:
    whole = run_in(tmp_path / "whole", tiny(optimizer="adam"))
    dataset, validation = patterns(TRAINING), patterns([(20, 20)], 9)
    for first, second in ((device, "cpu"), ("cpu", device)):
        folder = tmp_path / first
        run = start(tiny(optimizer="adam"), dataset, {"data": "patterns"}, first)
        run = train(run, dataset, validation, folder, max_hours=0)  # stops after its first step
        assert run.step == 1
        run, _ = resume(folder, second)
        assert run.step == 1
        assert {p.device for p in run.network.parameters()} == {backend.check_device(second)}
        assert backend.device_of(run.optimizer.slots[0]["mean"]) == backend.check_device(second)
        run = train(run, dataset, validation, folder)
        assert run.step == whole.step
        for key, value in whole.network.state_dict().items():
            np.testing.assert_allclose(run.network.state_dict()[key], value, rtol=2e-2, atol=5e-3)
        assert (folder / LAST).exists()


@other_devices
def test_prediction_and_scores_are_those_of_the_processor(device: str, tmp_path: Path) -> None:
    run_in(tmp_path, tiny())
    here, _ = load_network(tmp_path / BEST)
    there, _ = load_network(tmp_path / BEST, device)
    image = np.random.default_rng(0).normal(size=(1, 37, 41)).astype(np.float32)
    found = predict_probabilities(there, image)
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, predict_probabilities(here, image), atol=1e-5)
    data = patterns([(20, 24), (30, 21)], 3)
    mine, theirs = evaluate(here, data), evaluate(there, data)
    assert theirs["iou"] == pytest.approx(mine["iou"], abs=1e-6)
    assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)


@other_devices
@pytest.mark.parametrize("options", [{}, {"norm": "group", "dropout": 0.2}, {"recompute": True}])
def test_gradients_of_a_unet_are_those_of_the_processor(options: dict[str, Any], device: str) -> None:
    manual_seed(2)
    model = UNet(base=3, depth=2, **options)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(2, 1, 52, 44)).astype(np.float32), rng.integers(0, 2, (2, 12, 4))
    gradients = []
    for where in ("cpu", device):
        model.to(where)
        manual_seed(5)
        scores = model(minitorch_unet.Tensor(x, device=where))
        loss = F.cross_entropy(scores, labels, pixel_weight=np.ones(labels.shape))
        loss.backward()
        gradients.append([host(p.grad) for p in model.parameters()])
        assert {p.grad.device for p in model.parameters()} == {loss.device}
        model.zero_grad()
    for mine, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-4 * abs(mine).max())


@pytest.mark.skipif(backend.simulator_unavailable_reason() is not None, reason="kernels cannot be simulated")
def test_the_command_line_on_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with on_device.using("simulate"):
        data = write_patterns(tmp_path / "data", [(24, 24), (20, 30)])
        run = tmp_path / "run"
        how = ["--device", "simulate", "--quiet"]
        small = ["--base", "2", "--depth", "1", "--tile", "16", "--epochs", "1", "--validation", "50%"]
        assert cli.main(["train", "--data", str(data), "--output", str(run), *small, *how]) == 0
        assert "device: simulate (" in capsys.readouterr().out
        assert cli.main(["train", "--resume", "--output", str(run), "--epochs", "2", "--quiet"]) == 0
        out = capsys.readouterr().out
        assert "resumed at step" in out
        assert "device: cpu (1 threads)" in out
        assert cli.main(["evaluate", str(run), "--data", str(data), *how]) == 0
        assert "device: simulate (" in capsys.readouterr().out
        pictures = tmp_path / "pictures"
        assert cli.main(["predict", str(run), str(data / "image"), "--output", str(pictures), *how]) == 0
        captured = capsys.readouterr()
        assert "device: simulate (" in captured.err
        assert len(captured.out.splitlines()) == len(list(pictures.iterdir())) == 4
        assert cli.main(["gradcheck", "functional.tanh", *how]) == 0
        assert "device: simulate (" in capsys.readouterr().out


@every_device
def test_anomalies_are_named() -> None:
    x = Tensor(np.array([1.0, 0.0], np.float32), requires_grad=True)
    with (
        np.errstate(all="ignore"), minitorch_unet.detect_anomaly(),
        pytest.raises(minitorch_unet.NonFiniteError, match=r"'log' is -inf at element \[1\]"),
    ):  # fmt: skip
        F.log(x)


@every_device
def test_nothing_is_kept_without_gradients() -> None:
    x = Tensor(np.ones((1, 1, 4, 4), np.float32), requires_grad=True)
    with no_grad():
        assert F.max_pool2d(x, 2).is_leaf
