"""What the check says is suspicious: planted faults are found, and sound data give no warning."""

import numpy as np
import pytest

from minitorch_unet.data import SyntheticCells, check_dataset, open_dataset, write_image
from minitorch_unet.data.check import examine_all, warn_of_duplicates
from minitorch_unet.data.suspicion import look_alike, thumbnail
from minitorch_unet.errors import DataError


def picture(seed, shape=(48, 50)):
    """Smooth, so that thumbnails of different pictures differ."""
    small = np.random.default_rng(seed).integers(0, 250, (shape[0] // 6 + 1, shape[1] // 6 + 1))
    return np.kron(small, np.ones((6, 6), int))[: shape[0], : shape[1]].astype(np.uint8)


def blob(share=0.2, shape=(48, 50)):
    label = np.zeros(shape, np.uint8)
    label[: round(shape[0] * share)] = 255
    return label


def make(folder, images, labels):
    for name, arrays in (("image", images), ("label", labels)):
        (folder / name).mkdir(parents=True)
        for number, array in enumerate(arrays):
            write_image(folder / name / f"{number}.png", array)
    return folder


def warnings_of(folder, **how):
    return [line for line in check_dataset(open_dataset(folder, **how)) if line.startswith("warning:")]


def test_sound_data_give_no_warning(tmp_path):
    assert not warnings_of(make(tmp_path, [picture(i) for i in range(6)], [blob()] * 6))
    assert not [line for line in check_dataset(SyntheticCells(4, 96)) if line.startswith("warning:")]


def test_a_label_of_the_other_polarity(tmp_path):
    labels = [blob()] * 3 + [255 - blob()] + [blob(0.3)]
    (line,) = warnings_of(make(tmp_path / "one", [picture(i) for i in range(5)], labels))
    assert line == f"warning: looks inverted beside the other labels: {tmp_path}/one/label/3.png"
    halves = [blob(0.45), blob(0.55), blob(0.5), blob(0.42)]
    assert not warnings_of(make(tmp_path / "halves", [picture(i) for i in range(4)], halves))


def test_a_label_that_only_holds_more_is_not_inverted(tmp_path):
    """Bright objects in all pictures, many in one: its share is that of the others' background, its polarity theirs."""
    labels = [blob(share) for share in (0.2, 0.25, 0.3, 0.2, 0.78)]
    bright = [(picture(i) // 4 + (label > 0) * 100).astype(np.uint8) for i, label in enumerate(labels)]
    assert not warnings_of(make(tmp_path / "more", bright, labels))
    labels[4] = 255 - labels[3]
    bright[4] = (picture(4) // 4 + (labels[4] == 0) * 100).astype(np.uint8)
    (line,) = warnings_of(make(tmp_path / "inverted", bright, labels))
    assert line.startswith("warning: looks inverted") and line.endswith("4.png")


def test_almost_empty_and_almost_full_labels(tmp_path):
    empty, full = np.zeros((48, 50), np.uint8), np.full((48, 50), 255, np.uint8)
    empty[0, :2], full[0, 0] = 255, 0
    lines = warnings_of(make(tmp_path, [picture(i) for i in range(6)], [blob()] * 4 + [empty, full]))
    text = "\n".join(lines)
    assert f"almost empty label: {tmp_path}/image/4.png (2 foreground pixels of 2400)" in text
    assert f"almost full label: {tmp_path}/image/5.png (1 background pixels of 2400)" in text


def test_255_as_a_class_beside_others(tmp_path):
    label = np.where(blob(0.5) > 0, 255, 0).astype(np.uint8)
    label[30:35] = 1
    label[40:43] = 2
    data = make(tmp_path, [picture(0), picture(1)], [label] * 2)
    assert any("50 % of all pixels are ignored; if 255 is a class" in line for line in warnings_of(data))
    assert not warnings_of(data, foreground=255)


def test_masks_resized_with_interpolation_are_no_objects(tmp_path):
    smooth = blob(0.5).astype(np.uint8)
    smooth[24] = np.arange(50) * 5
    data = make(tmp_path, [picture(0)], [smooth])
    with pytest.raises(DataError, match=r"most of them 255 where not 0: masks that were resized .* labels='binary'"):
        open_dataset(data)
    assert (open_dataset(data, labels="binary")[0].label == (smooth > 0)).all()
    assert open_dataset(data, labels="instances")[0].instances.max() == 255


def test_labels_that_are_ignored_altogether(tmp_path):
    label = blob() // 255
    label[20:30] = 2
    lines = warnings_of(make(tmp_path, [picture(0), picture(1)], [label, np.full((48, 50), 255, np.uint8)]))
    assert any("all pixels of the label are ignored: " in line and "image/1.png" in line for line in lines)


def test_the_same_image_twice_and_almost(tmp_path):
    almost = picture(1).copy()
    almost[3, 3] += 1
    images = [picture(0), picture(1), picture(0), almost, picture(4)]
    lines = warnings_of(make(tmp_path, images, [blob()] * 5))
    assert lines[0] == "warning: the same image twice: 0 = 2"
    assert lines[1].startswith("warning: almost the same image (1 pairs; ") and lines[1].endswith(": 1 ~ 3")
    assert len(lines) == 2


def test_duplicates_across_parts(tmp_path):
    train = open_dataset(make(tmp_path / "train", [picture(0), picture(1)], [blob()] * 2))
    test = open_dataset(make(tmp_path / "test", [picture(2), picture(1)], [blob()] * 2))
    parts = {"train": examine_all(train), "test": examine_all(test)}
    assert warn_of_duplicates(parts) == ["warning: the same image in train and test: 1 and 1"]
    assert warn_of_duplicates({"train": parts["train"], "test": []}) == []


def test_specks_and_torn_objects(tmp_path):
    ids = np.zeros((48, 50), np.uint16)
    ids[2:12, 2:12], ids[30:40, 2:12], ids[20, 20], ids[44:47, 20:30] = 700, 700, 3, 9
    lines = warnings_of(make(tmp_path, [picture(0)], [ids]))
    assert f"warning: objects of less than 10 pixels: {tmp_path}/image/0.png (1 of 3)" in lines
    assert f"warning: ids that lie in several separate pieces: {tmp_path}/image/0.png (1 of 3)" in lines
    assert "objects: 3, from 3 to 3 in an image" in check_dataset(open_dataset(tmp_path))


def test_grey_images_in_three_channels(tmp_path):
    rgb = [np.dstack([picture(i)] * 3) for i in range(2)]
    assert "channels=1" in warnings_of(make(tmp_path / "grey", rgb, [blob()] * 2))[0]
    rgb[1][0, 0, 0] ^= 1
    assert not warnings_of(make(tmp_path / "colour", rgb, [blob()] * 2))


def test_many_files_of_one_kind_are_one_line(tmp_path):
    flat = [np.full((48, 50), 7 + i, np.uint8) for i in range(7)]
    (line,) = warnings_of(make(tmp_path, flat, [blob()] * 7))
    assert line.startswith("warning: constant image: ") and line.endswith(" and 3 more") and line.count(".png") == 4


def test_neighbours_that_look_alike_are_said(tmp_path):
    film = [picture(0).astype(float)]
    for i in range(1, 12):
        film.append(0.8 * film[-1] + 0.3 * picture(i))
    label = [blob()] * 12
    data = make(tmp_path / "film", [np.minimum(frame, 255).astype(np.uint8) for frame in film], label)
    assert any(line.startswith("order: neighbours look alike") for line in check_dataset(open_dataset(data)))
    data = make(tmp_path / "single", [picture(i) for i in range(12)], label)
    assert not any(line.startswith("order: ") for line in check_dataset(open_dataset(data)))


@pytest.mark.parametrize("shape", [(1, 48, 50), (3, 7, 100), (1, 24, 24), (2, 3, 3)])
def test_thumbnails_are_block_means(shape):
    image = np.random.default_rng(0).random(shape)
    found = thumbnail(image)
    grey = image.mean(axis=0)
    blocks = np.empty((24, 24))
    for r, c in np.ndindex(24, 24):
        starts = r * shape[1] // 24, c * shape[2] // 24
        stops = (r + 1) * shape[1] // 24, (c + 1) * shape[2] // 24
        window = tuple(slice(start, max(stop, start + 1)) for start, stop in zip(starts, stops, strict=True))
        blocks[r, c] = grey[window].mean()
    blocks -= blocks.mean()
    np.testing.assert_allclose(found.reshape(24, 24), blocks / np.sqrt((blocks**2).sum()), atol=1e-12)
    assert np.array_equal(thumbnail(np.full(shape, 0.3)), np.zeros(576))


def test_images_that_differ_in_scale_and_offset_are_almost_the_same(tmp_path):
    bright = (40 + 0.5 * picture(0)).astype(np.uint8)
    found = examine_all(open_dataset(make(tmp_path, [picture(0), bright, picture(1)], [blob()] * 3)))
    assert look_alike(found) == ([], [("0", "1")])


def test_errors_can_be_collected(tmp_path):
    data = make(tmp_path, [picture(i) for i in range(4)], [blob()] * 4)
    write_image(data / "image" / "1.png", picture(1, (40, 50)))
    (data / "image" / "3.png").write_bytes(b"no picture")
    errors = []
    findings = examine_all(open_dataset(data), errors=errors)
    assert [finding.name for finding in findings] == ["0", "2"]
    assert len(errors) == 2 and "label/1.png: the label is 48x50, the image 40x50" in errors[0] and "3.png" in errors[1]
