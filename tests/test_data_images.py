"""Reading and writing image files; damaged files give one error and no noise."""

import builtins
import io
import os
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from minitorch_unet.data import read_image, read_stack, write_image
from minitorch_unet.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
COLOUR = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
COLOUR16 = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
BITS = GREY > 127


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".npy"])
@pytest.mark.parametrize("array", [GREY, GREY16, COLOUR, BITS], ids=["grey", "grey16", "colour", "bits"])
def test_written_images_come_back(tmp_path, suffix, array):
    file = tmp_path / f"x{suffix}"
    write_image(file, array[::-1])  # also a reversed view
    back = read_image(str(file))
    assert back.dtype == (np.uint8 if array.dtype == bool else array.dtype)
    assert np.array_equal(back, array[::-1])
    assert [child.name for child in tmp_path.iterdir()] == [file.name], "no temporary file is left"


def test_float_and_deep_colour_where_files_can_hold_them(tmp_path):
    probability = RNG.random((5, 6), dtype=np.float32)
    write_image(tmp_path / "p.tif", probability)
    assert np.array_equal(read_image(tmp_path / "p.tif"), probability)
    write_image(tmp_path / "c.npy", COLOUR16)
    assert np.array_equal(read_image(tmp_path / "c.npy"), COLOUR16)


@pytest.mark.parametrize(
    ("name", "array", "error", "words"),
    [
        ("x.jpg", GREY, ValueError, "must end in"),
        ("x.png", GREY.astype(np.int64), TypeError, "dtype int64"),
        ("x.png", GREY[None, None], ValueError, "legal is a non-empty"),
        ("x.png", BITS[..., None].repeat(3, 2), ValueError, "shape"),
        ("x.png", GREY[:0], ValueError, "non-empty"),
        ("x.tif", COLOUR16, ValueError, "16-bit colour"),
        ("x.png", GREY.astype(np.float32), ValueError, "float32"),
    ],
)
def test_write_refusals(tmp_path, name, array, error, words):
    with pytest.raises(error, match=words):
        write_image(tmp_path / name, array)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "x.png"
    write_image(file, GREY)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"cannot write .*x\.png: No space left"):
        write_image(file, 255 - GREY)
    monkeypatch.undo()
    assert np.array_equal(read_image(file), GREY)
    assert [child.name for child in tmp_path.iterdir()] == ["x.png"]
    with pytest.raises(DataError, match="cannot write"):
        write_image(tmp_path / "absent" / "x.png", GREY)


def test_jpeg_and_gif(tmp_path):
    Image.fromarray(np.full((9, 8, 3), (200, 100, 50), np.uint8)).save(tmp_path / "x.jpg", quality=95)
    back = read_image(tmp_path / "x.jpg")
    assert back.shape == (9, 8, 3) and np.abs(back.astype(int) - (200, 100, 50)).max() < 6
    Image.fromarray(GREY).save(tmp_path / "x.gif")
    assert np.array_equal(read_image(tmp_path / "x.gif"), GREY)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".tif"])
def test_palettes(tmp_path, suffix):
    index = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    picture = Image.fromarray(index)
    picture.putpalette([3, 3, 3, 253, 253, 253, 100, 100, 100])
    picture.save(tmp_path / f"grey{suffix}")
    expected = np.array([3, 253, 100], np.uint8)[index]
    assert np.array_equal(read_image(tmp_path / f"grey{suffix}"), expected)
    assert np.array_equal(read_image(tmp_path / f"grey{suffix}", palette_indices=True), expected)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(tmp_path / f"colour{suffix}")
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    assert np.array_equal(read_image(tmp_path / f"colour{suffix}"), table[index])
    if suffix != ".gif":  # the GIF writer may sort the palette
        assert np.array_equal(read_image(tmp_path / f"colour{suffix}", palette_indices=True), index)


def test_alpha_is_dropped(tmp_path):
    Image.fromarray(np.dstack([COLOUR, GREY])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), COLOUR)
    Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA").save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png"), GREY)


def test_grey_png_of_two_bits_keeps_its_values(tmp_path):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)
    row = zlib.compress(b"\0" + bytes([0b00011011]))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(data)
    assert read_image(tmp_path / "x.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", ["uint32", "int16", "float64", "uint8", ">u2"])
def test_tiff_types(tmp_path, dtype):
    array = (GREY16 % 251).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", array, byteorder=">" if dtype == ">u2" else "<")
    back = read_image(tmp_path / "x.tif")
    assert back.dtype == np.dtype(dtype).newbyteorder("=") and np.array_equal(back, array)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_tiff_loses_nothing(tmp_path, planar):
    array = COLOUR16 if planar == "contig" else COLOUR16.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb", planarconfig=planar)
    assert np.array_equal(read_image(tmp_path / "x.tif"), COLOUR16)


def test_16_bit_colour_png_loses_nothing(tmp_path):
    import imagecodecs

    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(COLOUR16))
    assert np.array_equal(read_image(tmp_path / "x.png"), COLOUR16)


