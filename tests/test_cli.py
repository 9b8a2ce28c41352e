"""The command line as a user meets it: help, messages, exit codes, and the way from images to scores."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, write_patterns

from minitorch_unet import __version__, cli, get_num_threads, set_num_threads
from minitorch_unet.checkpoint import load_checkpoint
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import SyntheticCells, read_image, write_image
from minitorch_unet.planner import plan
from minitorch_unet.train import BEST, LAST, LOG

__all__ = ["one_thread"]

COMMANDS = (
    "demo", "train", "predict", "evaluate", "data", "weights", "augment", "doctor", "graph", "inspect", "report",
    "presets", "gradcheck", "plan", "compile", "simulate", "info",
)  # fmt: skip
SMALL = ["--base", 2, "--depth", 1, "--tile", 16, "--epochs", 1, "--weights", "none", "--validation", 1]


def call(*arguments: object) -> int:
    """Exit code of a command run in this process."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


@pytest.fixture
def fails(capsys):
    """Run a command that must end with exit code 2 and one line on stderr that holds the given parts."""

    def check(parts: list[str], *arguments: object) -> str:
        code = call(*arguments)
        err = capsys.readouterr().err
        assert code == 2, err
        assert err.endswith("\n") and err.count("\n") == 1, err
        assert err.startswith(f"minitorch-unet {arguments[0]}: ")
        for part in parts:
            assert part in err
        return err

    return check


