"""Images that stay on the disk: maps, percentiles, strips, and the memory all of it takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import one_thread

from minitorch_unet import UNet, cli, manual_seed, predict
from minitorch_unet.checkpoint import save_checkpoint
from minitorch_unet.data import normalise, read_image, write_image
from minitorch_unet.data.dataset import to_channels
from minitorch_unet.data.images import read_stack
from minitorch_unet.data.mapped import NormalisedPage, pages_of, percentiles
from minitorch_unet.data.strips import write_in_strips
from minitorch_unet.errors import DataError
from minitorch_unet.predict import bytes_in_memory, predict_files

__all__ = ["one_thread"]


def network(**options) -> UNet:
    manual_seed(3)
    return UNet(**({"base": 2, "depth": 1} | options))


def values(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def strips_needed(monkeypatch) -> None:
    """Every image that can be mapped is."""
    monkeypatch.setattr(predict, "IN_MEMORY", 0)


# ------------------------------------------------------------------------------------------------------- maps

FILES = {
    "grey.npy": lambda p: np.save(p, values("uint8", 40, 33)),
    "colour.npy": lambda p: np.save(p, values("uint16", 40, 33, 3)),
    "stack.npy": lambda p: np.save(p, values("float32", 3, 40, 33)),
    "columns.npy": lambda p: np.save(p, np.asfortranarray(values("float64", 40, 33))),
    "swapped.npy": lambda p: np.save(p, values("uint16", 40, 33).astype(">u2")),
    "grey.tif": lambda p: tifffile.imwrite(p, values("uint16", 40, 33)),
    "swapped.tif": lambda p: tifffile.imwrite(p, values("float32", 40, 33), byteorder=">"),
    "colour.tif": lambda p: tifffile.imwrite(p, values("uint8", 40, 33, 3), photometric="rgb"),
    "planes.tif": lambda p: tifffile.imwrite(p, values("uint8", 3, 40, 33), photometric="rgb", planarconfig="separate"),
    "stack.tif": lambda p: tifffile.imwrite(p, values("uint8", 3, 40, 33), photometric="minisblack"),
    "rows.tif": lambda p: tifffile.imwrite(p, values("uint8", 40, 33), rowsperstrip=7),
    "big.tif": lambda p: tifffile.imwrite(p, values("int16", 40, 33), bigtiff=True),
}


@pytest.mark.parametrize("name", FILES)
def test_windows_of_maps_are_those_of_the_image_read_whole(tmp_path, name) -> None:
    FILES[name](tmp_path / name)
    pages = pages_of(tmp_path / name)
    images = read_stack(tmp_path / name) if "stack" in name else [read_image(tmp_path / name)]
    assert len(pages) == len(images)
    for page, image in zip(pages, images, strict=True):
        assert page.shape == image.shape
        outside = ((90, 90), (90, 90), *(((0, 0),) * (image.ndim - 2)))
        mirrored = np.pad(image, outside, mode="reflect")
        for top, left, height, width in ((0, 0, 40, 33), (3, 5, 8, 9), (-7, 20, 30, 40), (-50, -40, 140, 120)):
            window = page.window(top, left, height, width)
            assert np.array_equal(window, mirrored[90 + top :, 90 + left :][:height, :width])
            assert window.dtype == image.dtype and window.flags.owndata
        whole = normalise(to_channels(image, 1, "x"))
        np.testing.assert_allclose(NormalisedPage(page, 1).window(0, 0, 40, 33), whole, rtol=0, atol=1e-6)


UNMAPPABLE = {
    "lzw.tif": (lambda p: tifffile.imwrite(p, values("uint8", 40, 33), compression="lzw"), r"is compressed \(LZW\)"),
    "tiles.tif": (lambda p: tifffile.imwrite(p, values("uint8", 64, 64), tile=(16, 16)), "in one piece"),
    "white.tif": (lambda p: tifffile.imwrite(p, values("uint8", 40, 33), photometric="miniswhite"), "MINISWHITE"),
    "alpha.tif": (
        lambda p: tifffile.imwrite(p, values("uint8", 40, 33, 4), photometric="rgb", extrasamples=["unassalpha"]),
        "alpha",
    ),
    "grey.png": (lambda p: write_image(p, values("uint8", 40, 33)), "is compressed"),
}


@pytest.mark.parametrize("name", UNMAPPABLE)
def test_large_files_that_cannot_be_mapped_say_why(tmp_path, monkeypatch, name) -> None:
    write, reason = UNMAPPABLE[name]
    write(tmp_path / name)
    paths = [tmp_path / name]
    assert len(list(predict_files(network(in_channels=3 if "alpha" in name else 1), paths, tmp_path))) == 2
    strips_needed(monkeypatch)
    told = rf"{name}: \d+ x \d+ pixels need 0 MiB .*; the file .*{reason}.* write it anew as uncompressed TIFF or NPY"
    with pytest.raises(DataError, match=told):
        list(predict_files(network(in_channels=3 if "alpha" in name else 1), paths, tmp_path / "out"))
    with pytest.raises(DataError, match=reason):
        pages_of(paths[0])[0].window(0, 0, 1, 1)


def test_tiffs_without_tifffile(tmp_path, monkeypatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values("uint8", 40, 33))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    page = pages_of(tmp_path / "a.tif")[0]
    assert (page.shape, page.open) == ((40, 33), None) and "install" in page.reason
    with pytest.raises(DataError, match="writing a TIFF in strips needs the extra `tiff`"):
        write_in_strips([tmp_path / "b.tif"], (2, 2), np.uint8, lambda write: write(np.zeros((2, 2))))


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.png"])
def test_damaged_and_missing_files_are_named(tmp_path, name) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        pages_of(tmp_path / name)
    (tmp_path / name).write_bytes(b"II*\0" if name == "a.tif" else b"nothing")
    with pytest.raises(DataError, match=name):
        pages_of(tmp_path / name)


# ------------------------------------------------------------------------------------------------ percentiles


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from([np.float32, np.float64]), st.integers(0, 99), st.data())
def test_percentiles_of_strips_are_numpys(height, channels, dtype, seed, data) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 10.0 ** rng.integers(-20, 20), (channels, height, 7)).astype(dtype)
    if seed % 2:
        image = np.round(image / image.std() * 3).astype(dtype)  # many are equal
    cuts = sorted(data.draw(st.lists(st.integers(1, height), max_size=4)))
    found = percentiles(lambda: iter([s for s in np.split(image, cuts, 1) if s.size]), (1.0, 50.0, 99.0))
    ends = image.min((1, 2)), image.max((1, 2))
    expected = [*np.percentile(image.astype(np.float64), (1, 50, 99), axis=(1, 2)), *ends]
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == np.float32 else 1e-12, atol=0)
    assert all(f.dtype == dtype for f in found)


def test_percentiles_of_a_large_image_in_many_strips(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("minitorch_unet.data.mapped.STRIP_PIXELS", 500)
    image = values("float64", 200, 90, 3)
    np.save(tmp_path / "a.npy", image)
    found = NormalisedPage(pages_of(tmp_path / "a.npy")[0], 1)
    np.testing.assert_allclose(found.window(0, 0, 200, 90), normalise(to_channels(image, 1, "")), rtol=0, atol=1e-6)
    image[150, 3, 1] = np.nan
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(DataError, match=r"a\.npy: holds values that are not finite"):
        NormalisedPage(pages_of(tmp_path / "a.npy")[0], 1)


# ----------------------------------------------------------------------------------------------------- strips


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_strips_make_the_image(tmp_path, suffix) -> None:
    first, second = values("uint8", 50, 31), values("uint8", 50, 31, seed=1)

    def produce(write) -> None:
        for top in range(0, 50, 7):
            write(first[top : top + 7], second[top : top + 7])

    paths = [tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"]
    write_in_strips(paths, (50, 31), np.uint8, produce)
    assert np.array_equal(read_image(paths[0]), first) and np.array_equal(read_image(paths[1]), second)
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]


def test_all_files_or_none(tmp_path) -> None:
    def stops(write) -> None:
        write(np.zeros((3, 4)), np.zeros((3, 4)))
        raise KeyError("stop")

    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    with pytest.raises(KeyError):
        write_in_strips(paths, (9, 4), np.uint8, stops)
    with pytest.raises(ValueError, match="3 rows were written, 9 are expected"):
        write_in_strips(paths[:1], (9, 4), np.uint8, lambda write: write(np.zeros((3, 4))))
    with pytest.raises(ValueError, match=r"'a\.png' must end in \.tif, \.tiff, \.npy"):
        write_in_strips([tmp_path / "a.png"], (9, 4), np.uint8, lambda write: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["grey.npy", "stack.tif", "colour.tif"])
@pytest.mark.parametrize("classes", [2, 3])
def test_strips_give_the_pictures_of_the_whole(tmp_path, monkeypatch, name, classes) -> None:
    FILES[name](tmp_path / name)
    model = network(num_classes=classes)
    usual = list(predict_files(model, [tmp_path / name], tmp_path / "usual", ".tif"))
    strips_needed(monkeypatch)
    calls = []
    monkeypatch.setattr("minitorch_unet.tiled.LARGEST_TILE", 24)
    found = list(predict_files(model, [tmp_path / name], tmp_path / "strips", None, lambda *a: calls.append(a)))
    assert [p.name for p in found] == [p.name for p in usual]
    for one, two in zip(usual, found, strict=True):
        a, b = read_image(one).astype(int), read_image(two).astype(int)
        assert a.shape == b.shape and np.abs(a - b).max() <= (1 if "probability" in one.name else 0)
    assert calls[-1][0] == calls[-1][1] > 5


def test_what_strips_cannot_do(tmp_path, monkeypatch) -> None:
    paths = [tmp_path / "grey.npy"]
    FILES["grey.npy"](paths[0])
    model = network()
    with pytest.raises(ValueError, match=r"may take 0 MiB; objects can only be found in the whole of an image"):
        list(predict_files(model, paths, tmp_path / "out", masks=tmp_path / "masks", memory=1))
    strips_needed(monkeypatch)
    assert len(list(predict_files(model, paths, tmp_path / "out", masks=tmp_path / "masks"))) == 3
    told = r"grey\.npy \(40 x 33 pixels\) is written in strips, as \.tif or .*not as \.png"
    with pytest.raises(ValueError, match=told):
        list(predict_files(model, paths, tmp_path / "png", ".png"))


# ----------------------------------------------------------------------------------------------------- memory

CHILD = """
import resource, sys
from minitorch_unet.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def peak_of(*arguments: object) -> int:
    """Bytes that a process takes at most which runs this command."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A checkpoint, and images of 4,000 and 10 million pixels."""
    folder = tmp_path_factory.mktemp("run")
    model = network(base=1)
    arrays = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_checkpoint(folder / "best.safetensors", arrays, {"network": model.config})
    np.save(folder / "tiny.npy", values("uint8", 200, 20))
    np.save(folder / "large.npy", values("uint8", 3500, 3000))
    tifffile.imwrite(folder / "large.tif", values("uint8", 3500, 3000))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("name", ["large.npy", "large.tif"])
