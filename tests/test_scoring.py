"""Families of scores over data sets, how they are chosen, fields of view."""

import json
import math

import numpy as np
import pytest
from small_runs import one_thread

from minitorch_unet import UNet, evaluate
from minitorch_unet.data import Dataset, Sample, SyntheticCells, open_dataset, write_image
from minitorch_unet.data.labels import LabelRule
from minitorch_unet.data.layouts import Entry
from minitorch_unet.errors import DataError
from minitorch_unet.evaluate import evaluate as run_evaluate
from minitorch_unet.metrics import MembraneScores
from minitorch_unet.score_choice import choose_families
from minitorch_unet.scoring import (
    InstanceFamily,
    MembraneFamily,
    SurfaceFamily,
    VesselFamily,
    read_mask,
)

__all__ = ["one_thread"]

CELLS = np.ones((5, 7), bool)
CELLS[2], CELLS[:, 3] = False, False


def dataset(labels, rule: LabelRule | None = None, valid=None) -> Dataset:
    entries = [
        Entry(f"n{i}", f"{i}", f"{i}", lambda a=a: np.zeros(a.shape, np.uint8), lambda a=a: a, valid=valid)
        for i, a in enumerate(labels)
    ]
    return Dataset(entries, rule or LabelRule("binary", 1, 2, (0, 1)), 1, "hand-made")


def sample(label: np.ndarray, instances: np.ndarray | None = None) -> Sample:
    return Sample("n0", np.zeros((1, *label.shape), np.float32), label, instances, None)


def two(foreground: np.ndarray) -> np.ndarray:
    """Probabilities (2, H, W) float32."""
    return np.stack([1 - foreground, foreground]).astype(np.float32)


def chosen(names: str, data: Dataset, **options) -> list[str]:
    return [family.name for family in choose_families(names, data, **options)[0]]


# ---------------------------------------------------------------------------------------------------- choice


def test_auto_looks_at_the_labels() -> None:
    membranes = dataset([CELLS.astype(np.uint8)])
    assert chosen("auto", membranes) == ["membranes"]
    assert chosen("auto", dataset([1 - CELLS.astype(np.uint8)])) == ["membranes"]  # membranes are class 1
    organ = np.zeros((8, 8), np.uint8)
    organ[2:5, 2:5] = 1
    assert chosen("auto", dataset([organ])) == ["surface"]
    assert chosen("auto", dataset([CELLS.astype(np.uint8)], LabelRule("indices", None, 3))) == ["surface"]
    assert chosen("auto", SyntheticCells(1, 64)) == ["instances"]
    assert chosen("auto", dataset([organ], valid=lambda: np.ones((8, 8), bool))) == ["vessels"]
    assert chosen("auto", dataset([organ]), field_of_view="masks") == ["vessels"]


def test_names_are_taken_as_given() -> None:
    data = dataset([CELLS.astype(np.uint8)])
    assert chosen("overlap", data) == []
    assert chosen("surface, instances", data) == ["instances", "surface"]
    assert chosen("auto,surface", data) == ["membranes", "surface"]
    assert chosen("membranes,instances,vessels,surface", data) == ["membranes", "instances", "vessels", "surface"]


def test_what_is_taken_for_granted_is_said() -> None:
    data = dataset([1 - CELLS.astype(np.uint8)])
    _, lines = choose_families("membranes,instances,vessels", data)
    assert lines == [
        "membranes: class 0, the larger one, is the interior of cells",
        "instances: predicted objects against the 4-connected pieces of the labels' classes above 0",
        "vessels: class 1; field of view: the whole image",
    ]
    assert "against the ids of the labels" in choose_families("auto", SyntheticCells(1, 64))[1][0]
    seen = dataset([CELLS.astype(np.uint8)], valid=lambda: np.ones(CELLS.shape, bool))
    assert choose_families("vessels", seen)[1] == ["vessels: class 1; field of view: that of the data"]


@pytest.mark.parametrize("names", ["", "membrane", "auto,dice"])
def test_unknown_names(names: str) -> None:
    with pytest.raises(ValueError, match="legal are auto, overlap, membranes, instances, vessels, surface"):
        choose_families(names, dataset([CELLS.astype(np.uint8)]))


@pytest.mark.parametrize("name", ["membranes", "vessels"])
def test_families_of_two_classes(name: str) -> None:
    three = dataset([CELLS.astype(np.uint8)], LabelRule("indices", None, 3))
    with pytest.raises(ValueError, match=f"{name} needs labels of two classes, these have 3"):
        choose_families(name, three)


