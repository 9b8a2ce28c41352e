"""Layouts of public data sets in miniature, each with the traps that it is known for."""

import numpy as np
import pytest
from PIL import Image

from minitorch_unet.cli import main
from minitorch_unet.cli.options import LABELS
from minitorch_unet.cli.options import LAYOUTS as OPTIONS
from minitorch_unet.data import open_dataset, split_dataset, write_image
from minitorch_unet.data.challenges import field_of_view
from minitorch_unet.data.labels import KINDS
from minitorch_unet.data.layouts import LAYOUTS
from minitorch_unet.data.suspicion import is_field_of_view
from minitorch_unet.errors import DataError

SIZE = (60, 56)


def grey(seed=0, shape=SIZE):
    return np.random.default_rng(seed).integers(20, 200, shape, dtype=np.uint8)


def disc(shape=SIZE, radius=27.0):
    rows, columns = np.indices(shape)
    return np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2) < radius


def vessels(seed=0, shape=SIZE):
    label = np.zeros(shape, bool)
    label[:, 10 + seed : 13 + seed], label[30:32] = True, True
    return label & disc(shape)


def fundus(seed=0, shape=SIZE):
    """A colour picture that is black outside a disc."""
    return np.where(disc(shape)[..., None], grey(seed, (*shape, 3)), 0).astype(np.uint8)


def save_palette_gif(file, mask, greys=(3, 253)):
    """Two greys by a palette, as one of DRIVE's folders has them."""
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette([part for value in greys for part in (value,) * 3])
    picture.save(file)


def make_drive(folder, kind="training", numbers=("21", "22", "33"), greys=(3, 253), mask=True):
    for name in ("images", "1st_manual", *(["mask"] if mask else [])):
        (folder / name).mkdir(parents=True)
    for seed, number in enumerate(numbers):
        Image.fromarray(fundus(seed)).save(folder / "images" / f"{number}_{kind}.tif")
        save_palette_gif(folder / "1st_manual" / f"{number}_manual1.gif", vessels(seed), greys)
        if mask:
            save_palette_gif(folder / "mask" / f"{number}_{kind}_mask.gif", disc(), (0, 255))
    return folder


# ---------------------------------------------------------------------------------------------------- DRIVE


@pytest.mark.parametrize("greys", [(3, 253), (0, 255), (0, 1)])
def test_drive(tmp_path, greys):
    """The label is cut between the two greys, not above 0, and pixels outside the field of view are ignored."""
    data = open_dataset(make_drive(tmp_path, greys=greys))
    assert data.source.endswith("(drive)") and data.names == ["21", "22", "33"] and data.channels == 3
    for seed, sample in enumerate(data):
        assert np.array_equal(sample.label == 1, vessels(seed))
        assert np.array_equal(sample.label == -100, ~disc())
    assert f"ignored: pixels outside the field of view (from {tmp_path}/mask)" in data.describe()


def test_drive_as_it_is_unpacked_holds_two_data_sets(tmp_path):
    make_drive(tmp_path / "training")
    make_drive(tmp_path / "test", "test", ("01", "02"))
    with pytest.raises(DataError, match="holds 2 data sets, choose one of: test, training"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "test").names == ["01", "02"]


def test_drives_field_of_view_is_never_taken_for_a_label(tmp_path):
    make_drive(tmp_path)
    for file in (tmp_path / "1st_manual").iterdir():
        file.unlink()
    (tmp_path / "1st_manual").rmdir()
    words = r"mark the field of view and are no labels; .* missing, DRIVE keeps them in 1st_manual/"
    with pytest.raises(DataError, match=words):
        open_dataset(tmp_path)


