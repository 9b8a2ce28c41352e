"""Image files to arrays and back. Symbol key: D pages, H rows, W columns, C channels.

Whatever a decoder does with a bad file (a dozen exception types, warnings, lines on the process's stderr),
the caller sees one `DataError` with one line that names the file.
"""

import contextlib
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minitorch_unet.errors import DataError
from minitorch_unet.files import atomic_write

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".npy", ".npz")

_FORMATS = ("PNG", "JPEG", "GIF")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_CHANNELS = 16  # a 3-D .npy with a longer last axis is taken for a stack of pages
_STDERR_LOCK = threading.Lock()


def read_image(path: str | os.PathLike[str], palette_indices: bool = False) -> np.ndarray:
    """Read one image as (H, W) or (H, W, C) in the file's own type.

    PNG, JPEG, GIF, TIFF, NPY and NPZ (one array). One-bit images and boolean arrays become uint8 0/1; grey
    PNGs of two or four bits keep their stored values. A palette of greys gives those greys (H, W); a palette
    of colours gives RGB (H, W, 3), or with `palette_indices` the stored indices (H, W), as label files use
    them. An alpha channel is dropped: transparency is no measurement.

    Raises `DataError` for a file that is missing, damaged, not an image, or holds several pages (see
    `read_stack`).
    """
    path = Path(path)
    with _data_errors(path):
        if path.suffix.lower() in (".npy", ".npz"):
            array = _load_numpy(path)
            if array.ndim == 2 or (array.ndim == 3 and array.shape[2] <= _MOST_CHANNELS):
                return array
            raise DataError(
                f"{path}: holds an array of shape {array.shape}, an image is (H, W) or (H, W, C) with up to "
                f"{_MOST_CHANNELS} channels; read a stack of images with read_stack"
            )
        return _decode(path, palette_indices, several=False)[0]


def read_stack(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a multi-page TIFF, or a 3-D or 4-D NPY/NPZ, as (D, H, W) or (D, H, W, C), pages in file order.

    Pages are converted as in `read_image`. Raises `DataError` for an unusable file and for pages of unequal
    shape.
    """
    path = Path(path)
    with _data_errors(path):
        if path.suffix.lower() in (".npy", ".npz"):
            array = _load_numpy(path)
            if array.ndim not in (3, 4):
                raise DataError(
                    f"{path}: holds an array of shape {array.shape}, a stack is (D, H, W) or (D, H, W, C)"
                )
            return array
        pages = _decode(path, palette_indices=False, several=True)
        kinds = {(page.shape, page.dtype) for page in pages}
        if len(kinds) > 1:
            shapes = sorted(f"{shape} {dtype}" for shape, dtype in kinds)
            raise DataError(f"{path}: its pages differ ({', '.join(shapes[:3])}), a stack needs equal pages")
        return np.stack(pages)


def write_image(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write an image to .png, .tif/.tiff (LZW) or .npy, through a temporary file: all of it or nothing.

    bool (H, W) is written with one bit per pixel; uint8 as (H, W) or (H, W, 3); uint16 as (H, W); float32 (H,
    W) to TIFF only. NPY takes all of these and uint16 (H, W, 3). Raises `ValueError` or `TypeError` for
    anything else, and `DataError` where the file cannot be written.
    """
    path = Path(path)
    atomic_write(path, _encode(path, np.asarray(array)))


def _encode(path: Path, array: np.ndarray) -> bytes:
    """The bytes of the file that `write_image` puts in place."""
    suffix = path.suffix.lower()
    if suffix not in (".png", ".tif", ".tiff", ".npy"):
        raise ValueError(f"write_image: {path.name!r} must end in .png, .tif, .tiff or .npy")
    kinds = {"bool": 2, "uint8": 3, "uint16": 3, "float32": 2}
    if array.dtype.name not in kinds:
        raise TypeError(
            f"write_image: array has dtype {array.dtype}, legal are bool, uint8, uint16 and float32"
        )
    colour = array.ndim == 3 and array.shape[2] == 3 and kinds[array.dtype.name] == 3
    if not (array.ndim == 2 or colour) or array.size == 0:
        raise ValueError(
            f"write_image: a {array.dtype} array has shape {array.shape}, legal is a non-empty (H, W), "
            "or (H, W, 3) for uint8 and uint16"
        )
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        return buffer.getvalue()
    if colour and array.dtype == np.uint16:
        raise ValueError("write_image: 16-bit colour can only be written to .npy")
    if array.dtype == np.float32 and suffix == ".png":
        raise ValueError("write_image: float32 can only be written to .tif, .tiff or .npy")
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(array))
    if suffix == ".png":
        picture.save(buffer, format="PNG")
    else:
        picture.save(buffer, format="TIFF", compression="tiff_lzw")
    return buffer.getvalue()


def _load_numpy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            if len(loaded.files) != 1:
                raise DataError(f"{path}: holds {len(loaded.files)} arrays, a single one is expected")
            loaded = loaded[loaded.files[0]]
    if loaded.dtype.kind not in "buif" or loaded.size == 0:
        raise DataError(f"{path}: holds {loaded.dtype} values of shape {loaded.shape}, an image has numbers")
    return _native(loaded)


def _native(array: np.ndarray) -> np.ndarray:
    """Booleans as uint8 0/1, and the machine's own byte order."""
    own = np.dtype(np.uint8) if array.dtype == bool else array.dtype.newbyteorder("=")
    return array.astype(own, copy=False)


