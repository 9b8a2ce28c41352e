"""Images read and written in strips: which, how, and the memory that all of it takes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from small_runs import one_thread
from tile_cases import FILES, values

from minitorch_unet import UNet, cli, manual_seed, predict
from minitorch_unet.checkpoint import save_checkpoint
from minitorch_unet.data import read_image, write_image
from minitorch_unet.data.mapped import pages_of
from minitorch_unet.data.strips import write_in_strips
from minitorch_unet.errors import DataError
from minitorch_unet.predict import bytes_in_memory, predict_files

__all__ = ["one_thread"]


def network(**options) -> UNet:
    manual_seed(3)
    return UNet(**({"base": 2, "depth": 1} | options))


def strips_needed(monkeypatch) -> None:
    """Every image that can be mapped is."""
    monkeypatch.setattr(predict, "IN_MEMORY", 0)


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


# ----------------------------------------------------------------------------------------------------- strips


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_strips_make_the_image(tmp_path, suffix) -> None:
    first, second = values("uint8", 50, 31), values("uint8", 50, 31, seed=1)

    def produce(write, done) -> None:
        for top in range(done, 50, 7):
            write(first[top : top + 7], second[top : top + 7])

    paths = [tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"]
    write_in_strips(paths, (50, 31), np.uint8, produce)
    assert np.array_equal(read_image(paths[0]), first) and np.array_equal(read_image(paths[1]), second)
    assert sorted(p.name for p in tmp_path.iterdir()) == [p.name for p in paths]


def test_all_files_or_none(tmp_path) -> None:
    def stops(write, done) -> None:
        write(np.zeros((3, 4)), np.zeros((3, 4)))
        raise KeyError("stop")

    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    with pytest.raises(KeyError):
        write_in_strips(paths, (9, 4), np.uint8, stops)
    with pytest.raises(ValueError, match="3 rows were written, 9 are expected"):
        write_in_strips(paths[:1], (9, 4), np.uint8, lambda write, done: write(np.zeros((3, 4))))
    with pytest.raises(ValueError, match=r"'a\.png' must end in \.tif, \.tiff, \.npy"):
        write_in_strips([tmp_path / "a.png"], (9, 4), np.uint8, lambda write, done: None)
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


def test_what_is_held_whole_leaves_memory_for_its_tiles(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(predict, "resident_bytes", lambda: 10**8)
    np.save(tmp_path / "a.npy", values("uint8", 400, 500))
    write_image(tmp_path / "b.png", values("uint8", 400, 500))
    model = network()
    mapped, decoded = pages_of(tmp_path / "a.npy"), pages_of(tmp_path / "b.png")
    needed = bytes_in_memory(mapped, 1, 2)
    assert bytes_in_memory(decoded, 1, 2) == needed == 2 * 200_000 + 200_000 * 32
    for share, strips in ((0.5, True), (1.5, True), (2.5, False)):
        memory = 10**8 + int(share * needed)
        assert predict.in_strips(tmp_path / "a.npy", mapped, model, memory, False) == strips
        if share > 1:  # there is no other way
            assert not predict.in_strips(tmp_path / "b.png", decoded, model, memory, False)


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


@pytest.mark.parametrize("overlap", [None, 0.5])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_an_interrupted_prediction_goes_on(tmp_path, monkeypatch, suffix, overlap) -> None:
    """Stopped again and again: what finished strips hold is not computed twice, and the pictures are the same."""
    np.save(tmp_path / "a.npy", values("uint8", 60, 33))
    model, how = network(), predict.Tiling(24, overlap=overlap)
    strips_needed(monkeypatch)
    want = list(predict_files(model, [tmp_path / "a.npy"], tmp_path / "want", suffix, how=how))
    calls, folder = [], tmp_path / "out"

    def stop_at_times(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) % (7 if overlap is None else 40) == 0:
            raise KeyboardInterrupt

    for _ in range(40):
        try:
            found = list(predict_files(model, [tmp_path / "a.npy"], folder, suffix, stop_at_times, how=how))
            break
        except KeyboardInterrupt:
            assert not list(folder.glob("a*"))
    else:
        pytest.fail("no progress from call to call")
    assert [p.read_bytes() for p in found] == [p.read_bytes() for p in want]
    assert sorted(folder.iterdir()) == sorted(found)
    assert len(calls) > calls[-1][1] == calls[-1][0]  # some were stopped before their strip was whole


def test_an_interrupt_before_the_renaming_loses_nothing(tmp_path, monkeypatch) -> None:
    """All rows are there; only the names are not yet."""
    np.save(tmp_path / "a.npy", values("uint8", 60, 33))
    strips_needed(monkeypatch)

    def stop(source: Path, target: Path) -> None:
        if Path(target).suffix == ".tif":  # the journal may be renamed
            raise KeyboardInterrupt
        os.rename(source, target)

    def found(progress=None) -> list[Path]:
        return list(predict_files(network(), [tmp_path / "a.npy"], tmp_path / "out", progress=progress))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop)
        found()
    counts: list[tuple[int, int]] = []
    written = found(lambda *count: counts.append(count))
    assert counts == [] and [p.name for p in written] == ["a_label.tif", "a_probability.tif"]
    assert sorted((tmp_path / "out").iterdir()) == written


def test_what_was_interrupted_for_something_else_begins_anew(tmp_path, monkeypatch) -> None:
    np.save(tmp_path / "a.npy", values("uint8", 60, 33))
    strips_needed(monkeypatch)

    def first_count(model: UNet, tile: int) -> int:
        counts = []

        def progress(done: int, total: int) -> None:
            counts.append(done)
            if done > total // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(predict_files(model, [tmp_path / "a.npy"], tmp_path, None, progress, how=predict.Tiling(tile)))
        return counts[0]

    assert first_count(network(), 24) == 1
    assert first_count(network(), 24) > 1
    assert first_count(network(), 26) == 1  # other tiles
    other = network()
    other.parameters()[0].data += 1
    assert first_count(other, 26) == 1
    assert first_count(other, 26) > 1
    os.utime(tmp_path / "a.npy", ns=(1, 1))
    assert first_count(other, 26) == 1
    assert first_count(other, 26) > 1
    next(tmp_path.glob(".*.unfinished")).write_bytes(b"damaged")
    assert first_count(other, 26) == 1


# ----------------------------------------------------------------------------------------------------- memory

CHILD = """
import sys
from minitorch_unet.cli import main
code = main(sys.argv[1:])
with open("/proc/self/status") as status:  # getrusage would begin with the parent's maximum
    print(next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM")))
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