def test_real_data_are_recognised(shared_data) -> None:
    assert chosen("auto", open_dataset(shared_data / "isbi2012").subset(range(3))) == ["membranes"]
    assert chosen("auto", open_dataset(shared_data / "chase_db1").subset([0])) == ["vessels"]
    assert chosen("auto", open_dataset(shared_data / "dsb2018" / "fluo256").subset([0])) == ["instances"]
    assert chosen("auto", open_dataset(shared_data / "dic_hela").subset([0])) == ["instances"]


# ---------------------------------------------------------------------------------------------------- families


@pytest.mark.parametrize("interior", [0, 1])
def test_membranes(interior: int) -> None:
    label = np.where(CELLS, interior, 1 - interior)
    label[0, 0] = -100
    foreground = np.where(CELLS, 0.95, 0.25).astype(np.float32)
    foreground[0, 3] = 0.95
    family = MembraneFamily(interior)
    family.add(sample(label), two(foreground if interior else 1 - foreground))
    expected = MembraneScores()
    expected.add(np.where(label == -100, 0, foreground), (label == interior).astype(int))
    found = family.result()
    assert found.pop("interior_class") == interior
    # The ignored corner is a true cell's pixel that counts nowhere: 20 true pixels and a false one.
    assert found["pixel_error"] == pytest.approx(1 - 2 * 23 / (23 + 24))
    assert found["warping_error"] == expected.result()["warping_error"] == pytest.approx(1 / 35)
    lines = family.lines()
    assert len(lines) == 6 and lines[0].split() == ["membranes", "value", "best", "threshold"]
    assert lines[4].split() == ["warping", "error", f"{1 / 35:.6f}", "0.3"]


def test_instances_with_ids() -> None:
    ids = np.zeros((6, 8), np.int32)
    ids[1:5, 0:3], ids[1:5, 5:8] = 4, 9
    family = InstanceFamily({"threshold": 0.5})
    family.add(sample((ids > 0).astype(int), ids), two((ids > 0) * 0.9))
    shifted = np.roll(ids * (ids == 9), 1, axis=0)  # one missed, one with IoU 3/5
    family.add(sample((ids > 0).astype(int), ids), two((shifted > 0) * 0.9))
    found = family.result()
    assert found["seg"] == pytest.approx((1 + 1 + 0 + 3 / 5) / 4)
    # Image 2: IoU 0.6 is above 0.5 and 0.55: 1 hit of 2 objects; after that 0 hits.
    assert found["mean_average_precision"] == pytest.approx((1 + 2 * 0.5 / 10) / 2)
    at = found["at"][0]
    assert (at["iou"], at["hits"], at["extra"], at["missed"]) == (0.5, 3, 0, 1)
    assert (at["precision"], at["recall"], at["f1"]) == pytest.approx((1, 3 / 4, 6 / 7))
    assert [row["hits"] for row in found["at"]] == [3, 3] + [2] * 8
    assert found["options"] == {"threshold": 0.5}
    assert family.lines()[0] == "instances: 4 in the labels, 3 predicted"
    assert family.lines()[1] == "SEG 0.6500, mean average precision 0.5500"
    assert family.lines()[3].split() == ["IoU", ">", "0.5", "1.0000", "0.7500", "0.8571", "3", "0", "1"]


def test_instances_of_labels_without_ids_and_of_nothing() -> None:
    family = InstanceFamily({})
    family.add(sample(CELLS.astype(int)), two(CELLS * 1.0))
    assert (family.result()["seg"], family.result()["at"][0]["hits"]) == (1, 4)
    nothing = InstanceFamily({})
    nothing.add(sample(np.zeros((3, 3), int)), two(np.zeros((3, 3))))
    assert nothing.result()["seg"] is None and nothing.result()["mean_average_precision"] == 1
    assert "SEG not defined" in nothing.lines()[1]


def test_instances_in_the_ignored_strip_are_not_held_against_the_network() -> None:
    ids = np.zeros((8, 8), np.int32)
    ids[3:5, 3:5] = 1
    label = (ids > 0).astype(int)
    label[:2] = -100  # unlabelled strip
    predicted = (ids > 0) * 0.9
    predicted[0:2, 5:8] = 0.9
    family = InstanceFamily({})
    family.add(sample(label, ids), two(predicted))
    assert family.result()["at"][0]["extra"] == 0
    family.add(sample((ids > 0).astype(int), ids), two(predicted))
    assert family.result()["at"][0]["extra"] == 1