def test_without_the_extra_it_is_asked_for(tmp_path, monkeypatch):
    import imagecodecs

    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(COLOUR16))
    tifffile.imwrite(tmp_path / "x.tif", COLOUR16, photometric="rgb")
    real = builtins.__import__

    def without(name, *rest):
        if name in ("tifffile", "imagecodecs"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in ("x.png", "x.tif"):
        with pytest.raises(DataError, match="extra `tiff`"):
            read_image(tmp_path / name)


def test_stacks(tmp_path):
    stack = RNG.integers(0, 256, (4, 9, 7), dtype=np.uint8)
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert np.array_equal(read_stack(tmp_path / "s.tif"), stack)
    with pytest.raises(DataError, match=r"s\.tif: holds 4 pages .* read_stack"):
        read_image(tmp_path / "s.tif")
    np.save(tmp_path / "s.npy", stack.repeat(20, axis=2))
    assert read_stack(tmp_path / "s.npy").shape == (4, 9, 140)
    with pytest.raises(DataError, match="read_stack"):
        read_image(tmp_path / "s.npy")
    write_image(tmp_path / "one.tif", GREY)
    assert read_stack(tmp_path / "one.tif").shape == (1, 13, 17)
    tifffile.imwrite(tmp_path / "c.tif", np.stack([COLOUR16, COLOUR16[::-1]]), photometric="rgb")
    assert np.array_equal(read_stack(tmp_path / "c.tif")[1], COLOUR16[::-1])
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(GREY)
        file.write(GREY[:5])
    with pytest.raises(DataError, match="its pages differ"):
        read_stack(tmp_path / "mixed.tif")


def test_numpy_files(tmp_path):
    np.savez(tmp_path / "one.npz", x=GREY)
    assert np.array_equal(read_image(tmp_path / "one.npz"), GREY)
    np.savez(tmp_path / "two.npz", x=GREY, y=GREY)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "line.npy", np.arange(5))
    np.save(tmp_path / "empty.npy", np.zeros((0, 4)))
    for name in ("two.npz", "objects.npy", "text.npy", "line.npy", "empty.npy"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


def test_missing_folder_and_text(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name, words in [
        ("absent.png", "no such file"),
        ("folder.png", "is a folder"),
        ("text.png", "not a readable"),
        ("empty.tif", "not a readable"),
        ("empty.npy", "truncated or damaged"),
    ]:
        for read in (read_image, read_stack):
            with pytest.raises(DataError, match=rf"{name}: .*{words}"):
                read(tmp_path / name)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "x.png", GREY)
    write_image(tmp_path / "x.tif", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("x.png", "x.tif"):
        with pytest.raises(DataError, match=rf"{name}: .*exceeds limit"):
            read_image(tmp_path / name)


def test_a_large_picture_gives_no_warning(tmp_path, monkeypatch):
    """Pillow warns from its limit on and refuses from twice the limit on."""
    write_image(tmp_path / "x.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)
    assert np.array_equal(read_image(tmp_path / "x.png"), GREY)


def encoded(suffix):
    smooth = np.add.outer(np.arange(300), np.arange(310)).astype(np.uint8)  # compresses well: flips go far
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, smooth)
    elif suffix == ".npz":
        np.savez_compressed(buffer, x=smooth)
    elif suffix == ".tif":
        Image.fromarray(smooth).save(buffer, format="TIFF", compression="tiff_lzw")
    else:
        Image.fromarray(smooth).save(buffer, format={".png": "PNG", ".gif": "GIF", ".jpg": "JPEG"}[suffix])
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".npy", ".npz"])
def test_truncated_files(tmp_path, suffix, capfd):
    data = encoded(suffix)
    file = tmp_path / f"x{suffix}"
    file.write_bytes(data)
    whole = read_image(file)
    step = max(len(data) // 25, 1)
    for length in [0, 1, 7, 8, 30, *range(40, len(data), step)]:
        file.write_bytes(data[:length])
        try:
            assert np.array_equal(read_image(file), whole), (
                f"{length} of {len(data)} bytes read as another image"
            )
        except DataError as error:
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
    with pytest.raises(DataError):
        file.write_bytes(data[: len(data) // 2])
        read_image(file)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".npy", ".npz"])
def test_flipped_bits(tmp_path, suffix, capfd):
    """A flip gives one line, or another image where the format has no checksum; PNG and NPZ have them."""
    data = encoded(suffix)
    file = tmp_path / f"x{suffix}"
    file.write_bytes(data)
    whole = read_image(file)
    rng = np.random.default_rng(1)
    refused = 0
    for place in [*range(24), *rng.integers(0, len(data), 60)]:
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(broken)
        try:
            image = read_image(file)
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
        else:
            assert suffix not in (".png", ".npz") or np.array_equal(image, whole), (
                f"byte {place} went unnoticed"
            )
    assert refused
    assert capfd.readouterr() == ("", "")


def test_npz_with_an_object_inside(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        buffer = io.BytesIO()
        np.save(buffer, np.array([print], object), allow_pickle=True)
        archive.writestr("x.npy", buffer.getvalue())
    with pytest.raises(DataError, match=r"x\.npz"):
        read_image(tmp_path / "x.npz")