def test_strips_keep_within_the_memory_they_are_given(run, tmp_path, name) -> None:
    """Whole in memory the image takes some 350 MiB by the rule; in strips no more than it is given."""
    little = peak_of("predict", run, run / "tiny.npy", "--output", tmp_path / "a", "--threads", 1, "--quiet")
    budget = little // (1 << 20) + 30
    how = ["--memory", f"{budget}MiB", "--threads", 1, "--quiet"]
    peak = peak_of("predict", run, run / name, "--output", tmp_path / "b", *how)
    assert peak <= budget << 20
    written = sorted((tmp_path / "b").iterdir())
    assert [p.name for p in written] == ["large_label.tif", "large_probability.tif"]
    assert read_image(written[0]).shape == (3500, 3000)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_whole_images_take_no_more_than_the_rule_says(run, tmp_path) -> None:
    little = peak_of("predict", run, run / "tiny.npy", "--output", tmp_path / "a", "--threads", 1, "--quiet")
    whole = peak_of("predict", run, run / "large.npy", "--output", tmp_path / "b", "--threads", 1, "--quiet")
    rule = bytes_in_memory(pages_of(run / "large.npy"), 1, 2)
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["large_label.png", "large_probability.png"]
    assert rule / 4 < whole - little <= rule + (30 << 20)


