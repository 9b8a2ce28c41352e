"""Scores and objects on the command line, from a small run on drawn pictures to tables, JSON and masks."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import one_thread

from minitorch_unet import cli
from minitorch_unet.data import SyntheticCells, read_image, write_image
from minitorch_unet.metrics import count_objects, seg

__all__ = ["one_thread"]


def call(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def write_pairs(folder: Path, names: list[str], images: list[np.ndarray], labels: list[np.ndarray]) -> Path:
    for part, arrays in (("image", images), ("label", labels)):
        (folder / part).mkdir(parents=True)
        for name, array in zip(names, arrays, strict=True):
            write_image(folder / part / f"{name}.png", array)
    return folder


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Four pictures of cells, the same with binary labels, and a run that learnt a little from them; only read."""
    folder = tmp_path_factory.mktemp("cells")
    drawn = SyntheticCells(4, 72, seed=3)
    names = [f"t{i:03}" for i in range(4)]
    images = [entry.image() for entry in drawn.entries]
    labels = [entry.label().astype(np.uint16) for entry in drawn.entries]
    write_pairs(folder / "ids", names, images, labels)
    write_pairs(folder / "binary", names, images, [(255 * (a > 0)).astype(np.uint8) for a in labels])
    settings = ["--base", 6, "--depth", 1, "--tile", 32, "--epochs", 5, "--optimizer", "adam", "--lr", 0.01]
    settings += ["--weights", "none", "--validation", 3, "--labels", "instances"]
    assert call("train", "--data", folder / "ids", "--output", folder / "run", *settings) == 0
    return folder


def test_instances_are_scored_and_written_alike(cells, tmp_path, capsys) -> None:
    """The masks that predict writes give the scores that evaluate prints."""
    objects = ["--min-area", 8, "--split", "distance", "--threshold", 0.4]
    images = [cells / "ids" / "image" / f"t{i:03}.png" for i in (2, 3)]
    assert call("predict", cells / "run", *images, "--output", tmp_path, "--instances", tmp_path / "m", *objects) == 0
    assert f"{tmp_path}/m/mask002.tif\n" in capsys.readouterr().out
    scores_file = tmp_path / "scores.json"
    evaluate = ["evaluate", cells / "run", "--data", cells / "ids", "--only", "2-3", "--json", scores_file]
    assert call(*evaluate, *objects) == 0
    printed = capsys.readouterr().out
    found = json.loads(scores_file.read_text(encoding="utf-8"))["instances"]
    masks = [read_image(tmp_path / "m" / f"mask{i:03}.tif").astype(int) for i in (2, 3)]
    truths = [read_image(cells / "ids" / "label" / f"t{i:03}.png").astype(int) for i in (2, 3)]
    frames = list(zip(masks, truths, strict=True))
    assert found["seg"] == pytest.approx(seg(frames)) and 0 < found["seg"] < 1
    hits = sum(count_objects(*frame, [0.5])[0].hits for frame in frames)
    assert found["at"][0]["hits"] == hits
    assert f"SEG {found['seg']:.4f}" in printed
    assert "instances: predicted objects against the ids of the labels" in printed
    assert found["options"] == {
        "threshold": 0.4, "split": "distance", "depth": None, "min_area": 8, "clear_border": False, "seam": 2,
        "grow": 0, "fill_holes": True,
    }  # fmt: skip
    assert min(np.bincount(mask.ravel())[1:].min() for mask in masks) >= 8


def test_scores_by_name(cells, tmp_path, capsys) -> None:
    evaluate = ["evaluate", cells / "run", "--data", cells / "binary", "--labels", "binary", "--only", "3"]
    scores_file = tmp_path / "scores.json"
    assert call(*evaluate, "--scores", "membranes,vessels,surface", "--json", scores_file) == 0
    printed = capsys.readouterr().out
    found = json.loads(scores_file.read_text(encoding="utf-8"))
    assert set(found) >= {"iou", "dice", "loss", "membranes", "vessels", "surface"} and "instances" not in found
    assert f"warping error{found['membranes']['warping_error']:>17.6f}" in printed
    assert f"ROC AUC {found['vessels']['roc_auc']:.4f}" in printed
    assert found["vessels"]["pixels"] == 72 * 72
    assert f"average surface distance {found['surface']['classes'][0]['average_surface_distance']:.2f}" in printed
    assert call(*evaluate, "--scores", "overlap", "--json", scores_file) == 0
    assert not {"membranes", "surface"} & set(json.loads(scores_file.read_text(encoding="utf-8")))


def test_a_field_of_view(cells, tmp_path, capsys) -> None:
    mask = np.zeros((72, 72), np.uint8)
    mask[:36] = 255
    (tmp_path / "fov").mkdir()
    write_image(tmp_path / "fov" / "t003_mask.png", mask)
    evaluate = ["evaluate", cells / "run", "--data", cells / "binary", "--labels", "binary", "--only", "3"]
    assert call(*evaluate, "--field-of-view", tmp_path / "fov") == 0
    printed = capsys.readouterr().out
    assert f"vessels: class 1; field of view: {tmp_path / 'fov'}" in printed
    assert "(2592 pixels in the field of view)" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scores", "beauty"], "--scores: 'beauty' is unknown, legal are auto, overlap, membranes"),
        (["--scores", "vessels", "--field-of-view", "nowhere"], "nowhere: no such folder of fields of view"),
        (["--depth", "0"], "depth is 0.0, it must be positive"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(cells, capsys, arguments, words) -> None:
    evaluate = ["evaluate", cells / "run", "--data", cells / "ids", "--labels", "instances", "--only", "3"]
    assert call(*evaluate, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_membranes_on_a_real_slice(shared_data, cells, capsys) -> None:
    """A network that never saw membranes: the scores need not be good, but must be there and in their bounds."""
    evaluate = ["evaluate", cells / "run", "--data", shared_data / "isbi2012", "--labels", "binary", "--only", "23"]
    assert call(*evaluate) == 0
    printed = capsys.readouterr().out
    assert "membranes: class 1, the larger one, is the interior of cells" in printed
    rows = [line for line in printed.splitlines() if line.startswith(("V_", "pixel e"))]
    values = {row[:20].strip(): float(row[20:30]) for row in rows}
    assert set(values) == {"V_rand (thinned)", "V_info (thinned)", "pixel error"}
    assert all(0 <= v <= 1 for v in values.values())