def test_drive_with_missing_parts(tmp_path):
    found = open_dataset(make_drive(tmp_path / "unmasked", mask=False))
    assert np.array_equal(found[0].label == -100, ~disc()), "found in the image"
    assert any("as there is no mask/" in line for line in found.describe())
    make_drive(tmp_path / "a")
    (tmp_path / "a" / "1st_manual" / "22_manual1.gif").unlink()
    with pytest.raises(DataError, match=r"22_training\.tif: has no label; looked for 22_manual1\.\* in .*1st_manual"):
        open_dataset(tmp_path / "a")
    make_drive(tmp_path / "b")
    (tmp_path / "b" / "mask" / "33_training_mask.gif").unlink()
    with pytest.raises(DataError, match=r"33_training\.tif: has no field of view; looked for 33_\*mask"):
        open_dataset(tmp_path / "b")
    make_drive(tmp_path / "c")
    (tmp_path / "c" / "images" / "21_training.tif").unlink()
    with pytest.raises(DataError, match=r"21_manual1\.gif: is a label without an image"):
        open_dataset(tmp_path / "c")
    make_drive(tmp_path / "d")
    write_image(tmp_path / "d" / "1st_manual" / "21_manual1.png", grey())
    with pytest.raises(DataError, match=r"21_manual1\.png: .*has the same name"):
        open_dataset(tmp_path / "d")
    (tmp_path / "d" / "1st_manual" / "21_manual1.gif").unlink()
    with pytest.raises(DataError, match=r"21_manual1\.png: holds \d+ grey values .* a mask has two"):
        open_dataset(tmp_path / "d")


def test_drives_masks_must_fit(tmp_path):
    make_drive(tmp_path)
    save_palette_gif(tmp_path / "mask" / "21_training_mask.gif", disc((50, 56)), (0, 255))
    with pytest.raises(DataError, match=r"21_training\.tif: its field of view is 50x56, the image 60x56"):
        open_dataset(tmp_path)[0]


# --------------------------------------------------------------------------- fields of view in other folders


def make_pairs(folder, images, labels):
    for name, arrays in (("images", images), ("masks", labels)):
        (folder / name).mkdir(parents=True)
        for number, array in enumerate(arrays):
            write_image(folder / name / f"{number}.png", array)
    return folder


def test_masks_of_the_field_of_view_are_refused_as_labels(tmp_path):
    images = [fundus(seed) for seed in range(3)]
    data = make_pairs(tmp_path, images, [255 * disc().astype(np.uint8)] * 3)
    words = r"0\.png: marks the field of view, like the other label files, and is no label; .* foreground=255"
    with pytest.raises(DataError, match=words):
        open_dataset(data)
    assert np.array_equal(open_dataset(data, foreground=255)[0].label, disc()), "unless it is meant"


def test_labels_that_only_resemble_a_field_of_view_are_accepted(tmp_path):
    images = [fundus(seed) for seed in range(3)]
    true = [255 * vessels(seed).astype(np.uint8) for seed in range(3)]
    assert len(open_dataset(make_pairs(tmp_path / "vessels", images, true))) == 3
    bright = [grey(seed) for seed in range(3)]
    discs = [255 * disc().astype(np.uint8)] * 3
    assert len(open_dataset(make_pairs(tmp_path / "bright", bright, discs))) == 3, "the image goes on outside"
    moved = [np.roll(disc(radius=26), 0, 0), disc(radius=26), disc(radius=20)]
    assert len(open_dataset(make_pairs(tmp_path / "differ", images, [255 * m.astype(np.uint8) for m in moved]))) == 3


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (disc(), True), (disc(radius=12), False), (~disc(), False), (np.ones(SIZE, bool), False),
        (disc() & ~vessels(), False), (np.pad(np.ones((54, 50), bool), 3), False),
    ],
)  # fmt: skip
def test_what_a_field_of_view_looks_like(mask, expected):
    assert is_field_of_view(fundus(), mask) is expected


def test_field_of_view_of_an_image():
    image = fundus()
    image[30, 28] = 0  # a black pixel inside is inside
    image[0, 0] = 200  # a bright one outside is not
    assert np.array_equal(field_of_view(image), disc())
    assert np.array_equal(field_of_view(image[..., 1]), disc())
    assert field_of_view(np.zeros((5, 6), np.uint8)).all()