def test_the_command_line(run, tmp_path, capsys) -> None:
    def call(*how: object) -> int:
        return cli.main(list(map(str, ["predict", run, run / "tiny.npy", "--output", tmp_path, "--quiet", *how])))

    pictures = []
    for how in ([], ["--tile", 20], ["--average", "flips"], ["--overlap", 0.5, "--tile", 20], ["--memory", "2GiB"]):
        assert call("--format", "npy", *how) == 0
        pictures.append(np.load(tmp_path / "tiny_probability.npy").astype(int))
    assert np.abs(pictures[1] - pictures[0]).max() <= 1 and np.abs(pictures[3] - pictures[0]).max() <= 1
    assert np.array_equal(pictures[4], pictures[0])
    assert np.abs(pictures[2] - pictures[0]).max() > 1
    for how, told in (
        (["--tile", 21], "tile is 21 pixels, which this network cannot take; nearest legal sizes: 20 and 22"),
        (["--memory", "some"], "'some' is no amount of memory"),
        (["--memory", "1MiB"], "are needed"),
        (["--memory", "1GiB", "--device", "cuda"], "minitorch-unet predict: "),
        (["--overlap", 2], "overlap is 2.0; it must be at least 0 and below 1"),
    ):
        capsys.readouterr()
        assert call(*how) == 2
        err = capsys.readouterr().err
        assert told in err and err.count("\n") == 1


def test_a_network_whose_tiles_are_not_exact_is_told(run, tmp_path, capsys) -> None:
    model = network(norm="group")
    arrays = {f"model.{name}": value for name, value in model.state_dict().items()}
    save_checkpoint(tmp_path / "best.safetensors", arrays, {"network": model.config})
    for how, told in (([], True), (["--overlap", 0.5], False)):
        arguments = ["predict", tmp_path, run / "tiny.npy", "--output", tmp_path, "--quiet", *how]
        assert cli.main(list(map(str, arguments))) == 0
        assert ("note: group normalisation depends on the tile" in capsys.readouterr().err) == told