def test_vessels_inside_a_field_of_view(tmp_path) -> None:
    label = np.array([[1, 0, 1, 0], [1, 0, -100, 0]])
    foreground = np.array([[0.9, 0.6, 0.7, 0.9], [0.8, 0.1, 0.0, 0.2]])
    mask = np.array([[253, 253, 253, 3], [253, 253, 253, 253]], np.uint8)  # the greys of a palette
    write_image(tmp_path / "n0_mask.png", mask)
    family = VesselFamily(tmp_path)
    family.add(sample(label), two(foreground))
    found = family.result()
    # Judged: positives .9 .7 .8, negatives .6 .1 .2.
    assert (found["pixels"], found["roc_auc"], found["pr_auc"]) == (6, 1, pytest.approx(1))
    assert (found["f1"], found["accuracy"], found["sensitivity"], found["specificity"]) == pytest.approx(
        (6 / 7, 5 / 6, 1, 2 / 3)
    )
    whole = VesselFamily()
    whole.add(sample(label), two(foreground))
    assert whole.result()["pixels"] == 7 and whole.result()["roc_auc"] == pytest.approx((12 - 2.5) / 12)
    assert family.lines() == [
        "vessels: ROC AUC 1.0000, PR AUC 1.0000 (6 pixels in the field of view)",
        "at 0.5: f1 0.8571, accuracy 0.8333, sensitivity 1.0000, specificity 0.6667",
    ]


def test_vessels_of_one_class_have_no_area() -> None:
    family = VesselFamily()
    family.add(sample(np.zeros((2, 2), int)), two(np.full((2, 2), 0.1)))
    assert family.result()["roc_auc"] is family.result()["pr_auc"] is None
    assert family.result()["accuracy"] == 1 and "ROC AUC not defined" in family.lines()[0]


def test_surface_of_three_classes() -> None:
    label = np.zeros((8, 8), int)
    label[2:5, 2:5] = 1
    shifted = np.roll(label, 1, axis=1)
    label[7, 7] = 2  # missed
    probability = np.stack([shifted == 0, shifted == 1, shifted == 2]).astype(float)
    family = SurfaceFamily()
    family.add(sample(label), probability)
    family.add(sample(np.where(shifted == 1, 1, 0)), probability)
    found = family.result()["classes"]
    # Squares of 3 x 3, one column apart: of the 8 outline pixels of either, the 3 in its outer column and the middle
    # of its inner one (whose place is the other's hollow centre) are 1 away. The second image is perfect.
    assert found[0]["average_surface_distance"] == pytest.approx(4 / 8 / 2)
    assert found[0]["hausdorff_95"] == pytest.approx(1 / 2)
    assert (found[0]["images"], found[0]["unmatched"]) == (2, 0)
    assert found[1] == {"average_surface_distance": None, "hausdorff_95": None, "images": 1, "unmatched": 1}
    assert family.lines()[1] == (
        "class 2: average surface distance not defined pixels, Hausdorff 95 % not defined (1 images, 1 of them without "
        "a partner)"
    )


# ---------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_shows_each_image_to_each_family(monkeypatch) -> None:
    data = SyntheticCells(2, 64)

    def perfect(network, image, how=None) -> np.ndarray:
        label = next(labels)
        return two(np.where(label == 1, 0.9, 0.1))

    labels = (s.label for s in data)
    monkeypatch.setattr(evaluate, "predict_probabilities", perfect)
    families, _ = choose_families("instances,surface", data, {"seam": 2})
    scores = run_evaluate(UNet(base=1, depth=1), data, families=families)
    assert scores["mean_iou"] == 1 and scores["loss"] == pytest.approx(-math.log(0.9), rel=1e-6)
    assert scores["instances"]["seg"] > 0.95 and scores["instances"]["at"][0]["f1"] == 1
    assert scores["surface"]["classes"][0]["hausdorff_95"] == 0
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


# ---------------------------------------------------------------------------------------------------- fields of view


def test_masks_that_are_missing_double_or_of_another_size(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder of fields of view"):
        read_mask(tmp_path / "none", "a", (2, 2))
    with pytest.raises(DataError, match=r"holds 0 files a\.\*, a_mask\.\* or a_fov\.\*, 1 is expected"):
        read_mask(tmp_path, "a", (2, 2))
    write_image(tmp_path / "a_fov.png", np.full((2, 3), 255, np.uint8))
    assert read_mask(tmp_path, "a", (2, 3)).all()
    with pytest.raises(DataError, match="is 2x3, the image 2x2"):
        read_mask(tmp_path, "a", (2, 2))
    write_image(tmp_path / "a.png", np.full((2, 3), 255, np.uint8))
    with pytest.raises(DataError, match="holds 2 files"):
        read_mask(tmp_path, "a", (2, 3))