def test_chase_ignores_what_lies_outside_the_field_of_view(tmp_path):
    Image.fromarray(fundus()).save(tmp_path / "Image_01L.jpg", quality=95)
    write_image(tmp_path / "Image_01L_1stHO.png", vessels())
    data = open_dataset(tmp_path)
    differing = (data[0].label == -100) != ~disc()
    assert differing.mean() < 0.03  # JPEG blurs the rim
    assert (data[0].label[vessels() & (data[0].label != -100)] == 1).all()
    assert "ignored: pixels outside the field of view (found in each image)" in data.describe()
    whole = open_dataset(tmp_path, surroundings="background")
    assert np.array_equal(whole[0].label, vessels()) and not any("ignored" in line for line in whole.describe())
    with pytest.raises(ValueError, match="surroundings is 'black', legal are ignored, background"):
        open_dataset(tmp_path, surroundings="black")


def test_a_run_that_learnt_the_surroundings_is_judged_inside_only(tmp_path, capsys):
    for name in ("01L", "02L"):
        Image.fromarray(fundus()).save(tmp_path / f"Image_{name}.jpg", quality=95)
        write_image(tmp_path / f"Image_{name}_1stHO.png", vessels())
    run = ["--output", str(tmp_path / "run"), "--base", "2", "--depth", "1", "--tile", "16", "--epochs", "1", "--quiet"]
    assert main(["train", "--data", str(tmp_path), "--surroundings", "background", "--weights", "none", *run]) == 0
    assert "ignored" not in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "ignored: pixels outside the field of view" in told and "vessels: ROC AUC" in told


# ------------------------------------------------------------------------------------ Data Science Bowl 2018


def make_dsb(folder, names=("aa", "bb"), shape=(20, 30)):
    for name in names:
        for part in ("images", "masks"):
            (folder / name / part).mkdir(parents=True)
        rgba = np.dstack([grey(shape=shape)] * 3 + [np.full(shape, 255, np.uint8)])
        Image.fromarray(rgba).save(folder / name / "images" / f"{name}.png")
        for number, (top, left) in enumerate(((2, 2), (2, 8), (10, 20))):
            mask = np.zeros(shape, np.uint8)
            mask[top : top + 6, left : left + 7] = 255
            write_image(folder / name / "masks" / f"{number}f.png", mask)
    return folder


def test_dsb_joins_one_mask_for_each_nucleus(tmp_path):
    data = open_dataset(make_dsb(tmp_path))
    assert data.source.endswith("(dsb)") and data.names == ["aa", "bb"] and data.channels == 3
    ids = data[0].instances
    assert [int((ids == number).sum()) for number in range(4)] == [600 - 42 - 36 - 42, 42, 36, 42]
    assert ids[2, 8] == 1, "a pixel of two masks belongs to the first"
    assert (data[0].label[2:8, 8:10] == 0).all(), "touching nuclei are parted"
    assert open_dataset(tmp_path, channels=1)[0].image.shape == (1, 20, 30)


def test_dsb_traps(tmp_path):
    make_dsb(tmp_path / "size")
    write_image(tmp_path / "size" / "aa" / "masks" / "1f.png", np.zeros((20, 31), np.uint8))
    with pytest.raises(DataError, match=r"1f\.png: is 20x31, the masks before it 20x30"):
        open_dataset(tmp_path / "size")[0]
    make_dsb(tmp_path / "test")
    for file in (tmp_path / "test" / "bb" / "masks").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="masks: holds no mask"):
        open_dataset(tmp_path / "test")
    (tmp_path / "test" / "bb" / "masks").rmdir()
    with pytest.raises(DataError, match="bb: has images/ but no masks/; the test part"):
        open_dataset(tmp_path / "test")
    make_dsb(tmp_path / "grey")
    write_image(tmp_path / "grey" / "aa" / "masks" / "1f.png", grey(shape=(20, 30)))
    with pytest.raises(DataError, match=r"1f\.png: holds \d+ grey values"):
        open_dataset(tmp_path / "grey")[0]
    with pytest.raises(DataError, match=r"one image with many masks is one sample of dsb: open .*grey"):
        open_dataset(tmp_path / "grey" / "bb")


# --------------------------------------------------------------------------------- Cell Tracking Challenge


