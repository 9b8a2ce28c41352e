"""Stopping and continuing: a run that was killed at any moment ends with the bytes of an uninterrupted one."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, patterns, run_in, tiny, write_patterns

from minitorch_unet import runs
from minitorch_unet import train as training
from minitorch_unet.checkpoint import load_checkpoint, save_checkpoint
from minitorch_unet.errors import DataError
from minitorch_unet.train import BEST, LAST, LOG, resume, train

__all__ = ["one_thread"]

# Three steps an epoch.
CONFIGS = {
    "paper": {"tile": 28},
    "adam dropout plateau": {
        "optimizer": "adam",
        "dropout": 0.4,
        "schedule": "plateau",
        "tile": 20,
        "batch": 2,
        "epochs": 3,
    },
    "rmsprop batch-norm cosine": {
        "optimizer": "rmsprop",
        "norm": "batch",
        "schedule": "cosine",
        "warm_up": 2,
        "tile": 28,
    },
    "elastic": {
        "elastic": 3.0,
        "angle": 30.0,
        "zoom": 0.2,
        "noise": 0.1,
        "blur": 1.0,
        "weights": "later",
        "batch": 2,
        "tile": 20,
        "epochs": 3,
    },
    "adamw clip dice": {
        "optimizer": "adamw",
        "clip": 0.1,
        "loss": "cross_entropy+dice",
        "weights": "border",
        "tile": 28,
    },
}


class Killed(Exception):
    pass


def steps_logged(folder) -> list[int]:
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [e["step"] for e in map(json.loads, lines) if e["event"] == "step"]


def stop_and_resume(folder, config, at: int, event_name: str = "step") -> None:
    def report(event) -> None:
        if event["event"] == event_name and event["step"] == at:
            raise Killed

    with pytest.raises(Killed):
        run_in(folder, config, report=report)
    run, remarks = resume(folder)
    assert remarks == [f"resumed at step {run.step}"] and run.step < at
    train(run, patterns(TRAINING), patterns([(20, 20)], 9), folder)


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_two_equal_runs_write_equal_bytes(tmp_path, options) -> None:
    config = tiny(**options)
    for name in ("one", "two"):
        run_in(tmp_path / name, config)
    for file in (LAST, BEST):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    run_in(tmp_path / "three", tiny(**(options | {"seed": 1})))
    assert (tmp_path / "three" / LAST).read_bytes() != (tmp_path / "one" / LAST).read_bytes()


@pytest.mark.parametrize("save_every", [1, 50])
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_a_run_stopped_at_any_step_ends_with_the_same_bytes(tmp_path, options, save_every) -> None:
    config = tiny(save_every=save_every, **options)
    whole = run_in(tmp_path / "whole", config)
    for at in range(1, whole.step + 1):
        folder = tmp_path / str(at)
        stop_and_resume(folder, config, at)
        for file in (LAST, BEST):
            assert (folder / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), (file, at)
        assert steps_logged(folder) == list(range(1, whole.step + 1))


def test_a_run_stopped_between_best_and_last_ends_with_the_same_bytes(tmp_path) -> None:
    whole = run_in(tmp_path / "whole", tiny())
    stop_and_resume(tmp_path / "other", tiny(), whole.step // 2, "epoch")
    for file in (LAST, BEST):
        assert (tmp_path / "other" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_plateau_that_has_begun_is_continued(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "evaluate", lambda *_: {"mean_iou": 0.5, "loss": 1.0})
    config = tiny(schedule="plateau", epochs=6, tile=28)
    whole = run_in(tmp_path / "whole", config)
    assert whole.plateau.lr < config.start_lr
    for epoch in range(1, 6):
        stop_and_resume(tmp_path / str(epoch), config, whole.step // 6 * epoch + 2)
        assert (tmp_path / str(epoch) / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()


def test_max_hours_and_resume_again_and_again(tmp_path) -> None:
    whole = run_in(tmp_path / "whole", tiny())
    folder = tmp_path / "bits"
    run_in(folder, tiny(), max_hours=0.0)
    for _ in range(whole.step + 1):
        run, _ = resume(folder)
        train(run, patterns(TRAINING), patterns([(20, 20)], 9), folder, max_hours=0.0)
    assert (folder / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()
    assert steps_logged(folder) == list(range(1, whole.step + 1))


def test_more_epochs_continue_a_finished_run(tmp_path) -> None:
    run_in(tmp_path / "long", tiny(epochs=4))
    run_in(tmp_path / "short", tiny(epochs=2))
    run, _ = resume(tmp_path / "short", epochs=4)
    train(run, patterns(TRAINING), patterns([(20, 20)], 9), tmp_path / "short")
    assert (tmp_path / "short" / LAST).read_bytes() == (tmp_path / "long" / LAST).read_bytes()


def test_an_unfinished_log_line_is_dropped(tmp_path) -> None:
    run_in(tmp_path, tiny(), max_hours=0.0)
    with open(tmp_path / LOG, "a", encoding="utf-8") as file:
        file.write('{"step": 2, "event": "step", "loss": 1.0}\n{"step": 1, "ev')
    run, _ = resume(tmp_path)
    train(run, patterns(TRAINING), patterns([(20, 20)], 9), tmp_path)
    assert steps_logged(tmp_path) == list(range(1, run.step + 1))


def test_another_thread_count_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runs, "get_num_threads", lambda: 7)
    run_in(tmp_path, tiny(), max_hours=0.0)
    monkeypatch.setattr(runs, "get_num_threads", lambda: 3)
    _, remarks = resume(tmp_path)
    assert len(remarks) == 2
    assert "saved with 7 threads, now 3" in remarks[1] and "--threads 7 makes them equal" in remarks[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, metadata: metadata.pop("config"), "holds no run that this version can continue"),
        (lambda arrays, metadata: metadata["config"].update(new=1), "unknown setting 'new'"),
        (lambda arrays, metadata: arrays.pop("optimizer.steps"), "steps is missing"),
        (lambda arrays, metadata: arrays.pop("model.head.bias"), r"head\.bias is missing"),
        (lambda arrays, metadata: arrays.update({"model.head.bias": np.zeros(5)}), r"head\.bias has shape \(5,\)"),
    ],
)
def test_a_checkpoint_that_is_no_run_is_named(tmp_path, change, message) -> None:
    run_in(tmp_path, tiny(), max_hours=0.0)
    arrays, metadata = load_checkpoint(tmp_path / LAST)
    change(arrays, metadata)
    save_checkpoint(tmp_path / LAST, arrays, metadata)
    with pytest.raises(DataError, match=rf"last\.safetensors: .*{message}"):
        resume(tmp_path)


def test_a_wrong_change_is_not_blamed_on_the_checkpoint(tmp_path) -> None:
    run_in(tmp_path, tiny(), max_hours=0.0)
    with pytest.raises(ValueError, match=r"^epochs is 0; it must be"):
        resume(tmp_path, epochs=0)


# -------------------------------------------------------------------------------------- true processes


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "minitorch_unet", "train", "--threads", "1", "--quiet", *map(str, arguments)]


def launch(*arguments: object) -> subprocess.Popen[str]:
    # Without its pictures a run ends when its last checkpoint is written.
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def settings(data, epochs: int) -> list[object]:
    return [
        "--data", data, "--base", 2, "--depth", 1, "--tile", 16, "--epochs", epochs, "--save-every", 2,
        "--weights", "none", "--optimizer", "adam", "--dropout", 0.2, "--validation", 1,
    ]  # fmt: skip


def wait_for(folder, more_than: int, process: subprocess.Popen[str]) -> None:
    """Until the log holds more steps than that, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / LOG).exists() and (folder / LOG).read_bytes().count(b'"event": "step"') > more_than:
            return
        time.sleep(0.002)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_kill_9_at_ten_random_moments(tmp_path) -> None:
    data = write_patterns(tmp_path / "data", TRAINING)
    epochs = 30
    assert finish(launch(*settings(data, epochs), "--output", tmp_path / "whole"))[0] == 0
    steps = steps_logged(tmp_path / "whole")
    moments = random.Random(0)
    folder = tmp_path / "killed"
    killed = 0
    for kill in range(10):
        process = launch(*(["--resume"] if kill else settings(data, epochs)), "--output", folder)
        done = (folder / LOG).read_bytes().count(b'"event": "step"') if kill else 0
        wait_for(folder, done + moments.randrange(len(steps) // 20), process)
        time.sleep(moments.random() * 0.01)
        process.kill()
        killed += finish(process)[0] == -signal.SIGKILL
        assert load_checkpoint(folder / LAST)  # whole at every moment
    assert killed == 10
    code, out, _ = finish(launch("--resume", "--output", folder))
    assert code == 0 and "resumed at step" in out
    assert (folder / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()
    assert (folder / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()
    assert steps_logged(folder) == steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(tmp_path, number, code) -> None:
    data = write_patterns(tmp_path / "data", TRAINING)
    folder = tmp_path / "run"
    process = launch(*settings(data, 2000), "--output", folder)
    wait_for(folder, 3, process)
    process.send_signal(number)
    returned, _, err = finish(process)
    assert returned == code
    step = load_checkpoint(folder / LAST).metadata["step"]
    assert step == steps_logged(folder)[-1]
    assert err == (
        f"stopped by {signal.Signals(number).name} after step {step}; "
        f"continue with: minitorch-unet train --resume --output {folder}\n"
    )
