"""The commands data, weights and augment, and the options of train that say how data are read and split."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_runs import TRAINING, one_thread, write_patterns

from minitorch_unet import cli
from minitorch_unet.checkpoint import load_checkpoint
from minitorch_unet.data import SyntheticCells, read_image, touching_cells, write_image
from minitorch_unet.train import LAST

__all__ = ["one_thread"]

SMALL = ["--base", 2, "--depth", 1, "--tile", 16, "--epochs", 1, "--weights", "none"]


def call(*arguments: object) -> int:
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


@pytest.fixture
def data(tmp_path) -> Path:
    return write_patterns(tmp_path / "data", [*TRAINING, (30, 30), (24, 40)])


# ------------------------------------------------------------------------------------------------------ data


def test_data_says_what_there_is(data, capsys) -> None:
    assert call("data", data, "--depth", 1, "--gap", 1, "--validation", "2/5") == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("\n0 errors, 0 warnings\n")
    for part in (
        "5 pairs, 1 channels, 2 classes", "255 is class 1", "sizes: ", "legal inputs of about 24 pixels",
        "split: 2 to train on, 1 to judge: 1\n",
    ):  # fmt: skip
        assert part in out
    label = read_image(data / "label" / "0.png") > 0
    shares = re.findall(r"class 1 +([\d.]+) % (#+) +([\d.]+) to ([\d.]+) % of an image", out)[0]
    assert float(shares[2]) - 0.01 <= 100 * label.mean() <= float(shares[3]) + 0.01
    assert len(shares[1]) == round(40 * float(shares[0]) / 100)


def test_legal_sizes_are_those_of_the_network(tmp_path, capsys) -> None:
    data = write_patterns(tmp_path / "data", [(512, 520), (530, 512)])
    assert call("data", data) == 0
    out = capsys.readouterr().out
    assert "508 predicts 324, 524 predicts 340; to predict about 512: 684 predicts 500, 700 predicts 516" in out
    assert "tiles of a training: 572 predicts 388 (--tile 388)" in out
    assert call("data", data, "--padding", "same", "--depth", 3) == 0
    assert "512 predicts 512; to predict about 512: 504 predicts 504, 512 predicts 512" in capsys.readouterr().out


def test_data_collects_errors_and_ends_with_1(data, capsys) -> None:
    write_image(data / "label" / "1.png", 255 * np.eye(9, dtype=np.uint8))
    (data / "image" / "3.png").write_bytes(b"no picture")
    assert call("data", data) == 1
    out = capsys.readouterr().out
    errors = [line for line in out.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "label/1.png: the label is 9x9, the image 30x24" in errors[0] and "3.png" in errors[1]
    assert out.endswith("2 errors, 0 warnings\n") and "split:" not in out


def test_data_looks_across_parts_for_duplicates(tmp_path, capsys) -> None:
    write_patterns(tmp_path / "parts" / "train", TRAINING, seed=1)
    write_patterns(tmp_path / "parts" / "test", TRAINING, seed=2)
    for part in ("image", "label"):
        (tmp_path / "parts" / "test" / part / "2.png").write_bytes(
            (tmp_path / "parts" / "train" / part / "2.png").read_bytes()
        )
    for paths in ([tmp_path / "parts"], [tmp_path / "parts" / "test", tmp_path / "parts" / "train"]):
        assert call("data", *paths) == 0
        out = capsys.readouterr().out
        assert f"warning: the same image in {tmp_path}/parts/test and {tmp_path}/parts/train: 2 and 2\n" in out
        assert "1 warnings" in out and "split:" not in out


def test_data_looks_across_the_split_for_duplicates(data, capsys) -> None:
    for part in ("image", "label"):
        (data / part / "4.png").write_bytes((data / part / "0.png").read_bytes())
    assert call("data", data, "--validation", 4) == 0
    assert "warning: the same image in training and validation: 0 and 4" in capsys.readouterr().out


def test_a_single_pair_cannot_be_split(tmp_path, capsys) -> None:
    assert call("data", write_patterns(tmp_path / "data", [(24, 24)])) == 0
    assert "split: split_dataset: validation='20%' leaves 0 samples to train on" in capsys.readouterr().out


def test_data_of_nothing_is_one_line(tmp_path, capsys) -> None:
    assert call("data", tmp_path) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"minitorch-unet data: {tmp_path}: no data set found; looked for pairs: ")
    assert err.count("\n") == 1


# ----------------------------------------------------------------------------------------- weights, augment


def test_the_gradient_shown_is_weight_times_what_is_wrong() -> None:
    """dE/dscore of class 1 is w (p - t); p is the label as a blurred view has it."""
    from scipy.ndimage import gaussian_filter

    from minitorch_unet.cli.data import _gradient

    label = np.zeros((20, 24), np.int64)
    label[5:15, 4:12], label[5:15, 14:20] = 1, 1
    weights = np.random.default_rng(0).uniform(0, 9, label.shape).astype(np.float32)
    p = np.clip(gaussian_filter(label.astype(float), 2.0), 0.01, 0.99)
    np.testing.assert_allclose(_gradient(label, weights, 2.0), weights * (p - label), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("formula", ["paper", "gaps", "later"])
def test_weights_of_the_built_in_cells(tmp_path, capsys, formula) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    assert call("weights", "-o", tmp_path / "w.png", "--formula", formula) == 0
    out = capsys.readouterr().out
    lowest = float(re.findall(r"background ([\d.]+) to", out)[0])
    highest = float(re.findall(r"up to ([\d.]+) between objects", out)[0])
    assert (50 < highest < 52) if formula == "later" else (10 < highest < 11.5)
    assert (lowest == 1) == (formula == "gaps")
    assert read_image(tmp_path / "w.png").std() > 20


def test_weights_of_a_file(tmp_path, capsys) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    label = np.zeros((40, 40), np.uint8)
    label[5:15, 5:20], label[5:15, 23:38] = 255, 255
    write_image(tmp_path / "label.png", label)
    how = ["--border-weight", 30, "--border-sigma", 4]
    assert call("weights", tmp_path / "label.png", "-o", tmp_path / "w.png", *how) == 0
    highest = float(re.findall(r"up to ([\d.]+) between", capsys.readouterr().out)[0])
    background = 1600 / (2 * (1600 - 300))
    assert highest == pytest.approx(background + 30 * np.exp(-(4**2) / (2 * 4**2)), abs=0.01)


def test_augment_pictures(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    image, ids = touching_cells(3, (64, 80))
    write_image(tmp_path / "image.png", image)
    write_image(tmp_path / "ids.tif", ids.astype(np.uint16))
    files = [tmp_path / "ids.tif", "--image", tmp_path / "image.png"]
    for name, how in (("a", []), ("b", []), ("still", ["--elastic", 0]), ("seed", ["--seed", 1])):
        assert call("augment", *files, "-o", tmp_path / f"{name}.png", "--count", 2, *how) == 0
    a, b, still, seed = (read_image(tmp_path / f"{name}.png") for name in ("a", "b", "still", "seed"))
    assert np.array_equal(a, b) and not np.array_equal(a, still) and not np.array_equal(a, seed)
    assert call("augment", "-o", tmp_path / "cells.png", "--count", 1, "--elastic-grid", 5) == 0
    assert read_image(tmp_path / "cells.png").shape[1] == 638


def test_wrong_input_of_weights_and_augment(tmp_path, capsys) -> None:
    assert call("weights", tmp_path / "none.png", "-o", tmp_path / "w.png") == 2
    assert "none.png: no such file" in capsys.readouterr().err
    assert call("augment", "--image", tmp_path / "none.png") == 2
    assert "--image needs the LABELS" in capsys.readouterr().err
    assert call("augment", "--elastic", -1, "-o", tmp_path / "w.png") == 2
    assert "elastic is -1.0; it must be a finite number of at least 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- train


def test_elastic_without_a_number_is_the_papers(data, tmp_path) -> None:
    options = cli.build_parser().parse_args(["train", "--data", "x", "--elastic"])
    assert options.elastic == 10.0
    for name, how, expected in (("bare", ["--elastic"], 10.0), ("off", [], 0.0), ("given", ["--elastic", 4], 4.0)):
        assert call("train", "--data", data, "--output", tmp_path / name, *SMALL, "--max-hours", 0, *how) == 0
        config = load_checkpoint(tmp_path / name / LAST).metadata["config"]
        assert (config["elastic"], config["elastic_grid"]) == (expected, 3)


def test_toml_files_know_the_augmentation(data, tmp_path) -> None:
    toml = tmp_path / "recipe.toml"
    toml.write_text('elastic = 6.0\nelastic_grid = 4\nangle = 180\nweights = "later"\n', encoding="utf-8")
    small = [option for option in SMALL if option not in ("--weights", "none")]
    arguments = ["--data", data, "--output", tmp_path / "run", "--config", toml, "--max-hours", 0, *small]
    assert call("train", *arguments) == 0
    config = load_checkpoint(tmp_path / "run" / LAST).metadata["config"]
    assert (config["elastic"], config["elastic_grid"], config["angle"]) == (6.0, 4, 180.0)
    assert config["weights"] == "later"


def test_a_fold_is_kept_over_a_resume(data, tmp_path, capsys) -> None:
    how = ["--validation", "2/3", "--split", "random", "--split-seed", 5, "--gap", 0]
    assert call("train", "--data", data, "--output", tmp_path / "run", *SMALL, *how, "--max-hours", 0) == 0
    source = load_checkpoint(tmp_path / "run" / LAST).metadata["source"]
    assert (source["validation"], source["split"], source["split_seed"], source["gap"]) == ("2/3", "random", 5, 0)
    capsys.readouterr()
    assert call("train", "--resume", "--output", tmp_path / "run", "--split-seed", 6) == 2
    assert "--split-seed may not change" in capsys.readouterr().err
    assert call("train", "--resume", "--output", tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "images to train on, 2 to validate on" in out or "images to train on, 1 to validate on" in out


def test_training_on_colours_keeps_the_table(data, tmp_path, capsys) -> None:
    for file in (data / "label").iterdir():
        inside = read_image(file) > 0
        write_image(file, np.where(inside[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8))
    table = tmp_path / "classes.txt"
    table.write_text("background 0 0 255\ncell 255 0 0\n")
    arguments = ["train", "--data", data, "--output", tmp_path / "run", *SMALL, "--colours", table]
    assert call(*arguments) == 0
    table.unlink()
    capsys.readouterr()
    assert call("evaluate", tmp_path / "run", "--data", data) == 0
    assert "labels: colours, classes 0..1 in this order: #0000ff background, #ff0000 cell" in capsys.readouterr().out
    assert call("train", "--resume", "--output", tmp_path / "run", "--epochs", 2) == 0


def test_a_run_of_an_earlier_version_can_be_resumed(data, tmp_path) -> None:
    """Its checkpoint knows nothing of colours, gaps and elastic deformation."""
    from minitorch_unet.checkpoint import save_checkpoint

    assert call("train", "--data", data, "--output", tmp_path / "run", *SMALL, "--max-hours", 0) == 0
    arrays, metadata = load_checkpoint(tmp_path / "run" / LAST)
    for name in ("colours", "ignore_border", "surroundings", "split", "split_seed", "gap"):
        del metadata["source"][name]
    for name in ("elastic", "elastic_grid", "shift", "angle", "zoom", "blur", "noise"):
        del metadata["config"][name]
    save_checkpoint(tmp_path / "run" / LAST, arrays, metadata)
    assert call("train", "--resume", "--output", tmp_path / "run") == 0


def test_ignore_border_is_an_option(tmp_path, capsys) -> None:
    for part in ("image", "label"):
        (tmp_path / "cells" / part).mkdir(parents=True)
    for i, entry in enumerate(SyntheticCells(2, 64, seed=1).entries):
        write_image(tmp_path / "cells" / "image" / f"{i}.png", entry.image())
        write_image(tmp_path / "cells" / "label" / f"{i}.png", entry.label().astype(np.uint16))
    assert call("data", tmp_path / "cells", "--ignore-border", 9, "--labels", "instances") == 0
    assert "ignored: unlabelled pixels within 9 pixels" in capsys.readouterr().out


def test_data_as_a_true_process(data) -> None:
    command = [sys.executable, "-m", "minitorch_unet", "data", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith(f"{data} (pairs): 5 pairs")