def make_ctc(folder, truths=("ST", "GT")):
    ids = np.zeros((110, 120), np.uint16)
    ids[52:58, 52:62] = 5
    for sequence in ("01", "02"):
        (folder / sequence).mkdir(parents=True)
        for number in range(3):
            write_image(folder / sequence / f"t{number:03d}.tif", grey(number, ids.shape))
        for truth in truths:
            (folder / f"{sequence}_{truth}" / "SEG").mkdir(parents=True)
            for number in range(3 if truth == "ST" else 1):  # the gold truth has some frames only
                file = folder / f"{sequence}_{truth}" / "SEG" / f"man_seg{number:03d}.tif"
                write_image(file, ids + (truth == "GT") * (ids > 0))
    return folder


def test_ctc_silver_and_gold_truth(tmp_path):
    make_ctc(tmp_path)
    both = open_dataset(tmp_path)
    assert len(both) == 6 and both.series == ["01"] * 3 + ["02"] * 3 and both[0].instances.max() == 5
    gold = open_dataset(tmp_path, layout="ctc-gt")
    assert gold.names == ["01_t000", "02_t000"] and gold[0].instances.max() == 6
    narrow = open_dataset(tmp_path, "ctc-gt", ignore_border=7)[0].label
    assert (gold[0].label[:50] == -100).all() and (narrow[:7] == -100).all() and (narrow[7, 7:-7] == 0).all()
    assert len(open_dataset(tmp_path, layout="ctc-st")) == 6
    training, judged = split_dataset(both, "1/2", by="group")
    assert len(set(training.series)) == len(set(judged.series)) == 1 and training.series[0] != judged.series[0]
    with pytest.raises(DataError, match="looked for ctc-gt: "):
        open_dataset(make_ctc(tmp_path / "only", ("ST",)), layout="ctc-gt")


def test_ctc_in_three_dimensions_is_refused(tmp_path):
    make_ctc(tmp_path, ("GT",))
    write_image(tmp_path / "01_GT" / "SEG" / "man_seg_000_012.tif", np.eye(9, dtype=np.uint16))
    with pytest.raises(DataError, match="one slice of a three-dimensional image"):
        open_dataset(tmp_path)


# ------------------------------------------------------------------------------------------ stacks and flat folders


@pytest.mark.parametrize(
    ("volume", "labels"), [("train-volume", "train-labels"), ("volume", "label"), ("a_Volume", "a_Labels")]
)
def test_stacks_of_various_names(tmp_path, volume, labels):
    pages = [grey(seed) for seed in range(3)]
    for name, arrays in ((volume, pages), (labels, [255 * vessels(s).astype(np.uint8) for s in range(3)])):
        first, *rest = map(Image.fromarray, arrays)
        first.save(tmp_path / f"{name}.tif", save_all=True, append_images=rest)
    np.save(tmp_path / "test-volume.npy", np.stack(pages))  # the challenge's test part has no labels
    data = open_dataset(tmp_path)
    assert data.names == ["0", "1", "2"] and data.series == [volume] * 3
    assert np.array_equal(data[2].label, vessels(2))


def test_flat_folders(tmp_path):
    for number in (2, 10):
        write_image(tmp_path / f"benign ({number}).png", grey(number))
        write_image(tmp_path / f"benign ({number})_mask.png", 255 * vessels(number % 3).astype(np.uint8))
    (tmp_path / "notes.txt").write_text("x")
    data = open_dataset(tmp_path)
    assert data.source.endswith("(flat)") and data.names == ["benign (2)", "benign (10)"]
    assert np.array_equal(data[1].label, vessels(1))
    write_image(tmp_path / "odd.png", grey())
    with pytest.raises(DataError, match=r"odd\.png: has no label; looked for odd_mask\.\*"):
        open_dataset(tmp_path)
    for name in ("odd_mask.png", "odd_gt.png"):
        write_image(tmp_path / name, 255 * vessels().astype(np.uint8))
    with pytest.raises(DataError, match=r"odd\.png: has 2 labels, odd_mask\.png and odd_gt\.png"):
        open_dataset(tmp_path)
    (tmp_path / "odd.png").unlink()
    with pytest.raises(DataError, match="is a label without an image beside it"):
        open_dataset(tmp_path)


def test_the_command_line_offers_all_layouts_and_kinds():
    assert tuple(LAYOUTS) == OPTIONS and ("auto", *LABELS) == KINDS