@pytest.fixture
def data(tmp_path) -> Path:
    return write_patterns(tmp_path / "data", TRAINING)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a finished run; only read."""
    folder = tmp_path_factory.mktemp("trained")
    write_patterns(folder / "data", TRAINING)
    assert call("train", "--data", folder / "data", "--output", folder / "run", *SMALL) == 0
    return folder / "run"


# -------------------------------------------------------------------------------------------------- help


def test_help_lists_the_commands_and_examples(capsys) -> None:
    assert call("--help") == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\w+", out, re.MULTILINE)
    assert "examples:" in out and "minitorch-unet train --resume --output runs/mine" in out


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("demo", ["--output", "--quick", "--seed", "--threads", "--device"]),
        ("train", ["--data", "--output", "--resume", "--config", "--validation", "--device", "--max-hours"]),
        ("predict", ["checkpoint", "images", "--output", "--format", "--instances", "--device", "--threads"]),
        ("evaluate", ["checkpoint", "--data", "--only", "--scores", "--json", "--panel", "--device"]),
        ("doctor", ["RUN", "--data", "--predictions", "--json", "--whole-images", "--foreground", "--validation"]),
        ("graph", ["EXPRESSION", "CHECKPOINT", "--tensor", "--output", "--tree", "--profile", "--all", "--size"]),
        ("presets", ["NAME", "--trace-shapes", "--every-map", "--size", "--base", "--up-relu"]),
        ("gradcheck", ["filter", "--device"]),
        ("info", ["checkpoint", "--trace-shapes"]),
    ],
)
def test_help_of_each_command_names_its_options(capsys, command, options) -> None:
    assert call(command, "--help") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: minitorch-unet {command}")
    for option in options:
        assert option in out


def test_help_of_train_names_every_setting_with_its_default(capsys) -> None:
    call("train", "--help")
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(TrainConfig):
        shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
        pattern = rf"--{field.name.replace('_', '-')}\b.{{0,220}}\(default: {re.escape(str(shown))}\)"
        assert re.search(pattern, text), field.name


def test_every_option_has_a_help_text() -> None:
    parsers = next(a for a in cli.build_parser()._actions if a.dest == "command").choices
    assert tuple(parsers) == COMMANDS
    assert not [(name, a.dest) for name, parser in parsers.items() for a in parser._actions if not a.help]


def test_the_command_lines_settings_are_those_of_the_configuration() -> None:
    options = cli.build_parser().parse_args(
        ["train", "--data", "x", "--no-flips", "--lr", "0.5", "--border-sigma", "2"]
    )
    assert (options.flips, options.rotations, options.lr, options.border_sigma) == (False, None, 0.5, 2.0)


def test_version(capsys) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"minitorch-unet {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["fly"], ["train", "--colour"], ["predict"], ["evaluate", "run"], ["train", "--base", "many"],
        ["train", "--padding", "full"], ["demo", "--seed", "-1"], ["info", "--threads", "0"],
        ["predict", "run", "a.png", "--threads", "0"],
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused_with_2(capsys, arguments) -> None:
    assert call(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("usage: minitorch-unet") and "error: " in err
    assert len(err.splitlines()) < 9


# ---------------------------------------------------------------------------------------- wrong input, one line


def test_train_without_data(fails, tmp_path) -> None:
    fails(["--data is missing"], "train")
    fails(["nowhere: no such folder"], "train", "--data", tmp_path / "nowhere", "--output", tmp_path / "run")
    fails(["no data set found", "image|images|imgs/ with label"], "train", "--data", tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_damaged_image_is_named(fails, data, tmp_path) -> None:
    whole = (data / "image" / "1.png").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], b"", b"no picture"):
        (data / "image" / "1.png").write_bytes(content)
        fails([f"{data}/image/1.png"], "train", "--data", data, "--output", tmp_path / "run", *SMALL)
    assert not (tmp_path / "run").exists()


def test_sizes_that_differ_are_named(fails, data, tmp_path) -> None:
    write_image(data / "label" / "2.png", np.eye(20, dtype=np.uint8) * 255)
    parts = [f"{data}/label/2.png", "the label is 20x20", "the image 24x33"]
    fails(parts, "train", "--data", data, "--output", tmp_path / "run", *SMALL)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--tile", "-1"], ["tile is -1; it must be a finite number of at least 0"]),
        (["--base", "0"], ["base is 0"]),
        (["--lr", "nan"], ["lr is nan"]),
        (["--validation", "5-9"], ["'5-9' is neither a name nor a range of indices 0-2"]),
        (["--validation", "100%"], ["is no fraction between 0 and 1"]),
        (["--foreground", "7"], ["no label file holds the foreground value 7; values found: 0, 255"]),
        (["--layout", "ctc"], ["no data set found"]),
        (["--device", "tpu"], ["device is 'tpu'; legal are 'cpu', 'cuda', 'cuda:N', 'simulate' and 'auto'"]),
    ],
)
def test_wrong_options_of_train(fails, data, tmp_path, options, parts) -> None:
    arguments = ["train", "--data", data, "--output", tmp_path / "run", *SMALL, *options]
    fails(parts, *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_without_cupy(fails, trained, device) -> None:
    parts = [f"device '{device}' is not available", "CuPy is not installed", "extra 'cuda12' or 'cuda13'"]
    fails(parts, "predict", trained, "a.png", "--device", device)


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("bases = 3", ["unknown setting 'bases'; known are angle, base, "]),
        ("base = '3'", ["base is '3'; it must be of type int"]),
        ("flips = 1", ["flips is 1; it must be of type bool"]),
        ("base = 3 4", ["run.toml: cannot be read as TOML"]),
        ("[base]\nx = 1", ["base is {'x': 1}; it must be of type int"]),
    ],
)
def test_a_wrong_toml_file(fails, data, tmp_path, toml, parts) -> None:
    path = tmp_path / "run.toml"
    path.write_text(toml, encoding="utf-8")
    fails(parts, "train", "--data", data, "--output", tmp_path / "run", "--config", path)


def test_the_command_line_overrides_the_toml_file(data, tmp_path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('base = 3\ndepth = 1\nepochs = 1\ntile = 16\nweights = "none"\n', encoding="utf-8")
    assert call("train", "--data", data, "--output", tmp_path / "run", "--config", path, "--base", 2) == 0
    config = load_checkpoint(tmp_path / "run" / LAST).metadata["config"]
    assert (config["base"], config["depth"], config["tile"], config["weights"]) == (2, 1, 16, "none")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
@pytest.mark.parametrize("command", ["predict", "evaluate", "info", "train"])
def test_a_damaged_checkpoint(fails, trained, tmp_path, damage, command) -> None:
    whole = (trained / LAST).read_bytes()
    middle = len(whole) - 500
    content = {
        "truncated": whole[:-100],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :],
        "empty": b"",
        "foreign": b"PK\x03\x04" * 50,
    }[damage]
    path = tmp_path / LAST
    path.write_bytes(content)
    rest = {
        "predict": [path, trained.parent / "data" / "image", "--output", tmp_path / "out"],
        "evaluate": [path, "--data", trained.parent / "data"],
        "info": [path],
        "train": ["--resume", "--output", tmp_path],
    }[command]
    fails([str(path)], command, *rest)
    assert not (tmp_path / "out").exists()


def test_a_wrong_image_to_predict(fails, trained, tmp_path) -> None:
    fails(["none.png: no such file"], "predict", trained, tmp_path / "none.png", "--output", tmp_path / "out")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    fails(["bad.png"], "predict", trained, tmp_path / "bad.png", "--output", tmp_path / "out")
    fails(["holds neither best"], "predict", tmp_path, tmp_path / "bad.png")


def test_a_run_is_never_overwritten(fails, trained, capsys) -> None:
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    parts = [f"{trained} holds a run already", "--resume", "another --output"]
    fails(parts, "train", "--data", trained.parent / "data", "--output", trained, *SMALL)
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ([], ["--resume needs --output"]),
        (["--output", "nowhere"], ["nowhere/last.safetensors: no such checkpoint file"]),
        (["--base", "3", "--output", "RUN"], ["only epochs, patience, save_every may change, not base"]),
        (["--validation", "2", "--output", "RUN"], ["reads the data as before; --validation may not change"]),
        (["--foreground", "0", "--output", "RUN"], ["--foreground may not change"]),
        (["--epochs", "0", "--output", "RUN"], ["epochs is 0; it must be"]),
    ],
)
def test_wrong_options_of_resume(fails, trained, options, parts) -> None:
    fails(parts, "train", "--resume", *[trained if option == "RUN" else option for option in options])


def test_a_diverging_run_ends_with_one_line(fails, data, tmp_path) -> None:
    options = [*SMALL, "--lr", "1e30", "--epochs", 3, "--save-every", 1]
    parts = ["the loss is", "at step ", "the result of '", "a lower learning rate"]
    fails(parts, "train", "--data", data, "--output", tmp_path / "run", *options)
    arrays, _ = load_checkpoint(tmp_path / "run" / LAST)
    assert all(np.isfinite(a).all() for a in arrays.values())


def test_a_full_disk_ends_with_one_line(fails, data, tmp_path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minitorch_unet.files.os.fsync", full)
    parts = ["cannot write", LAST, "No space left on device"]
    fails(parts, "train", "--data", data, "--output", tmp_path / "run", *SMALL)


def test_a_traceback_can_be_asked_for(monkeypatch) -> None:
    monkeypatch.setenv("MINITORCH_UNET_TRACEBACK", "1")
    with pytest.raises(ValueError, match="--data is missing"):
        call("train")


def test_ctrl_c_outside_training_is_one_line(monkeypatch, capsys) -> None:
    def interrupted(options) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.tools, "run_info", interrupted)
    assert call("info") == 130
    assert capsys.readouterr().err == "minitorch-unet info: interrupted\n"


# --------------------------------------------------------------------------------------------- what goes well


def test_train_says_what_it_does_and_leaves_everything(data, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    assert call("train", "--data", data, "--output", run, *SMALL) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for part in (
        "3 pairs, 1 channels, 2 classes", "255 is class 1, 0 is class 0 (swap: foreground=0)", "sizes: ",
        "2 images to train on, 1 to validate on", "434 parameters, UNet(in_channels=1", "epoch 1: validation loss",
        "best mean foreground IoU 0.", f"{run}/{BEST}", f"look at {run}/panel.png and {run}/loss.png",
    ):  # fmt: skip
        assert part in out
    told = ["record.json", "report.html", "step.svg"]
    assert sorted(p.name for p in run.iterdir()) == [BEST, "examples.npz", LAST, LOG, "loss.png", "panel.png", *told]
    assert read_image(run / "panel.png").shape[1] == 1320


def test_the_default_folder_is_named_after_the_data(data, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", "--data", "data", *SMALL, "--max-hours", 0) == 0
    assert (tmp_path / "runs" / "data" / LAST).is_file()


def test_a_run_that_stops_before_its_first_epoch_is_no_failure(data, tmp_path, capsys) -> None:
    assert call("train", "--data", data, "--output", tmp_path / "run", *SMALL, "--max-hours", 0) == 0
    out = capsys.readouterr().out
    assert "stopped: max_hours" in out and "nothing judged yet" in out and "inf" not in out
    assert call("train", "--resume", "--output", tmp_path / "run") == 0
    assert "resumed at step 1" in capsys.readouterr().out


def test_resume_takes_the_data_from_elsewhere_and_more_epochs(trained, tmp_path, capsys) -> None:
    data = write_patterns(tmp_path / "moved", TRAINING)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LAST).write_bytes((trained / LAST).read_bytes())
    step = load_checkpoint(trained / LAST).metadata["step"]
    arguments = ["--resume", "--output", tmp_path / "run", "--data", data, "--epochs", 2, "--validation", 1]
    assert call("train", *arguments) == 0
    assert load_checkpoint(tmp_path / "run" / LAST).metadata["step"] == 2 * step
    assert f"{data} (pairs)" in capsys.readouterr().out


def test_from_drawn_cells_to_scores(tmp_path, capsys) -> None:
    cells = SyntheticCells(4, 72, seed=3)
    for part in ("image", "label"):
        (tmp_path / "cells" / part).mkdir(parents=True)
    for i, entry in enumerate(cells.entries):
        write_image(tmp_path / "cells" / "image" / f"c{i}.png", entry.image())
        write_image(tmp_path / "cells" / "label" / f"c{i}.png", entry.label().astype(np.uint16))
    run, out = tmp_path / "run", tmp_path / "out"
    settings = ["--base", 6, "--depth", 1, "--tile", 32, "--epochs", 5, "--optimizer", "adam", "--lr", 0.01]
    settings += ["--weights", "none", "--validation", "c3"]
    assert call("train", "--data", tmp_path / "cells", "--labels", "instances", "--output", run, *settings) == 0
    assert call("predict", run, tmp_path / "cells" / "image" / "c3.png", "--output", out, "--format", "tif") == 0
    printed = capsys.readouterr().out
    assert f"{out}/c3_label.tif" in printed
    scores_file = tmp_path / "scores.json"
    arguments = ["--only", "c3", "--json", scores_file, "--panel", tmp_path / "panel.png"]
    assert call("evaluate", run, "--data", tmp_path / "cells", *arguments) == 0
    printed = capsys.readouterr().out
    assert "labels: instance ids" in printed and "judged: c3 to c3" in printed and "mean of foreground" in printed
    scores = json.loads(scores_file.read_text(encoding="utf-8"))
    assert f"{scores['iou'][1]:.4f}" in printed
    # The pictures that predict wrote give the same score.
    guess, truth = read_image(out / "c3_label.tif") == 255, cells[3].label == 1
    assert scores["iou"][1] == pytest.approx((guess & truth).sum() / (guess | truth).sum())
    assert scores["iou"][1] > 0.25  # it learns; how well is for longer runs to show
    assert read_image(tmp_path / "panel.png").shape[1] == 1320


def test_evaluate_reads_labels_as_training_did(tmp_path, capsys) -> None:
    data = write_patterns(tmp_path / "data", TRAINING)
    arguments = ["train", "--data", data, "--output", tmp_path / "run", *SMALL, "--foreground", 0]
    assert call(*arguments) == 0
    capsys.readouterr()
    assert call("evaluate", tmp_path / "run", "--data", data) == 0
    assert "0 is class 1, 255 is class 0" in capsys.readouterr().out
    assert call("evaluate", tmp_path / "run", "--data", data, "--foreground", 255) == 0
    assert "255 is class 1, 0 is class 0" in capsys.readouterr().out


def test_plan_prints_the_memory_and_draws_it(capsys, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    how = ["--base", 8, "--batch", 2, "--threads", 1]
    before = get_num_threads()
    try:
        assert call("plan", "--size", 204, *how, "--budget", "60MiB", "--picture", tmp_path / "memory.png") == 0
    finally:
        set_num_threads(before)
    out = capsys.readouterr().out
    found = plan(204, 8, 2, threads=1)
    rows = dict(re.findall(r"(\S.*?)  +([\d.]+) MiB\n", out))
    assert float(rows["parameters"]) == pytest.approx(found.parameters / 2**20, abs=0.06)
    assert float(rows["prediction alone"]) == pytest.approx(found.prediction / 2**20, abs=0.3)
    largest = int(re.findall(r"within 60MiB +(\d+)\n", out)[0])
    assert plan(largest, 8, 2, threads=1).total <= 60 << 20 < plan(largest + 16, 8, 2, threads=1).total
    assert read_image(tmp_path / "memory.png").std() > 10


def test_plan_refuses_in_one_line(fails) -> None:
    fails(["size 500 is not legal with depth 4", "nearest legal sizes: 492, 508"], "plan", "--size", 500)
    fails(["'lots' is no amount of memory"], "plan", "--budget", "lots")


def test_a_budget_too_small_for_any_size(capsys) -> None:
    assert call("plan", "--size", 188, "--base", 8, "--budget", "1MiB") == 0
    assert re.search(r"within 1MiB +none\n", capsys.readouterr().out)


def test_info(capsys, trained) -> None:
    assert call("info") == 0
    out = capsys.readouterr().out
    for name in ("minitorch_unet:", "python:", "numpy:", "scipy:", "threads:", "cuda:"):
        assert name in out
    assert call("info", trained) == 0
    out = capsys.readouterr().out
    assert "down.0: TwoConvs" in out and "step: " in out and "'optimizer': 'sgd'" in out


def test_gradcheck_with_a_filter(capsys, fails) -> None:
    assert call("gradcheck", "functional.relu") == 0
    out = capsys.readouterr().out
    assert "relu" in out and "all passed" in out and "conv2d" not in out
    fails(["gradcheck: filter 'nothing' matches no case"], "gradcheck", "nothing")


def test_a_failing_gradcheck_is_exit_code_1(capsys, monkeypatch) -> None:
    from minitorch_unet import gradcheck_table

    row = gradcheck_table.Row("planted", 1.0, None, 0, "is wrong by 1")
    monkeypatch.setattr(gradcheck_table, "run_table", lambda filter, progress, device: [row])
    assert call("gradcheck") == 1
    assert "FAILED" in capsys.readouterr().out


def test_demo(capsys, tmp_path, monkeypatch) -> None:
    from minitorch_unet import demo

    monkeypatch.setattr(demo, "IMAGE_SIZE", 64)
    monkeypatch.setattr(demo, "demo_config", lambda quick, seed: TrainConfig(base=2, depth=1, epochs=1, tile=32))
    assert call("demo", "--quick", "--output", tmp_path) == 0
    out = capsys.readouterr().out
    assert "judged on cells that were not trained on" in out and f"look at {tmp_path}/panel.png" in out
    assert {BEST, LAST, LOG, "loss.png", "panel.png"} <= {p.name for p in tmp_path.iterdir()}


def process(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minitorch_unet", *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=120, **options,
    )  # fmt: skip


def test_as_true_processes(trained, tmp_path) -> None:
    done = process("info")
    assert done.returncode == 0 and done.stdout.startswith("minitorch_unet:") and done.stderr == ""
    images = trained.parent / "data" / "image"
    done = process("predict", trained, images, "--output", tmp_path / "out", "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(list((tmp_path / "out").iterdir())) == 2 * len(TRAINING)
    done = process("predict", trained, tmp_path / "none.png")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    done = process("train", "--data", trained.parent / "data", "--output", tmp_path / "run", "--lr", "1e30", *SMALL)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes differ")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m minitorch_unet train --help | head -1", shell=True, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.startswith("usage: ") and done.stderr == ""


def test_a_run_that_ends_in_nan_says_so_on_the_screen_and_in_its_log(data, tmp_path, capsys) -> None:
    how = ["--lr", "1e25", "--momentum", 0, "--epochs", 9]
    assert call("train", "--data", data, "--output", tmp_path / "run", *SMALL, *how) == 2
    out, err = capsys.readouterr()
    assert "\nfailed: the loss is " in out and err.startswith("minitorch-unet train: the loss is ")
    last = json.loads((tmp_path / "run" / LOG).read_text().splitlines()[-1])
    assert last["event"] == "failed" and last["reason"] in err
    assert call("doctor", tmp_path / "run") == 1
    assert "ERROR not-finite: " in capsys.readouterr().out
