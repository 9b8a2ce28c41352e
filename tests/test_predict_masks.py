"""Masks in the layout of the Cell Tracking Challenge, as predict writes them."""

import numpy as np
import pytest
from small_runs import one_thread

from minitorch_unet import UNet, predict
from minitorch_unet.data import read_image, write_image
from minitorch_unet.metrics import seg
from minitorch_unet.predict import mask_names, predict_files

__all__ = ["one_thread"]


def two(foreground: np.ndarray) -> np.ndarray:
    """Probabilities (2, H, W) float32."""
    return np.stack([1 - foreground, foreground]).astype(np.float32)


def images(folder, *names: str):
    folder.mkdir()
    for name in names:
        write_image(folder / name, np.zeros((20, 30), np.uint8))
    return [folder / name for name in names]


def test_masks_of_the_cell_tracking_challenge(tmp_path, monkeypatch) -> None:
    paths = images(tmp_path / "01", "t005.tif", "t012.tif")
    objects = np.zeros((20, 30))
    objects[2:6, 2:6] = objects[10:14, 10:20] = 0.9
    monkeypatch.setattr(predict, "predict_probabilities", lambda *a: two(objects))
    network = UNet(base=1, depth=1)
    masks = tmp_path / "01_RES"
    written = list(predict_files(network, paths, tmp_path / "out", masks=masks, objects={"min_area": 20}))
    assert [p.name for p in written if p.parent == masks] == ["mask005.tif", "mask012.tif"]
    mask = read_image(masks / "mask005.tif")
    assert mask.dtype == np.uint16 and mask.shape == (20, 30)
    assert (mask == (objects > 0) * (np.arange(20)[:, None] > 7)).all()  # 16 pixels are too few, the other is 1
    assert seg([(mask.astype(int), (np.arange(20)[:, None] > 7) * (objects > 0))]) == 1
    list(predict_files(network, paths, tmp_path / "out"))  # without masks none are written
    assert sorted(p.name for p in masks.iterdir()) == ["mask005.tif", "mask012.tif"]


def test_other_names_are_counted(tmp_path) -> None:
    paths = images(tmp_path / "in", "b.png", "t001.tif")
    assert list(mask_names(paths[1:])) == ["mask001.tif"]
    names = mask_names(paths)
    assert [next(names) for _ in range(3)] == ["mask000.tif", "mask001.tif", "mask002.tif"]
    assert list(mask_names([paths[0].with_name("t0123.tif")])) == ["mask0123.tif"]


def test_too_many_objects_are_refused_and_named(tmp_path, monkeypatch) -> None:
    paths = images(tmp_path / "in", "many.png")
    dots = np.zeros((520, 520))
    dots[::2, ::2] = 0.9  # 67,600
    monkeypatch.setattr(predict, "predict_probabilities", lambda *a: two(dots))
    with pytest.raises(ValueError, match=r"many\.png: 67,600 objects: a mask of 16 bits holds at most 65,535"):
        list(predict_files(UNet(base=1, depth=1), paths, tmp_path / "out", masks=tmp_path / "masks"))
    assert not list((tmp_path / "masks").iterdir())