def _decode(path: Path, palette_indices: bool, several: bool) -> list[np.ndarray]:
    """All pages of a picture file; only TIFF may have `several`."""
    from PIL import Image

    with open(path, "rb") as file:
        magic = file.read(4)
    if magic in _TIFF_MAGIC:
        return _decode_tiff(path, palette_indices, several)
    with Image.open(path, formats=_FORMATS) as picture:
        if picture.format == "PNG":
            return [_decode_png(path, palette_indices)]
        if picture.format == "GIF":
            _refuse_pages(path, getattr(picture, "n_frames", 1), several=False)
        return [_to_array(picture, palette_indices)]


def _refuse_pages(path: Path, count: int, several: bool) -> None:
    if count > 1 and not several:
        raise DataError(f"{path}: holds {count} pages where one image is expected (TIFF: see read_stack)")


def _decode_tiff(path: Path, palette_indices: bool, several: bool) -> list[np.ndarray]:
    """All pages, by Pillow where it keeps every bit, else by tifffile."""
    from PIL import Image, UnidentifiedImageError

    with _silent_stderr():
        try:
            with Image.open(path, formats=("TIFF",)) as picture:
                count = getattr(picture, "n_frames", 1)
                _refuse_pages(path, count, several)
                pages = []
                for number in range(count):
                    picture.seek(number)
                    if not _pillow_keeps_all(picture):
                        return _decode_tifffile(path, several)
                    pages.append(_to_array(picture, palette_indices))
                return pages
        except UnidentifiedImageError:  # a sample type that Pillow does not know, or a damaged file
            return _decode_tifffile(path, several)


def _decode_png(path: Path, palette_indices: bool) -> np.ndarray:
    """A PNG whose checksums hold. Byte 24 is the bit depth, byte 25 the colour type (0 grey, 3 palette)."""
    from PIL import Image

    data = path.read_bytes()
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        picture.verify()  # decoding alone does not look at the checksums
    depth, colour_type = data[24], data[25]
    if depth == 16 and colour_type not in (0, 3):
        try:
            import imagecodecs
        except ImportError:
            raise DataError(f"{path}: has 16-bit colours; install the extra `tiff` to read it") from None
        return _drop_alpha(imagecodecs.png_decode(data), colour_type == 4 or colour_type == 6)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        array = _to_array(picture, palette_indices)
    # Pillow stretches two- and four-bit greys to 0..255; class indices must come out as they were stored.
    return array // (255 // (2**depth - 1)) if colour_type == 0 and depth in (2, 4) else array


def _pillow_keeps_all(picture: Any) -> bool:
    """Whether Pillow reads this TIFF page without losing bits, judged by its tags."""
    bits = set(picture.tag_v2.get(258, (1,)))
    formats = set(picture.tag_v2.get(339, (1,)))
    one_sample = picture.tag_v2.get(277, 1) == 1
    if one_sample and len(bits) == 1 and len(formats) == 1:
        return (*bits, *formats) in {(1, 1), (8, 1), (16, 1), (32, 3)}
    return bits == {8} and formats == {1}


def _decode_tifffile(path: Path, several: bool) -> list[np.ndarray]:
    try:
        import tifffile
    except ImportError:
        raise DataError(f"{path}: cannot be read without the extra `tiff`; install it") from None
    logger = logging.getLogger("tifffile")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            _refuse_pages(path, len(file.pages), several)
            pages = [_tifffile_page(page) for page in file.pages]
    finally:
        logger.disabled = was_disabled
    if any(page.ndim not in (2, 3) or page.dtype.kind not in "buif" for page in pages):
        raise DataError(
            f"{path}: has pages of {pages[0].dtype} {pages[0].shape}, an image is (H, W) or (H, W, C)"
        )
    return pages


def _tifffile_page(page: Any) -> np.ndarray:
    array: np.ndarray = page.asarray()
    if array.ndim == 3 and page.axes.startswith("S"):  # one plane per channel
        array = array.transpose(1, 2, 0)
    extra: Any = getattr(page, "extrasamples", ())
    return _native(_drop_alpha(array, array.ndim == 3 and len(extra) == 1 and int(extra[0]) in (1, 2)))


def _drop_alpha(array: np.ndarray, has_alpha: bool) -> np.ndarray:
    if not has_alpha:
        return array
    return array[..., 0] if array.shape[-1] == 2 else np.ascontiguousarray(array[..., :-1])


def _to_array(picture: Any, palette_indices: bool) -> np.ndarray:
    """A decoded Pillow image as (H, W) or (H, W, 3)."""
    if picture.mode == "P":
        index = np.array(picture)
        colours = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        used = colours[np.unique(index)]
        if (used == used[:, :1]).all():
            return colours[index, 0]
        return index if palette_indices else colours[index]
    if picture.mode in ("LA", "La"):
        picture = picture.convert("LA").getchannel("L")
    elif picture.mode not in ("1", "L", "RGB", "I", "F") and not picture.mode.startswith("I;16"):
        picture = picture.convert("RGB")
    return _native(np.array(picture))


@contextlib.contextmanager
def _data_errors(path: Path) -> Iterator[None]:
    """Turn every failure of a decoder into one `DataError`, and keep its warnings quiet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder, an image file is expected") from error
    except PermissionError as error:
        raise DataError(f"{path}: may not be read (permission denied)") from error
    except Exception as error:
        if type(error).__name__ == "UnidentifiedImageError":
            raise DataError(f"{path}: is not a readable PNG, JPEG, GIF or TIFF image") from error
        lines = str(error).replace(str(path), "the file").splitlines() or [type(error).__name__]
        raise DataError(f"{path}: cannot be read, truncated or damaged ({lines[0]})") from error


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Point file descriptor 2 elsewhere: libtiff prints its complaints there, past Python."""
    with _STDERR_LOCK:
        try:
            kept = os.dup(2)
        except OSError:  # the process has no stderr
            yield
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(sink)
