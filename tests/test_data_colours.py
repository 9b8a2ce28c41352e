"""Labels painted in colours: the table, its file, and what is not in it."""

import numpy as np
import pytest
from PIL import Image

from minitorch_unet.data import open_dataset, write_image
from minitorch_unet.data.colours import as_text, read_colours, to_classes
from minitorch_unet.errors import DataError


def grey(seed=0, shape=(60, 56)):
    return np.random.default_rng(seed).integers(20, 200, shape, dtype=np.uint8)


def make_pairs(folder, images, labels):
    for name, arrays in (("images", images), ("masks", labels)):
        (folder / name).mkdir(parents=True)
        for number, array in enumerate(arrays):
            write_image(folder / name / f"{number}.png", array)
    return folder


TABLE = "sky=#000000,road=#ff0000,tree=#00ff00,ignore=#ffffff"


def painted():
    picture = np.zeros((9, 12, 3), np.uint8)
    picture[:3] = 255, 0, 0
    picture[3:5] = 0, 255, 0
    picture[8] = 255
    return picture


def test_labels_in_colours(tmp_path):
    data = make_pairs(tmp_path, [grey(shape=(9, 12))] * 2, [painted(), np.zeros((9, 12), np.uint8)])
    with pytest.raises(DataError, match=r"0\.png: is a colour image, .* most frequent are #ff0000, #000000, #00ff00"):
        open_dataset(data)
    found = open_dataset(data, colours=TABLE)
    assert found.classes == 3 and found.rule.class_names() == ["sky", "road", "tree"]
    assert found[0].label[:, 0].tolist() == [1, 1, 1, 2, 2, 0, 0, 0, -100]
    assert (found[1].label == 0).all(), "a grey file counts by its greys"
    line = "labels: colours, classes 0..2 in this order: #000000 sky, #ff0000 road, #00ff00 tree, #ffffff ignore"
    assert line in found.describe()


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nsky,0,0,0\nroad, 255, 0, 0\ntree,0,255,0\nignore,255,255,255\n",
        "sky 0 0 0\nroad 255 0 0\ntree\t0\t255\t0\n\nignore #FFFFFF\n",
        "sky #000000\nroad=#ff0000\ntree = #00ff00\nignore #ffffff",
    ],
)  # fmt: skip
def test_tables_of_colours_in_files(tmp_path, text):
    file = tmp_path / "classes.csv"
    file.write_text(text)
    assert read_colours(str(file)) == read_colours(TABLE)
    assert as_text(read_colours(str(file))) == TABLE


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("nowhere.csv", DataError, "nowhere.csv: cannot be read as a table of colours"),
        ("a=#000000", ValueError, "names 1 classes, at least 2"),
        ("a=#000000,ignore=#ffffff", ValueError, "at least 2 are needed"),
        ("a=#000000,a=#ffffff", ValueError, "the name a occurs twice"),
        ("a=#000000,b=#000000", ValueError, "the colour #000000 occurs twice"),
        ("a=#000000,b=#00", ValueError, "'b=#00' is no name with a colour"),
    ],
)
def test_wrong_tables_of_colours(text, error, words):
    with pytest.raises(error, match=words):
        read_colours(text)


def test_a_wrong_line_in_a_table_of_colours(tmp_path):
    (tmp_path / "t").write_text("a 0 0 0\nb 256 0 0\n")
    with pytest.raises(ValueError, match="'b 256 0 0' is no name with a colour"):
        read_colours(str(tmp_path / "t"))


def test_a_colour_that_is_not_in_the_table_is_named_with_its_place_and_the_nearest():
    picture = painted()
    picture[4, 7] = 10, 240, 5
    picture[5, 0] = 1, 2, 3
    with pytest.raises(DataError, match=r"x: 2 pixels .* row 4, column 7: #0af005; the nearest is tree #00ff00"):
        to_classes(picture, read_colours(TABLE), "x")


def test_to_classes_against_a_loop():
    rng = np.random.default_rng(0)
    table = tuple((f"c{i}", tuple(int(v) for v in rng.integers(0, 256, 3))) for i in range(20))
    numbers = rng.integers(0, 20, (30, 40))
    picture = np.array([colour for _, colour in table], np.uint8)[numbers]
    assert np.array_equal(to_classes(picture, table, ""), numbers)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"labels": "colours"}, "labels is 'colours' and colours None"),
        ({"labels": "indices", "colours": TABLE}, "they only go together"),
        ({"foreground": 1, "colours": TABLE}, "foreground=1 does not go with a table"),
    ],
)
def test_colours_and_other_options(tmp_path, how, words):
    data = make_pairs(tmp_path, [grey(shape=(9, 12))], [painted()])
    with pytest.raises(ValueError, match=words):
        open_dataset(data, **how)


def test_colours_need_label_files(tmp_path):
    stack = tmp_path / "stack"
    stack.mkdir()
    for name in ("volume", "labels"):
        np.save(stack / f"{name}.npy", np.zeros((2, 9, 20), np.uint8))
    with pytest.raises(DataError, match="needs one label file for each image"):
        open_dataset(stack, colours=TABLE)
    lossy = make_pairs(tmp_path / "lossy", [grey(shape=(9, 12))], [painted()])
    (lossy / "masks" / "0.png").rename(lossy / "masks" / "0.jpg")
    with pytest.raises(DataError, match="JPEG changes label values"):
        open_dataset(lossy, colours=TABLE)[0]
    deep = make_pairs(tmp_path / "deep", [grey(shape=(9, 12))], [np.zeros((9, 12), np.uint16)])
    with pytest.raises(DataError, match="holds uint16 values, a label in colours has 8 bits"):
        open_dataset(deep, colours=TABLE)[0]


def test_a_palette_of_colours_is_indices_or_colours(tmp_path):
    data = make_pairs(tmp_path, [grey(shape=(9, 12))], [np.zeros((9, 12), np.uint8)])
    picture = Image.fromarray((np.arange(108).reshape(9, 12) % 3).astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(data / "masks" / "0.png")
    by_index, by_colour = open_dataset(data)[0].label, open_dataset(data, colours=TABLE)[0].label
    assert np.array_equal(by_index, by_colour) and set(np.unique(by_index)) == {0, 1, 2}
