"""Layouts, label rules, splits and the check of every pair."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minitorch_unet.data import (
    check_dataset,
    folds,
    normalise,
    open_dataset,
    separate_touching,
    split_dataset,
    write_image,
)
from minitorch_unet.data.layouts import natural_key
from minitorch_unet.errors import DataError

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real images are not at {SHARED}")


def grey(seed=0, shape=(12, 10)):
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def save_stack(file, pages):
    pictures = [Image.fromarray(page) for page in pages]
    pictures[0].save(file, save_all=True, append_images=pictures[1:])


def make_pairs(folder, labels, images=None, names=None, sub=("image", "label"), ending=""):
    """A pairs folder with one file for every label."""
    for name in sub:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, label in enumerate(labels):
        name = names[number] if names else str(number)
        picture = images[number] if images else grey(number, label.shape[:2])
        write_image(folder / sub[0] / f"{name}.png", picture)
        write_image(folder / sub[1] / f"{name}{ending}.png", label)
    return folder


def half(value, other=0, shape=(12, 10)):
    label = np.full(shape, other, np.uint8)
    label[: shape[0] // 3] = value
    return label


def test_sample(tmp_path):
    data = open_dataset(make_pairs(tmp_path, [half(255), half(255)]))
    assert len(data) == 2 and data.names == ["0", "1"] and data.groups == [None, None]
    assert data.classes == 2 and data.channels == 1
    sample = data[0]
    assert sample.image.dtype == np.float32 and sample.image.shape == (1, 12, 10)
    assert sample.label.dtype == np.int64 and sample.label.tolist() == (half(1)).tolist()
    assert sample.instances is None and sample.name == "0"
    assert data[0] is sample, "kept in the cache"
    assert not sample.image.flags.writeable and not sample.label.flags.writeable
    assert data[-1].name == "1" and [s.name for s in data] == ["0", "1"]
    with pytest.raises(IndexError, match="index 2"):
        data[2]


@pytest.mark.parametrize("sub", [("images", "masks"), ("imgs", "labels"), ("Image", "Mask")])
@pytest.mark.parametrize("ending", ["", "_mask", "_manual1"])
def test_pairs_variants(tmp_path, sub, ending):
    data = open_dataset(make_pairs(tmp_path, [half(1)] * 11, sub=sub, ending=ending))
    assert data.names == [str(number) for number in range(11)], "2 comes before 10"


def test_natural_key():
    assert sorted(["b10", "b2", "10", "9", "a", "b", "b2c"], key=natural_key) == [
        "9", "10", "a", "b", "b2", "b2c", "b10",
    ]  # fmt: skip


def test_pairs_that_do_not_match(tmp_path):
    make_pairs(tmp_path, [half(1)] * 3)
    (tmp_path / "label" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: has no label; looked for 1\.\*"):
        open_dataset(tmp_path)
    (tmp_path / "image" / "1.png").unlink()
    assert open_dataset(tmp_path).names == ["0", "2"]
    (tmp_path / "image" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: is a label without an image"):
        open_dataset(tmp_path)
    write_image(tmp_path / "image" / "0.tif", grey())
    with pytest.raises(DataError, match="has the same name"):
        open_dataset(tmp_path)


def test_folders_that_hold_no_data_set(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(DataError, match=r"looked for pairs: .*stack: .*chase: .*ctc: "):
        open_dataset(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        open_dataset(tmp_path / "file")
    make_pairs(tmp_path / "one", [half(1)])
    (tmp_path / "two" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="holds 2 data sets, choose one of: one, two"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r"two: has images/ but none of label, labels"):
        open_dataset(tmp_path / "two")
    (tmp_path / "two" / "masks").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        open_dataset(tmp_path / "two")
    with pytest.raises(ValueError, match="layout is 'heap', legal are auto, pairs"):
        open_dataset(tmp_path / "one", layout="heap")
    with pytest.raises(DataError, match="looked for ctc: "):
        open_dataset(tmp_path / "one", layout="ctc")
    with pytest.raises(ValueError, match="channels is 2"):
        open_dataset(tmp_path / "one", channels=2)


def test_stack(tmp_path):
    pages = np.stack([grey(seed) for seed in range(12)])
    labels = np.stack([half(255)] * 11 + [half(255, shape=(12, 10))[::-1]])
    save_stack(tmp_path / "train-volume.tif", pages)
    with pytest.raises(DataError, match=r"no train-labels\.tif"):
        open_dataset(tmp_path)
    save_stack(tmp_path / "train-labels.tif", labels)
    data = open_dataset(tmp_path)
    assert data.names[9:] == ["9", "10", "11"]
    assert data[11].label.tolist() == (labels[11] // 255).tolist()
    assert np.array_equal(data[3].image, normalise(pages[3][None]))


def test_stack_with_unequal_page_counts(tmp_path):
    save_stack(tmp_path / "train-volume.tif", [grey()] * 3)
    save_stack(tmp_path / "train-labels.tif", [half(255)] * 2)
    with pytest.raises(DataError, match=r"train-labels\.tif: has 2 pages, train-volume\.tif has 3"):
        open_dataset(tmp_path)


def test_chase(tmp_path):
    for name in ("01L", "01R", "02L", "02R", "03L"):
        Image.fromarray(np.dstack([grey()] * 3)).save(tmp_path / f"Image_{name}.jpg")
        write_image(tmp_path / f"Image_{name}_1stHO.png", half(1) > 0)
    data = open_dataset(tmp_path)
    assert data.groups == ["01", "01", "02", "02", "03"] and data.channels == 3
    training, validation = split_dataset(data, 0.4)
    assert validation.groups == ["02", "02", "03"] and training.groups == ["01", "01"], "children stay whole"
    with pytest.raises(ValueError, match="group 01 would stand on both sides"):
        split_dataset(data, "1-2")
    assert len(split_dataset(data, "Image_02L,Image_02R")[1]) == 2
    (tmp_path / "Image_02L_1stHO.png").unlink()
    with pytest.raises(DataError, match=r"Image_02L\.jpg: has no label"):
        open_dataset(tmp_path)


def make_ctc(folder, sequences=("01",), truth="ST"):
    ids = np.zeros((120, 130), np.uint16)
    ids[55:60, 60:70], ids[60:66, 60:70], ids[2:6, 2:6] = 3, 700, 9
    for sequence in sequences:
        (folder / sequence).mkdir()
        (folder / f"{sequence}_{truth}" / "SEG").mkdir(parents=True)
        for number in ("000", "002"):
            write_image(folder / sequence / f"t{number}.tif", grey(shape=ids.shape))
            write_image(folder / f"{sequence}_{truth}" / "SEG" / f"man_seg{number}.tif", ids)
        write_image(folder / sequence / "t001.tif", grey(shape=ids.shape))  # a frame without a label
    return ids


def test_ctc(tmp_path):
    ids = make_ctc(tmp_path)
    data = open_dataset(tmp_path)
    assert data.names == ["t000", "t002"] and data.classes == 2
    sample = data[1]
    assert sample.instances.dtype == np.int32 and np.array_equal(sample.instances, ids)
    strip = np.ones(ids.shape, bool)
    strip[50:70, 50:80] = False
    assert np.array_equal(sample.label == -100, strip & (ids == 0))
    assert np.array_equal(sample.label == 1, separate_touching(ids) == 1)
    assert (sample.label[59:61, 60:70] == 0).all(), "touching objects are parted"
    assert sample.label[3, 3] == 1, "labelled pixels of the strip count"
    assert (open_dataset(tmp_path, ignore_border=0)[0].label != -100).all()
    assert any("within 50 pixels" in line for line in data.describe())
    share = 100 * (strip & (ids == 0)).mean()
    assert any(f"ignored: {share:.1f} % of all pixels" in line for line in check_dataset(data))


def test_ctc_sequences_and_missing_frames(tmp_path):
    make_ctc(tmp_path, ("01", "02"), truth="GT")
    assert open_dataset(tmp_path).names == ["01_t000", "01_t002", "02_t000", "02_t002"]
    (tmp_path / "02" / "t002.tif").unlink()
    with pytest.raises(DataError, match=r"man_seg002\.tif: has no image 02/t002\.tif"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (3, 253), (0, 7)])
def test_polarity_is_said_and_can_be_swapped(tmp_path, values):
    low, high = values
    data = open_dataset(make_pairs(tmp_path, [half(high, low)]))
    assert np.array_equal(data[0].label, half(1))
    line = data.describe()[1]
    assert f"{high} is class 1" in line and f"swap: foreground={low}" in line
    swapped = open_dataset(tmp_path, foreground=low)
    assert np.array_equal(swapped[0].label, 1 - half(1))
    assert f"{low} is class 1, {high} is class 0 (swap: foreground={high})" in swapped.describe()[1]
    with pytest.raises(
        DataError, match=f"no label file holds the foreground value 99; values found: {low}, {high}"
    ):
        open_dataset(tmp_path, foreground=99)


def test_the_rule_is_one_for_all_files(tmp_path):
    """A file in which a value is missing is read like the others."""
    full, empty, only = half(255), half(0), half(255, 255)
    data = open_dataset(make_pairs(tmp_path, [full, empty, only]))
    assert [int(s.label.sum()) for s in data] == [40, 0, 120]
    indices = open_dataset(make_pairs(tmp_path / "i", [half(1), half(1, 2), half(0)]))
    assert indices.classes == 3 and [set(np.unique(s.label)) for s in indices] == [{0, 1}, {1, 2}, {0}]


def test_class_indices_and_ignored_pixels(tmp_path):
    label = half(2)
    label[0, :4], label[1, :3] = 255, 1
    data = open_dataset(make_pairs(tmp_path, [label]))
    assert data.classes == 3
    assert (data[0].label == -100).sum() == 4 and (data[0].label == 1).sum() == 3
    assert "class indices 0..2" in data.describe()[1] and "255 is ignored" in data.describe()[1]
    vessel = open_dataset(tmp_path, foreground=2)
    assert vessel.classes == 2 and np.array_equal(vessel[0].label, label == 2)
    anything = open_dataset(tmp_path, labels="binary")
    assert np.array_equal(anything[0].label, label > 0)


def test_instances_by_type_by_number_or_by_option(tmp_path):
    wide = half(3).astype(np.uint16)
    wide[5, 5] = 900
    data = open_dataset(make_pairs(tmp_path / "wide", [wide]))
    assert np.array_equal(data[0].instances, wide) and "instance ids" in data.describe()[1]
    many = np.arange(120, dtype=np.uint8).reshape(12, 10)
    assert open_dataset(make_pairs(tmp_path / "many", [many]))[0].instances.max() == 119
    few = make_pairs(tmp_path / "few", [half(2)])
    assert open_dataset(few)[0].instances is None
    assert open_dataset(few, labels="instances")[0].instances.max() == 2
    with pytest.raises(ValueError, match="foreground=1 only goes with binary"):
        open_dataset(few, labels="instances", foreground=1)
    with pytest.raises(ValueError, match="labels is 'objects', legal are auto"):
        open_dataset(few, labels="objects")


def test_labels_that_mean_nothing(tmp_path):
    odd = half(128)
    odd[0, 0] = 77
    with pytest.raises(DataError, match="0, 77, 128 are neither two values nor class indices"):
        open_dataset(make_pairs(tmp_path / "odd", [odd]))
    coloured = np.dstack([half(1), half(2), half(3)])
    with pytest.raises(DataError, match=r"0\.png: is a colour image"):
        open_dataset(make_pairs(tmp_path / "coloured", [coloured]))
    same = make_pairs(tmp_path / "same", [np.dstack([half(255)] * 3)])
    assert np.array_equal(open_dataset(same)[0].label, half(1))
    lossy = make_pairs(tmp_path / "lossy", [half(255)])
    (lossy / "label" / "0.png").rename(lossy / "label" / "0.jpg")
    with pytest.raises(DataError, match=r"0\.jpg: JPEG changes label values"):
        open_dataset(lossy)
    floats = make_pairs(tmp_path / "floats", [half(255)])
    (floats / "label" / "0.png").unlink()
    np.save(floats / "label" / "0.npy", half(1) / 2)
    with pytest.raises(DataError, match=r"0\.npy: holds float64 values"):
        open_dataset(floats)


def test_channels(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    data = make_pairs(tmp_path, [half(1)] * 2, images=[colour, grey()])
    mixed = open_dataset(data)
    assert mixed.channels == 3 and mixed[0].image.shape == mixed[1].image.shape == (3, 12, 10)
    assert np.array_equal(mixed[1].image[0], mixed[1].image[2])
    as_grey = open_dataset(data, channels=1)
    luma = colour @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(as_grey[0].image, normalise(luma[None]), atol=1e-6)
    np.save(tmp_path / "image" / "2.npy", np.zeros((12, 10, 5), np.uint8))
    write_image(tmp_path / "label" / "2.png", half(1))
    with pytest.raises(DataError, match=r"2\.npy: has 5 channels where 3 are expected"):
        check_dataset(open_dataset(data))


def test_check_dataset_lines(tmp_path):
    data = open_dataset(make_pairs(tmp_path, [half(255), half(255), half(255, shape=(9, 10))]))
    lines = check_dataset(data, minimum_size=(9, 10))
    text = "\n".join(lines)
    assert "3 pairs, 1 channels, 2 classes" in text
    assert "1 of 9x10, 2 of 12x10" in text
    assert "class 0: 66.7 %, class 1: 33.3 %" in text
    assert "swap: foreground=0" in text
    assert "warning" not in text
    with pytest.raises(DataError, match=r"2\.png: is 9x10, at least 10x10 is needed"):
        check_dataset(data, minimum_size=10)


def test_check_dataset_warns(tmp_path):
    data = open_dataset(make_pairs(tmp_path, [half(0)], images=[half(9, 9)]))
    warnings = [line for line in check_dataset(data) if line.startswith("warning:")]
    assert any("class 1 does not occur" in line for line in warnings)
    assert any("constant image: " in line and "0.png" in line for line in warnings)


def test_check_dataset_reads_every_file(tmp_path):
    make_pairs(tmp_path, [half(255)] * 3)
    data = open_dataset(tmp_path)
    file = tmp_path / "image" / "2.png"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2\.png: "):
        check_dataset(data)
    write_image(file, grey(shape=(11, 10)))
    with pytest.raises(DataError, match=r"label/2\.png: the label is 12x10, the image 11x10"):
        check_dataset(data)
    with pytest.raises(DataError, match="the label is 12x10, the image 11x10"):
        data[2]
    file.unlink()
    np.save(file.with_suffix(".npy"), np.full((12, 10), np.nan))
    with pytest.raises(DataError, match=r"2\.npy: holds values that are not finite"):
        check_dataset(open_dataset(tmp_path))


def test_a_new_label_value_after_opening_is_refused(tmp_path):
    data = open_dataset(make_pairs(tmp_path, [half(1), half(2)]))
    write_image(tmp_path / "label" / "1.png", half(7))
    with pytest.raises(DataError, match=r"1\.png: holds the label value 7, legal are 0\.\.2"):
        check_dataset(data)
    two = open_dataset(make_pairs(tmp_path / "two", [half(255)]))
    write_image(tmp_path / "two" / "label" / "0.png", half(254))
    with pytest.raises(DataError, match=r"0\.png: holds the label value 254, legal are 0, 255"):
        check_dataset(two)


def test_split_dataset(tmp_path):
    data = open_dataset(make_pairs(tmp_path, [half(1)] * 10))
    for validation in (0.2, "0.2", "20%", "8-9", "9,8", "8"):
        training, chosen = split_dataset(data, validation)
        expected = ["8"] if validation == "8" else ["8", "9"]
        assert chosen.names == expected and sorted([*training.names, *chosen.names]) == data.names
        assert chosen.rule is data.rule
    assert split_dataset(data, 0.01)[1].names == ["9"]
    assert data.subset([3, 1]).names == ["3", "1"]
    for validation in ("8-12", "nine", "9-8", "", "0-9", 0.0, 1.0, 1.5, "100%", 0.99):
        with pytest.raises(ValueError, match="split_dataset"):
            split_dataset(data, validation)


def test_split_by_index_wins_over_names(tmp_path):
    data = open_dataset(make_pairs(tmp_path, [half(1)] * 3, names=["1", "2", "30"]))
    assert split_dataset(data, "1-2")[1].names == ["2", "30"]
    assert split_dataset(data, "30")[1].names == ["30"]


def test_normalise():
    rng = np.random.default_rng(0)
    image = rng.normal(100, 5, (2, 50, 60)).astype(np.float64)
    image[1] = image[1] * 40 - 3000
    out = normalise(image)
    assert out.dtype == np.float32
    np.testing.assert_allclose(np.percentile(out, (1, 99), axis=(1, 2)), [[0, 0], [1, 1]], atol=1e-5)
    dim = rng.integers(0, 60, (1, 30, 30), dtype=np.uint8)
    np.testing.assert_allclose(normalise(dim), normalise(dim.astype(np.uint16) * 1000), atol=1e-5)
    assert (normalise(np.full((1, 4, 4), 7, np.uint16)) == 0).all()
    sparse = np.zeros((1, 40, 40), np.uint8)
    sparse[0, 0, 0] = 50
    assert normalise(sparse).max() == 1 and normalise(sparse).min() == 0
    hot = dim.astype(np.uint16)
    hot[0, 3, 3] = 65535
    assert normalise(hot).max() == 2
    with pytest.raises(ValueError, match=r"legal is \(C, H, W\)"):
        normalise(dim[0])


@needs_shared
@pytest.mark.parametrize(
    ("folder", "pairs", "channels", "words"),
    [
        ("isbi2012", 24, 1, "255 is class 1, 0 is class 0 (swap: foreground=0)"),
        ("dsb2018/fluo256", 24, 1, "instance ids"),
        ("chase_db1", 20, 3, "1 is class 1"),
        ("dic_hela", 25, 1, "instance ids"),
    ],
)
def test_real_data(folder, pairs, channels, words):
    data = open_dataset(SHARED / folder)
    assert len(data) == pairs and data.channels == channels and data.classes == 2
    assert words in data.describe()[1]
    sample = data[0]
    assert (sample.instances is not None) == ("instance ids" in words)
    assert set(np.unique(sample.label)) <= {-100, 0, 1} and (sample.label == 1).any()


@needs_shared
def test_real_data_details():
    with pytest.raises(DataError, match="holds 2 data sets, choose one of: fluo256, fluo520x696"):
        open_dataset(SHARED / "dsb2018")
    isbi = open_dataset(SHARED / "isbi2012")
    assert split_dataset(isbi, "20-23")[1].names == ["20", "21", "22", "23"]
    assert "class 0: 22.5 %, class 1: 77.5 %" in "\n".join(check_dataset(isbi, minimum_size=512))
    eyes = open_dataset(SHARED / "chase_db1")
    assert split_dataset(eyes, 0.2)[1].groups == ["09", "09", "10", "10"]
    assert all(len(part) == 4 and len(set(part.groups)) == 2 for _, part in folds(eyes, 5))


@needs_shared
def test_fields_of_view_of_real_eyes():
    """A disc of nearly the height of the picture: about pi/4 of a square of it, and hardly a vessel outside."""
    eyes = open_dataset(SHARED / "chase_db1")
    for index in (0, 7, 19):
        sample = eyes[index]
        inside = sample.label != -100
        assert 0.66 < inside.mean() < 0.72 and not inside[:20, :20].any() and inside[480, 500]
        label = eyes.entries[index].label()
        assert label[~inside].sum() < 0.005 * label.sum()


@needs_shared
@pytest.mark.parametrize("folder", ["isbi2012", "dsb2018/fluo256", "dsb2018/fluo520x696", "chase_db1", "dic_hela"])
def test_real_data_are_not_suspicious(folder):
    lines = check_dataset(open_dataset(SHARED / folder))
    assert not [line for line in lines if line.startswith("warning:")]
    ordered = any(line.startswith("order: neighbours look alike") for line in lines)
    assert ordered == (folder in ("isbi2012", "dic_hela"))


@needs_shared
def test_a_real_field_of_view_is_refused_as_a_label(tmp_path):
    eyes = open_dataset(SHARED / "chase_db1")
    for index in range(2):
        inside = 255 * (eyes[index].label != -100).astype(np.uint8)
        make_pairs(tmp_path, [inside], [eyes.entries[index].image()], [str(index)])
    with pytest.raises(DataError, match="marks the field of view"):
        open_dataset(tmp_path)
